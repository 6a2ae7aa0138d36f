package leeway.peers;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * One partition's window, as panes in the store; decoded ones are kept beside it, so that a record costs one put and no get. The put cannot wait for
 * the commit, of which a processor is not told; the store's cache keeps all but the last of them from RocksDB and the changelog.
 */
final class DriftProcessor extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
    private final Monitor monitor;
    private final Pane[] panes;
    private final int[][] window;
    private final RecordReader reader;
    private final byte[] statuses;
    private final byte[][] keys;
    private KeyValueStore<Integer, byte[]> store;
    private EventWriter events;
    private long records;

    DriftProcessor(Monitor monitor) {
        Reference reference = monitor.reference();
        this.monitor = monitor;
        panes = new Pane[monitor.size() / monitor.every()];
        window = reference.features().stream().map(feature -> new int[feature.bins()]).toArray(int[][]::new);
        reader = new RecordReader(reference);
        statuses = new byte[reference.features().size() + 1];
        Arrays.fill(statuses, (byte) -1);
        keys = new byte[statuses.length][];
        for (int feature = 0; feature < keys.length; feature++) {
            String name = feature < keys.length - 1 ? reference.features().get(feature).name() : EventWriter.SUMMARY;
            keys[feature] = name.getBytes(StandardCharsets.UTF_8);
        }
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        super.init(context);
        store = context.getStateStore(Peer.STORE);
        events = new EventWriter(monitor, context.taskId().partition());
        try (KeyValueIterator<Integer, byte[]> all = store.all()) {
            while (all.hasNext()) {
                var entry = all.next();
                Pane pane = Pane.fromBytes(monitor.reference(), entry.value);
                panes[entry.key] = pane;
                add(pane, 1);
                if (pane.recordCount > records) {
                    records = pane.recordCount;
                    System.arraycopy(pane.statuses, 0, statuses, 0, statuses.length);
                }
            }
        }
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        if (record.value() == null) {
            return;
        }
        if (!reader.read(record.value())) {
            context().forward(record, Peer.DEAD_LETTERS);
            return;
        }
        RecordMetadata place = context().recordMetadata().orElseThrow();
        int slot = (int) (records / monitor.every() % panes.length);
        boolean begins = records % monitor.every() == 0;
        records++;
        Pane pane = panes[slot];
        if (pane == null) {
            pane = panes[slot] = new Pane(monitor.reference());
        }
        if (begins) {
            add(pane, -1);
            pane.begin(place.offset(), record.timestamp());
        }
        pane.recordCount = records;
        pane.records++;
        pane.lastOffset = place.offset();
        pane.firstMs = Math.min(pane.firstMs, record.timestamp());
        pane.lastMs = Math.max(pane.lastMs, record.timestamp());
        for (int feature = 0; feature < window.length; feature++) {
            int bin = reader.bins[feature];
            pane.counts[feature][bin]++;
            window[feature][bin]++;
        }
        if (records % monitor.every() == 0 && records >= monitor.minSamples()) {
            check(slot, record);
        }
        System.arraycopy(statuses, 0, pane.statuses, 0, statuses.length);
        store.put(slot, pane.toBytes());
    }

    private void add(Pane pane, int sign) {
        for (int feature = 0; feature < window.length; feature++) {
            for (int bin = 0; bin < window[feature].length; bin++) {
                window[feature][bin] += sign * pane.counts[feature][bin];
            }
        }
    }

    private void check(int newest, Record<byte[], byte[]> record) {
        Pane oldest = panes[(newest + 1) % panes.length];
        EventWriter.Window bounds = new EventWriter.Window();
        bounds.recordCount = records;
        bounds.startOffset = (oldest == null ? panes[0] : oldest).firstOffset;
        bounds.endOffset = panes[newest].lastOffset;
        for (Pane pane : panes) {
            if (pane != null) {
                bounds.records += pane.records;
                bounds.startMs = Math.min(bounds.startMs, pane.firstMs);
                bounds.endMs = Math.max(bounds.endMs, pane.lastMs);
            }
        }
        events.begin(bounds);
        for (int feature = 0; feature < window.length; feature++) {
            forward(feature, events.feature(feature, window[feature], statuses), record);
        }
        forward(window.length, events.summary(statuses), record);
    }

    private void forward(int feature, byte[] value, Record<byte[], byte[]> record) {
        context().forward(record.withKey(keys[feature]).withValue(value), Peer.EVENTS);
    }
}
