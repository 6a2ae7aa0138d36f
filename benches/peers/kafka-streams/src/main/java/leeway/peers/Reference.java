package leeway.peers;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.StreamSupport;

/** A reference file as {@code leeway reference build} makes it, of numeric features with edges. */
record Reference(String version, List<Feature> features, Map<String, Integer> places) {

    /** The last count is that of missing values. */
    record Feature(String name, double[] edges, int[] counts, int rows, String[] labels) {
        int bins() {
            return counts.length;
        }

        /** Bin i holds (e_(i-1), e_i]. */
        int binOf(double value) {
            // A dozen edges: faster than a binary search.
            int bin = 0;
            while (bin < edges.length && value > edges[bin]) {
                bin++;
            }
            return bin;
        }
    }

    static Reference read(Path path) throws IOException {
        JsonNode root = new ObjectMapper().readTree(path.toFile());
        List<Feature> features = new ArrayList<>();
        Map<String, Integer> places = new HashMap<>();
        for (JsonNode one : root.get("features")) {
            if (!one.get("kind").asText().equals("numeric") || !one.has("edges")) {
                throw new IOException("feature " + one.get("name") + ": only numeric features with edges are known here");
            }
            double[] edges = StreamSupport.stream(one.get("edges").spliterator(), false).mapToDouble(JsonNode::asDouble).toArray();
            int[] counts = new int[edges.length + 2];
            for (int bin = 0; bin <= edges.length; bin++) {
                counts[bin] = one.get("counts").get(bin).asInt();
            }
            counts[edges.length + 1] = one.get("missing").asInt();
            int rows = 0;
            for (int count : counts) {
                rows += count;
            }
            String[] labels = new String[counts.length];
            for (int bin = 0; bin <= edges.length; bin++) {
                String low = bin == 0 ? "-inf" : decimal(edges[bin - 1]);
                labels[bin] = "(" + low + ", " + (bin == edges.length ? "inf)" : decimal(edges[bin]) + "]");
            }
            labels[edges.length + 1] = "__missing__";
            places.put(one.get("name").asText(), features.size());
            features.add(new Feature(one.get("name").asText(), edges, counts, rows, labels));
        }
        return new Reference(root.get("version").asText(), features, places);
    }

    private static String decimal(double value) {
        String text = Double.toString(value);
        return text.endsWith(".0") ? text.substring(0, text.length() - 2) : text;
    }
}
