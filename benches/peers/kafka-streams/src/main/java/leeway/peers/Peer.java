package leeway.peers;

import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.state.Stores;

/** Kafka Streams with the same job as {@code leeway run}: drift of each partition's windows, exactly once, with state in RocksDB and a changelog. */
public final class Peer {
    static final String STORE = "panes";
    static final String EVENTS = "events";
    static final String DEAD_LETTERS = "dead-letters";

    /** Flags, of which bench.py gives those that stand in leeway.toml; the defaults are its values. */
    private static final Map<String, String> DEFAULTS = Map.ofEntries(
        Map.entry("bootstrap-servers", "localhost:9092"),
        Map.entry("application-id", "drift-monitor-group"),
        Map.entry("topic", "drift-data"),
        Map.entry("events-topic", "drift-events"),
        Map.entry("dead-letter-topic", "drift-data-dlq"),
        Map.entry("reference", "reference.json"),
        Map.entry("state-dir", "kafka-streams-state"),
        Map.entry("window-size", "1000"),
        Map.entry("window-every", "100"),
        Map.entry("min-samples", "100"),
        Map.entry("possible-drift", "0.1"),
        Map.entry("drift", "0.25"),
        Map.entry("epsilon", "0.0001"),
        Map.entry("num-stream-threads", "2"),
        Map.entry("commit-interval-ms", "100"),
        Map.entry("processing-guarantee", StreamsConfig.EXACTLY_ONCE_V2));

    private Peer() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, String> flags = flags(arguments);
        Monitor monitor = new Monitor(
            flags.get("application-id"),
            flags.get("topic"),
            Integer.parseInt(flags.get("window-size")),
            Integer.parseInt(flags.get("window-every")),
            Integer.parseInt(flags.get("min-samples")),
            Double.parseDouble(flags.get("possible-drift")),
            Double.parseDouble(flags.get("drift")),
            Double.parseDouble(flags.get("epsilon")),
            Reference.read(Path.of(flags.get("reference"))));
        CountDownLatch ended = new CountDownLatch(1);
        KafkaStreams streams = new KafkaStreams(topology(monitor, flags), settings(flags));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            ended.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        ended.await();
        System.exit(1);
    }

    private static Topology topology(Monitor monitor, Map<String, String> flags) {
        var store = Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.Integer(), Serdes.ByteArray())
            .withCachingEnabled()
            .withLoggingEnabled(Map.of());
        return new Topology()
            .addSource("records", new ByteArrayDeserializer(), new ByteArrayDeserializer(), flags.get("topic"))
            .addProcessor("drift", () -> new DriftProcessor(monitor), "records")
            .addStateStore(store, "drift")
            .addSink(EVENTS, flags.get("events-topic"), new ByteArraySerializer(), new ByteArraySerializer(), "drift")
            .addSink(DEAD_LETTERS, flags.get("dead-letter-topic"), new ByteArraySerializer(), new ByteArraySerializer(), "drift");
    }

    private static Properties settings(Map<String, String> flags) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, flags.get("bootstrap-servers"));
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, flags.get("application-id"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, flags.get("state-dir"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, flags.get("processing-guarantee"));
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, flags.get("num-stream-threads"));
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, flags.get("commit-interval-ms"));
        // Every pane of every partition stays in it, so that RocksDB is written at a commit only and read at a start only.
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64L << 20);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        // As many as Leeway has of a partition; the defaults, 1,000 each, pause and resume it all the time.
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 10_000);
        settings.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        // A commit sends what is there at once; until then batches may fill.
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        return settings;
    }

    private static Map<String, String> flags(String[] arguments) {
        Map<String, String> flags = new HashMap<>(DEFAULTS);
        for (int i = 0; i < arguments.length; i += 2) {
            String name = arguments[i].startsWith("--") ? arguments[i].substring(2) : "";
            if (!DEFAULTS.containsKey(name) || i + 1 == arguments.length) {
                System.err.println(arguments[i] + ": flags are, each with a value, " + new TreeSet<>(DEFAULTS.keySet()));
                System.exit(2);
            }
            flags.put(name, arguments[i + 1]);
        }
        return flags;
    }
}
