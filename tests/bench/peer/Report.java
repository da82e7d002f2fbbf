// An EvalReport as far as the peer needs it: agent, event time and metric values.

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.google.protobuf.CodedInputStream;
import java.io.IOException;
import java.time.Instant;
import java.util.Arrays;

final class Report {
    private static final JsonFactory JSON = new JsonFactory();
    // Field numbers of schemas/proto/eval_report.proto, of its map's entries and of google.protobuf.Timestamp.
    private static final int METRIC_SET = 8, TIMESTAMP = 9, ENTRY_VALUE = 2, SECONDS = 1, NANOS = 2;

    long timestampMs;
    double[] values = new double[4];
    int count;

    /** Reads either form; null when it is none: the job leaves such a record out. */
    static Report decode(byte[] bytes) {
        try {
            return bytes.length > 0 && bytes[0] == '{' ? fromJson(bytes) : fromProtobuf(CodedInputStream.newInstance(bytes));
        } catch (IOException | RuntimeException e) {
            return null;
        }
    }

    private void add(double value) {
        if (count == values.length) values = Arrays.copyOf(values, 2 * count);
        values[count++] = value;
    }

    private static Report fromJson(byte[] bytes) throws IOException {
        Report report = new Report();
        try (JsonParser in = JSON.createParser(bytes)) {
            in.nextToken();
            while (in.nextToken() == JsonToken.FIELD_NAME) {
                String name = in.currentName();
                JsonToken value = in.nextToken();
                if (name.equals("timestamp")) {
                    report.timestampMs = Instant.parse(in.getText()).toEpochMilli();
                } else if (name.equals("metricSet") && value == JsonToken.START_OBJECT) {
                    while (in.nextToken() == JsonToken.FIELD_NAME) {
                        in.nextToken();
                        report.add(in.getDoubleValue());
                    }
                } else {
                    in.skipChildren();
                }
            }
        }
        return report;
    }

    private static Report fromProtobuf(CodedInputStream in) throws IOException {
        Report report = new Report();
        for (int tag; (tag = in.readTag()) != 0;) {
            int field = tag >>> 3;
            if (field != METRIC_SET && field != TIMESTAMP) {
                in.skipField(tag);
                continue;
            }
            int outer = in.pushLimit(in.readRawVarint32());
            for (int inner; (inner = in.readTag()) != 0;) {
                if (field == METRIC_SET && inner >>> 3 == ENTRY_VALUE) report.add(in.readDouble());
                else if (field == TIMESTAMP && inner >>> 3 == SECONDS) report.timestampMs += in.readInt64() * 1000;
                else if (field == TIMESTAMP && inner >>> 3 == NANOS) report.timestampMs += in.readInt32() / 1_000_000;
                else in.skipField(inner);
            }
            in.popLimit(outer);
        }
        return report;
    }
}
