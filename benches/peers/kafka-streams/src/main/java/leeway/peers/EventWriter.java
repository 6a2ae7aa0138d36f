package leeway.peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.StreamWriteFeature;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;

/** The drift events of one check: PSI, status, and all fields that {@code leeway run} writes, in its order; what is not worked out here is null. */
final class EventWriter {
    static final String SUMMARY = "*";

    private static final JsonFactory JSON = JsonFactory.builder().enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER).build();
    private static final Monitor.Status[] STATUSES = Monitor.Status.values();

    /** What a check looks at. */
    static final class Window {
        long recordCount;
        int records;
        long startOffset;
        long endOffset;
        long startMs = Long.MAX_VALUE;
        long endMs = Long.MIN_VALUE;
    }

    private final Monitor monitor;
    private final int partition;
    private final String prefix;
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(1024);
    private Window window;
    private double total;
    private int drifted;

    EventWriter(Monitor monitor, int partition) {
        this.monitor = monitor;
        this.partition = partition;
        prefix = monitor.applicationId() + "/default/" + monitor.topic() + "/" + partition + "/partition//";
    }

    void begin(Window of) {
        window = of;
        total = 0;
        drifted = 0;
    }

    /** Judges one feature; its status becomes the last one. */
    byte[] feature(int index, int[] counts, byte[] statuses) {
        Reference.Feature feature = monitor.reference().features().get(index);
        double psi = 0;
        double most = Double.NEGATIVE_INFINITY;
        int top = 0;
        int freedom = -1;
        for (int bin = 0; bin < counts.length; bin++) {
            double expected = Math.max((double) feature.counts()[bin] / feature.rows(), monitor.epsilon());
            double actual = Math.max((double) counts[bin] / window.records, monitor.epsilon());
            double contribution = (actual - expected) * Math.log(actual / expected);
            psi += contribution;
            if (contribution > most) {
                most = contribution;
                top = bin;
            }
            if (feature.counts()[bin] + counts[bin] > 0) {
                freedom++;
            }
        }
        total += psi;
        Monitor.Status status = monitor.status(psi);
        drifted += status == Monitor.Status.DRIFT ? 1 : 0;
        Double nullMean = freedom * (1.0 / feature.rows() + 1.0 / window.records);
        byte[] event = write(feature.name(), psi, nullMean, status, statuses[index], counts, psi > 0 ? feature.labels()[top] : null, most);
        statuses[index] = (byte) status.ordinal();
        return event;
    }

    /** Of the features since {@link #begin}. */
    byte[] summary(byte[] statuses) {
        int last = statuses.length - 1;
        double psi = total / last;
        Monitor.Status status = monitor.status(psi);
        byte[] event = write(SUMMARY, psi, null, status, statuses[last], null, null, 0);
        statuses[last] = (byte) status.ordinal();
        return event;
    }

    private byte[] write(
        String feature, double psi, Double nullMean, Monitor.Status status, byte previous, int[] counts, String topBin, double topContribution) {
        bytes.reset();
        try (JsonGenerator json = JSON.createGenerator(bytes)) {
            json.writeStartObject();
            json.writeNumberField("schema_version", 1);
            json.writeStringField("event_id", prefix + feature + "/" + window.endOffset + "/" + monitor.reference().version());
            json.writeStringField("kind", "drift");
            json.writeStringField("monitor", "default");
            json.writeStringField("scope", "partition");
            json.writeNumberField("partition", partition);
            json.writeNullField("segment");
            json.writeStringField("feature", feature);
            json.writeNumberField("psi", psi);
            json.writeNullField("p_value");
            number(json, "psi_null_mean", nullMean);
            json.writeNullField("significant");
            json.writeStringField("status", status.text);
            json.writeStringField("previous_status", previous < 0 ? null : STATUSES[previous].text);
            json.writeNumberField("record_count", window.recordCount);
            json.writeNumberField("window_count", window.records);
            number(json, "missing_count", counts == null ? null : counts[counts.length - 1]);
            json.writeNullField("below_range_count");
            json.writeNullField("above_range_count");
            json.writeNumberField("window_start_offset", window.startOffset);
            json.writeNumberField("window_end_offset", window.endOffset);
            json.writeNumberField("window_start_ms", window.startMs);
            json.writeNumberField("window_end_ms", window.endMs);
            json.writeFieldName("counts");
            if (counts == null) {
                json.writeNull();
            } else {
                json.writeArray(counts, 0, counts.length);
            }
            json.writeStringField("top_bin", topBin);
            number(json, "top_bin_contribution", topBin == null ? null : topContribution);
            number(json, "feature_count", counts == null ? monitor.reference().features().size() : null);
            number(json, "drifted_features", counts == null ? drifted : null);
            json.writeStringField("reference_version", monitor.reference().version());
            for (String unknown : new String[] {"closed_by", "js", "ks", "wasserstein", "chi2_p_value"}) {
                json.writeNullField(unknown);
            }
            json.writeEndObject();
        } catch (IOException inMemory) {
            throw new UncheckedIOException(inMemory);
        }
        return bytes.toByteArray();
    }

    private static void number(JsonGenerator json, String name, Number value) throws IOException {
        json.writeFieldName(name);
        if (value == null) {
            json.writeNull();
        } else if (value instanceof Double real) {
            json.writeNumber(real);
        } else {
            json.writeNumber(value.longValue());
        }
    }
}
