//! Apache Kafka on loopback, as many KRaft nodes as a test asks for, each of which can be killed and started again on its data.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::proxy::Proxy;

/// A start takes seconds; on a busy machine many.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A version other than the one in `kafka-pom.xml`, in which a lone node that was killed writes all its transactions' markers after its restart.
///
/// Kafka 4.3.0, 4.3.1 and 4.4.0 do not (KAFKA-20734): a partition that has no leader for a moment, as every partition of a lone node that starts
/// again, is taken for deleted, and the transaction is called complete without the marker. Where there are replicas, one of them leads at once.
pub(crate) const SAFE_ALONE: &str = "4.2.1";

/// The bootstrap servers of the Kafka that all tests of this process share: one node, or what `KAFKA_BOOTSTRAP_SERVERS` names.
pub(crate) fn bootstrap() -> &'static str {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    static EXTERNAL: OnceLock<Option<String>> = OnceLock::new();
    match EXTERNAL.get_or_init(|| std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok().filter(|servers| !servers.is_empty())) {
        Some(servers) => servers,
        None => &SHARED.get_or_init(|| Cluster::start(1, None)).bootstrap,
    }
}

/// How long a new group waits for further members, in ms. Whoever wants another time says so before there is a node; the tests do not want to wait.
pub(crate) static REBALANCE_DELAY_MS: OnceLock<u32> = OnceLock::new();

/// Nodes that are broker and controller at once. Topics have a replica on each, and all but one of them must have what is acknowledged.
pub(crate) struct Cluster {
    pub(crate) bootstrap: String,
    /// One before each node, where there are any. A client that begins with one of them meets all nodes behind theirs.
    pub(crate) proxies: Vec<Proxy>,
    classpath: String,
    directory: tempfile::TempDir,
    nodes: Vec<Node>,
}

/// The Java process ends when this one's end of the pipe closes, however that comes about.
struct Node {
    address: String,
    process: Option<Child>,
}

impl Cluster {
    /// Formats directories for so many nodes of a version (`None`: the one in `kafka-pom.xml`), starts them, and waits until they answer.
    pub(crate) fn start(nodes: usize, version: Option<&str>) -> Self {
        Self::start_with(nodes, version, false)
    }

    /// The same with a proxy before each node.
    pub(crate) fn start_behind_proxies(nodes: usize) -> Self {
        Self::start_with(nodes, None, true)
    }

    fn start_with(nodes: usize, version: Option<&str>, proxied: bool) -> Self {
        let libs = Command::new("scripts/kafka-jars")
            .args(version)
            .stderr(Stdio::inherit())
            .output()
            .expect("scripts/kafka-jars runs");
        assert!(libs.status.success(), "scripts/kafka-jars failed: Kafka's jars are needed");
        let ports = free_ports(3 * nodes);
        let (brokers, rest) = ports.split_at(nodes);
        let (controllers, behind) = rest.split_at(nodes);
        let addresses: Vec<String> = brokers.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let voters: Vec<String> = controllers.iter().zip(1..).map(|(port, id)| format!("{id}@127.0.0.1:{port}")).collect();
        let mut cluster = Self {
            bootstrap: addresses.join(","),
            proxies: behind.iter().filter(|_| proxied).map(|port| Proxy::before(*port)).collect(),
            classpath: format!("{}/*", String::from_utf8(libs.stdout).expect("a path").trim()),
            directory: tempfile::tempdir().expect("a temporary directory"),
            nodes: addresses.into_iter().map(|address| Node { address, process: None }).collect(),
        };
        for (index, controller) in controllers.iter().enumerate() {
            cluster.format(index, *controller, &voters.join(","));
        }
        for index in 0..nodes {
            cluster.spawn(index);
        }
        cluster.wait_until_whole();
        cluster
    }

    fn path(&self, index: usize, name: &str) -> PathBuf {
        self.directory.path().join(format!("{index}-{name}"))
    }

