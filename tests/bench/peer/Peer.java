// The three-window job as a Kafka Streams program, exactly once: the peer that Assay is measured beside.
//   Peer dsl|rings BROKERS IN OUT TOTAL THREADS STATE_DIR SECONDS
// Folds the TOTAL reports of IN until all are committed, or for so many seconds, and prints one line of JSON.

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

public final class Peer {
    private static final AtomicLong seen = new AtomicLong();
    private static final Serde<Report> REPORT = Serdes.serdeFrom(
            (topic, report) -> { throw new UnsupportedOperationException("reports are read, never written"); },
            (topic, bytes) -> Report.decode(bytes));

    /** Event time, as both topologies mean it. */
    public static final class EventTime implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
            return record.value() == null ? -1 : ((Report) record.value()).timestampMs;  // -1: left out
        }
    }

    /** Idiomatic: one hopping window for each size, advancing by its pane. */
    private static void dsl(StreamsBuilder builder, String in, String out) {
        KGroupedStream<String, Report> reports = builder.stream(in, Consumed.with(Serdes.String(), REPORT))
                .peek((agent, report) -> seen.incrementAndGet())
                .groupByKey(Grouped.with(Serdes.String(), REPORT));
        String[] names = {"1h", "24h", "7d"};
        Duration[] sizes = {Duration.ofHours(1), Duration.ofHours(24), Duration.ofDays(7)};
        Duration[] panes = {Duration.ofMinutes(1), Duration.ofMinutes(15), Duration.ofHours(1)};
        Duration grace = Duration.ofMinutes(45);
        for (int w = 0; w < 3; w++) {
            String name = names[w];
            reports.windowedBy(TimeWindows.ofSizeAndGrace(sizes[w], grace).advanceBy(panes[w]))
                    .aggregate(() -> new byte[24], (agent, report, sums) -> sum(sums, report),
                            Materialized.<String, byte[], WindowStore<Bytes, byte[]>>as("window-" + name)
                                    .withKeySerde(Serdes.String()).withValueSerde(Serdes.ByteArray())
                                    .withRetention(sizes[w].plus(grace)))
                    .toStream((window, sums) -> window.key() + "/" + name)
                    .to(out, Produced.with(Serdes.String(), Serdes.ByteArray()));
        }
    }

    private static byte[] sum(byte[] sums, Report report) {
        ByteBuffer was = ByteBuffer.wrap(sums);
        double sum = was.getDouble(8), squares = was.getDouble(16);
        for (int i = 0; i < report.count; i++) {
            sum += report.values[i];
            squares += report.values[i] * report.values[i];
        }
        return ByteBuffer.allocate(24).putLong(was.getLong(0) + report.count).putDouble(sum).putDouble(squares).array();
    }

    /** By hand: all panes of an agent in one value, one score out for each report. */
    private static final class ByHand implements Processor<String, Report, String, byte[]> {
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, byte[]> store;

        @Override
        public void init(ProcessorContext<String, byte[]> given) {
            context = given;
            store = given.getStateStore("rings");
        }

        @Override
        public void process(Record<String, Report> record) {
            seen.incrementAndGet();
            byte[] score = new byte[Rings.SCORE_BYTES];
            store.put(record.key(), Rings.add(store.get(record.key()), record.value(), score));
            context.forward(record.withValue(score));
        }
    }

    private static void rings(StreamsBuilder builder, String in, String out) {
        builder.addStateStore(Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("rings"), Serdes.String(), Serdes.ByteArray())
                .withCachingEnabled());
        builder.stream(in, Consumed.with(Serdes.String(), REPORT)).process(ByHand::new, "rings")
                .to(out, Produced.with(Serdes.String(), Serdes.ByteArray()));
    }

    private static Properties settings(String id, String brokers, String threads, String directory) {
        Properties p = new Properties();
        p.put("application.id", id);
        p.put("bootstrap.servers", brokers);
        p.put("num.stream.threads", threads);
        p.put("processing.guarantee", "exactly_once_v2");
        p.put("state.dir", directory);
        p.put("replication.factor", "1");
        p.put("auto.offset.reset", "earliest");
        p.put("default.timestamp.extractor", EventTime.class.getName());
        // As large as this program gains from; its commit interval is Kafka's own under exactly_once_v2, 100 ms.
        p.put("statestore.cache.max.bytes", String.valueOf(256L << 20));
        p.put("consumer.max.poll.records", "5000");
        p.put("consumer.fetch.max.bytes", String.valueOf(48 << 20));
        p.put("consumer.max.partition.fetch.bytes", String.valueOf(8 << 20));
        p.put("producer.linger.ms", "50");
        p.put("producer.batch.size", String.valueOf(512 << 10));
        p.put("producer.compression.type", "lz4");
        return p;
    }

    /** OUT as IN is cut. */
    private static void make(Admin admin, String in, String out) throws Exception {
        if (admin.listTopics().names().get().contains(out)) return;
        int partitions = admin.describeTopics(List.of(in)).allTopicNames().get().get(in).partitions().size();
        admin.createTopics(List.of(new NewTopic(out, partitions, (short) 1))).all().get();
    }

    private static long committed(Admin admin, String group) throws Exception {
        return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().values().stream()
                .mapToLong(place -> place == null ? 0 : place.offset()).sum();
    }

    public static void main(String[] args) throws Exception {
        String kind = args[0], brokers = args[1], in = args[2], out = args[3];
        long total = Long.parseLong(args[4]), seconds = Long.parseLong(args[7]);
        String id = "peer-" + kind;
        StreamsBuilder builder = new StreamsBuilder();
        if (kind.equals("dsl")) dsl(builder, in, out);
        else rings(builder, in, out);
        KafkaStreams streams = new KafkaStreams(builder.build(), settings(id, brokers, args[5], args[6]));
        streams.setUncaughtExceptionHandler(e -> {
            e.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Properties admin = new Properties();
        admin.put("bootstrap.servers", brokers);
        long done;
        double took;
        try (Admin asking = Admin.create(admin)) {
            make(asking, in, out);
            streams.start();
            while (seen.get() == 0 && streams.state() != KafkaStreams.State.ERROR) Thread.sleep(5);
            long began = System.nanoTime(), end = began + seconds * 1_000_000_000L;
            // The input holds nothing but reports, so its offsets count them.
            while (System.nanoTime() < end && streams.state() != KafkaStreams.State.ERROR) {
                if (seen.get() >= total && committed(asking, id) >= total) break;
                Thread.sleep(20);
            }
            done = Math.min(total, committed(asking, id));
            took = (System.nanoTime() - began) / 1e9;
        }
        boolean failed = streams.state() == KafkaStreams.State.ERROR;
        streams.close(Duration.ofSeconds(5));
        System.out.printf("{\"count\":%d,\"wallSeconds\":%.3f}%n", done, took);
        System.exit(failed || done == 0 ? 1 : 0);
    }
}
