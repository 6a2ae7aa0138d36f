"""Apache Kafka on loopback: one KRaft node of the jars that the other tests use, and its command line tools."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from processes import ROOT, free_ports, output, quiet_environment, running, wait_for

# What bin/*.sh of Kafka's archive start.
TOOLS = {
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-consumer-groups.sh": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-get-offsets.sh": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-transactions.sh": "org.apache.kafka.tools.TransactionsCommand",
}


class Kafka:
    def __init__(self, bootstrap: str, classpath: str, directory: Path, pid: int) -> None:
        self.bootstrap = bootstrap
        self.classpath = classpath
        self.directory = directory
        self.pid = pid

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def create_topic(self, name: str, partitions: int, **settings: str) -> None:
        # Held: what it was asked ends with it.
        admin = self.admin()
        config = {setting.replace("_", "."): value for setting, value in settings.items()}
        for done in admin.create_topics([NewTopic(name, partitions, 1, config=config)]).values():
            done.result(30)

        def is_led() -> bool:
            # The controller answers before the broker, on a busy machine by far.
            found = admin.list_topics(name, timeout=10).topics[name].partitions.values()
            return len(found) == partitions and all(one.leader >= 0 for one in found)

        wait_for(f"topic {name}", is_led, 30)

    def read(self, topic: str) -> list[tuple[bytes | None, bytes | None]]:
        """A topic to its end, as readers see it who wait for transactions."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "tests",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )
        missing = set(consumer.list_topics(topic, 10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in missing])
        found = []
        while missing:
            message = consumer.poll(20)
            assert message is not None, f"{topic}: partitions {missing} came to no end within 20 s"
            if message.error() is None:
                found.append((message.key(), message.value()))
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                missing.discard(message.partition())
        consumer.close()
        return found

    def tools(self) -> Path:
        """A folder with Kafka's scripts, as in the archive's bin/."""
        folder = self.directory / "bin"
        folder.mkdir(exist_ok=True)
        for name, main in TOOLS.items():
            script = folder / name
            script.write_text(f'#!/bin/sh\nexec java -Xmx256m -XX:TieredStopAtLevel=1 -cp "{self.classpath}" {main} "$@"\n')
            script.chmod(0o755)
        return folder


@contextlib.contextmanager
def kafka(directory: Path, heap: str = "512m", initial_rebalance_delay_ms: int = 0) -> Iterator[Kafka]:
    """Formats and starts it, and waits until it answers. The first member of a group waits `initial_rebalance_delay_ms` for others."""
    libs = output([ROOT / "scripts/kafka-jars"]).strip()
    classpath = f"{libs}/*"
    port, controller = free_ports(2)
    settings = directory / "server.properties"
    settings.write_text(
        f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
log.dirs={directory}/logs
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms={initial_rebalance_delay_ms}
auto.create.topics.enable=false
"""
    )
    output(["java", "-cp", classpath, "kafka.tools.StorageTool", "format", "-t", "bGVld2F5LXRlc3RzLWthZg", "-c", settings])
    command = ["java", f"-Xmx{heap}", "-cp", classpath, "kafka.Kafka", settings]
    log = directory / "kafka.log"
    with running(command, log, env=quiet_environment()) as process:
        one = Kafka(f"127.0.0.1:{port}", classpath, directory, process.pid)

        def is_up() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return bool(one.admin().list_topics(timeout=1).brokers)
            except KafkaException:
                return False

        wait_for("Kafka", is_up, 120)
        yield one