    fn format(&self, index: usize, controller: u16, voters: &str) {
        let (id, address, replicas) = (index + 1, &self.nodes[index].address, self.nodes.len());
        let in_sync = (replicas - 1).max(1);
        let (behind, advertised) = self.proxies.get(index).map_or_else(Default::default, |proxy| {
            (
                format!(",PROXIED://127.0.0.1:{}", proxy.target),
                format!(",PROXIED://127.0.0.1:{}", proxy.port),
            )
        });
        let text = format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
             listeners=PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller}{behind}\nadvertised.listeners=PLAINTEXT://{address}{advertised}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\nlog.dirs={}\ndefault.replication.factor={replicas}\nmin.insync.replicas={in_sync}\n\
             offsets.topic.replication.factor={replicas}\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr={in_sync}\ntransaction.state.log.num.partitions=4\n\
             group.initial.rebalance.delay.ms={}\n\
             group.consumer.min.session.timeout.ms=1000\ngroup.consumer.session.timeout.ms=6000\n\
             group.consumer.min.heartbeat.interval.ms=500\ngroup.consumer.heartbeat.interval.ms=1000\n\
             auto.create.topics.enable=false\ntransaction.abort.timed.out.transaction.cleanup.interval.ms=1000\n\
             log.retention.ms=-1\nlog.message.timestamp.after.max.ms=9223372036854775807\n",
            self.path(index, "logs").display(),
            REBALANCE_DELAY_MS.get_or_init(|| 0),
        );
        std::fs::write(self.path(index, "server.properties"), text).expect("settings are written");
        let format = Command::new("java")
            .args(["-cp", &self.classpath, "kafka.tools.StorageTool", "format"])
            .args(["-t", "bGVld2F5LXRlc3RzLWthZg", "-c"])
            .arg(self.path(index, "server.properties"))
            .output()
            .expect("java runs");
        assert!(format.status.success(), "formatting failed: {}", String::from_utf8_lossy(&format.stderr));
    }

    fn spawn(&mut self, index: usize) {
        // The shell reads from a pipe that this process holds open. When the pipe closes, for whatever reason, it ends Java.
        let script = "java -Xmx512m -cp \"$1\" kafka.Kafka \"$2\" >> \"$3\" 2>&1 < /dev/null & java=$!; cat > /dev/null; kill -9 $java; wait";
        let process = Command::new("sh")
            .args(["-c", script, "kafka", &self.classpath])
            .arg(self.path(index, "server.properties"))
            .arg(self.path(index, "server.log"))
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh runs");
        self.nodes[index].process = Some(process);
    }

    /// Waits until every node answers, and every replica of every partition is in sync.
    pub(crate) fn wait_until_whole(&self) {
        let deadline = Instant::now() + START_TIMEOUT;
        for (index, node) in self.nodes.iter().enumerate() {
            let client: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &node.address)
                .set("log_level", "0")
                .create()
                .expect("a client");
            let whole = || {
                client.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|metadata| {
                    let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
                    metadata.brokers().len() == self.nodes.len() && partitions.all(|partition| partition.isr().len() == partition.replicas().len())
                })
            };
            while !whole() {
                let log = || std::fs::read_to_string(self.path(index, "server.log")).unwrap_or_default();
                assert!(Instant::now() < deadline, "Kafka did not start:\n{}", log());
            }
        }
    }

    /// Bootstrap servers of the proxies.
    pub(crate) fn proxied_bootstrap(&self) -> String {
        let addresses: Vec<String> = self.proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port)).collect();
        addresses.join(",")
    }

    /// Ends a node with SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.nodes[index].process.take() {
            drop(process.stdin.take());
            process.wait().expect("a status");
        }
    }

    /// Starts a killed node on its data, and waits until it has caught up.
    pub(crate) fn restart(&mut self, index: usize) {
        self.restart_soon(index);
        self.wait_until_whole();
    }

    /// Starts a killed node on its data.
    pub(crate) fn restart_soon(&mut self, index: usize) {
        self.spawn(index);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.nodes.len() {
            self.kill(index);
        }
    }
}

/// Held open until all are known, so that no two are the same.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback")).collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().expect("an address").port())
        .collect()
}
