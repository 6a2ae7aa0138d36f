"""What scale.py measures: one thing changes, the others stay at the base point."""

from dataclasses import dataclass, field, replace

from contestants import configuration
from rows import Shape

THREADS = configuration()["num_stream_threads"]
MIN_SAMPLES = configuration()["monitor"][0]["min_samples"]
MIB = 1 << 20


@dataclass(frozen=True)
class Point:
    label: str
    # For a run of about 6 s on two cores that broker and Leeway share.
    records: int
    features: int = 5
    partitions: int = 8
    window: int = 1_000
    every: int = 100
    extra_bytes: int = 0
    segments: int = 0
    instances: int = 1
    # Of each instance; none: the default.
    memory_max_bytes: int | None = None
    # With --long only.
    is_long: bool = False

    @property
    def shape(self) -> Shape:
        return Shape(self.records, self.features, self.partitions, self.extra_bytes, self.segments)

    @property
    def setting(self) -> "Point":
        """Equal for points that are the same run under two labels."""
        return replace(self, label="")

    @property
    def checks(self) -> int:
        windows = self.segments or self.partitions
        records = self.records // windows
        return windows * max(records // self.every - (MIN_SAMPLES - 1) // self.every, 0)

    @property
    def events(self) -> int:
        """Each check of each window, once: a feature's and the summary."""
        return self.checks * (self.features + 1)

    @property
    def panes_looked_at(self) -> int:
        return self.checks * (self.window // self.every)

    def smaller(self, share: float) -> "Point":
        """The same with fewer records: whole panes, or each segment as often as another."""
        unit = self.segments or self.partitions * self.every
        return replace(self, records=max(round(self.records * share / unit), 1) * unit)


@dataclass(frozen=True)
class Dimension:
    title: str
    column: str
    points: list[Point]
    # Whether one formula is to tell the CPU of its points.
    is_modelled: bool = True
    # Whether Kafka Streams does the same beside it.
    has_peer: bool = False
    notes: list[str] = field(default_factory=list)


BASE = Point("5", 2_000_000)

DIMENSIONS = {
    "features": Dimension(
        "Monitored features",
        "features",
        [
            Point("1", 2_400_000, features=1),
            BASE,
            Point("10", 1_600_000, features=10),
            Point("100", 256_000, features=100),
            Point("1,000", 32_000, features=1_000),
        ],
    ),
    "partitions": Dimension(
        "Partitions",
        "partitions",
        [
            Point("1", 1_200_000, partitions=1),
            replace(BASE, label="8"),
            Point("64", 1_600_000, partitions=64),
            Point("256", 1_536_000, partitions=256),
        ],
    ),
    "window": Dimension(
        "Window size, a check every 100 records",
        "records of the window",
        [
            replace(BASE, label="1,000"),
            replace(BASE, label="10,000", window=10_000),
            replace(BASE, label="100,000", window=100_000),
        ],
    ),
    "every": Dimension(
        "Records between two checks, windows of 1,000",
        "every",
        [
            Point("20", 1_000_000, every=20),
            replace(BASE, label="100"),
            replace(BASE, label="1,000", every=1_000),
        ],
    ),
    "record-size": Dimension(
        "Fields that are not monitored",
        "more bytes a record",
        [
            replace(BASE, label="0"),
            Point("1,000", 800_000, extra_bytes=1_000),
            Point("10,000", 128_000, extra_bytes=10_000),
        ],
    ),
    "segments": Dimension(
        "Segments",
        "segments",
        [
            replace(BASE, label="none"),
            Point("1,000", 1_000_000, segments=1_000),
            Point("100,000", 400_000, segments=100_000),
            Point("1,000,000", 2_000_000, segments=1_000_000, is_long=True),
        ],
        is_modelled=False,
        notes=[
            "Each segment comes once before any comes again, so that each record finds its window as cold as can be. With 100,000 segments and more, "
            "none has the records for a check."
        ],
    ),
    "instances": Dimension(
        "Instances on the same cores",
        "instances",
        [
            Point("1", 4_800_000),
            Point("2", 4_800_000, instances=2),
            Point("4", 4_800_000, instances=4),
        ],
        is_modelled=False,
        notes=[
            f"{THREADS} threads each, counted from when all are members; CPU and memory are sums. All share the cores: it shows what one more "
            "costs, not what it brings."
        ],
    ),
    "memory": Dimension(
        "State of ten times the memory (500 features)",
        "segments and `memory_max_bytes`",
        [
            Point("16,000, 192 MiB", 16_000, features=500, segments=16_000, memory_max_bytes=192 * MIB),
            Point("160,000, 192 MiB", 160_000, features=500, segments=160_000, memory_max_bytes=192 * MIB),
            Point("160,000, 4 GiB", 160_000, features=500, segments=160_000, memory_max_bytes=4096 * MIB),
        ],
        is_modelled=False,
    ),
    "width": Dimension(
        "100 features, 64 partitions, beside Kafka Streams",
        "what",
        [Point("100 features, 64 partitions", 256_000, features=100, partitions=64)],
        is_modelled=False,
        has_peer=True,
    ),
    # Nothing of it is in what the formula is fitted to.
    "combined": Dimension(
        "Several at once: is the formula right?",
        "what",
        [Point("100 features, 64 partitions, 1,000 bytes more", 384_000, features=100, partitions=64, extra_bytes=1_000)],
        is_modelled=False,
    ),
}
