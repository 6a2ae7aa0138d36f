package leeway.peers;

import java.nio.ByteBuffer;
import java.util.Arrays;

/** The counts of {@code every} records, and as a value of the store. The newest pane says where the task stands. */
final class Pane {
    private static final byte VERSION = 1;
    private static final int HEADER_BYTES = 1 + 8 + 4 + 4 * 8;

    /** Number of its last record in the partition. */
    long recordCount;
    int records;
    long firstOffset;
    long lastOffset;
    long firstMs;
    long lastMs;
    /** Of the last check, one for each feature and one for all; -1: none yet. */
    final byte[] statuses;
    final int[][] counts;

    Pane(Reference reference) {
        statuses = new byte[reference.features().size() + 1];
        counts = reference.features().stream().map(feature -> new int[feature.bins()]).toArray(int[][]::new);
    }

    /** Empties it for records from this one on. */
    void begin(long offset, long timestamp) {
        records = 0;
        firstOffset = offset;
        firstMs = timestamp;
        lastMs = timestamp;
        for (int[] feature : counts) {
            Arrays.fill(feature, 0);
        }
    }

    byte[] toBytes() {
        int cells = 0;
        for (int[] feature : counts) {
            cells += feature.length;
        }
        ByteBuffer buffer = ByteBuffer.allocate(HEADER_BYTES + statuses.length + 2 * cells);
        buffer.put(VERSION).putLong(recordCount).putInt(records).putLong(firstOffset).putLong(lastOffset).putLong(firstMs).putLong(lastMs).put(statuses);
        for (int[] feature : counts) {
            for (int count : feature) {
                buffer.putShort((short) count);
            }
        }
        return buffer.array();
    }

    static Pane fromBytes(Reference reference, byte[] bytes) {
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        if (buffer.get() != VERSION) {
            throw new IllegalStateException("a pane of an unknown version");
        }
        Pane pane = new Pane(reference);
        pane.recordCount = buffer.getLong();
        pane.records = buffer.getInt();
        pane.firstOffset = buffer.getLong();
        pane.lastOffset = buffer.getLong();
        pane.firstMs = buffer.getLong();
        pane.lastMs = buffer.getLong();
        buffer.get(pane.statuses);
        for (int[] feature : pane.counts) {
            for (int bin = 0; bin < feature.length; bin++) {
                feature[bin] = buffer.getShort() & 0xFFFF;
            }
        }
        return pane;
    }
}
