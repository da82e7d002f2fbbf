// One agent's panes of all three windows in one value: for each window a ring of (pane, count, sum, sum of squares).

import java.nio.ByteBuffer;

final class Rings {
    static final int SCORE_BYTES = 3 * 24;  // count, mean, variance of 1h, 24h and 7d
    private static final int SLOT_BYTES = 32;
    private static final long[] PANE_MS = {60_000L, 900_000L, 3_600_000L};
    private static final int[] WINDOW_PANES = {60, 96, 168};
    private static final int[] RING_PANES = {60 + 45, 96 + 3, 168 + 1};  // and as many as a report may be late, 45 minutes
    private static final int BYTES = (RING_PANES[0] + RING_PANES[1] + RING_PANES[2]) * SLOT_BYTES;

    /** Adds the report to `value` (null: the agent's first) and fills in the windows that end with its panes. Returns the value. */
    static byte[] add(byte[] value, Report report, byte[] score) {
        byte[] bytes = value == null ? new byte[BYTES] : value;
        ByteBuffer rings = ByteBuffer.wrap(bytes);
        ByteBuffer out = ByteBuffer.wrap(score);
        double sum = 0, squares = 0;
        for (int i = 0; i < report.count; i++) {
            sum += report.values[i];
            squares += report.values[i] * report.values[i];
        }
        int ring = 0;
        for (int w = 0; w < 3; w++) {
            long pane = report.timestampMs / PANE_MS[w];
            int at = ring + (int) (pane % RING_PANES[w]) * SLOT_BYTES;
            if (rings.getLong(at) <= pane) {  // else the slot has gone on: too late for this window
                boolean fresh = rings.getLong(at) != pane;
                rings.putLong(at, pane);
                rings.putLong(at + 8, (fresh ? 0 : rings.getLong(at + 8)) + report.count);
                rings.putDouble(at + 16, (fresh ? 0 : rings.getDouble(at + 16)) + sum);
                rings.putDouble(at + 24, (fresh ? 0 : rings.getDouble(at + 24)) + squares);
            }
            long count = 0;
            double total = 0, totalSquares = 0;
            for (int k = 0; k < RING_PANES[w]; k++) {
                int slot = ring + k * SLOT_BYTES;
                long behind = pane - rings.getLong(slot);
                if (behind < 0 || behind >= WINDOW_PANES[w]) continue;
                count += rings.getLong(slot + 8);
                total += rings.getDouble(slot + 16);
                totalSquares += rings.getDouble(slot + 24);
            }
            double mean = count > 0 ? total / count : 0;
            out.putLong(count).putDouble(mean).putDouble(count > 1 ? (totalSquares - total * mean) / (count - 1) : 0);
            ring += RING_PANES[w] * SLOT_BYTES;
        }
        return bytes;
    }
}
