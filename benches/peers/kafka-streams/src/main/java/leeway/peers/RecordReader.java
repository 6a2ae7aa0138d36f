package leeway.peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.util.Arrays;

/** Reads a record straight to bins with Jackson's streaming parser, all of it: what is no JSON object is refused, wherever the fault is. */
final class RecordReader {
    private static final JsonFactory JSON = JsonFactory.builder().enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER).build();

    private final Reference reference;
    /** The bin of each feature in the record that was read last. */
    final int[] bins;

    RecordReader(Reference reference) {
        this.reference = reference;
        this.bins = new int[reference.features().size()];
    }

    /** Whether it is a record. */
    boolean read(byte[] value) {
        Arrays.setAll(bins, feature -> reference.features().get(feature).bins() - 1);
        try (JsonParser parser = JSON.createParser(value)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) {
                return false;
            }
            String name;
            while ((name = parser.nextFieldName()) != null) {
                JsonToken token = parser.nextToken();
                Integer place = reference.places().get(name);
                if (place != null) {
                    bins[place] = bin(parser, token, reference.features().get(place));
                } else if (token.isNumeric()) {
                    continue;
                }
                parser.skipChildren();
            }
            return parser.currentToken() == JsonToken.END_OBJECT && parser.nextToken() == null;
        } catch (IOException notJson) {
            return false;
        }
    }

    private static int bin(JsonParser parser, JsonToken token, Reference.Feature feature) throws IOException {
        if (token.isNumeric()) {
            double number = parser.getDoubleValue();
            if (Double.isFinite(number)) {
                return feature.binOf(number);
            }
        }
        return feature.bins() - 1;
    }
}
