#!/usr/bin/env python3
"""Writes the fixtures of time windows of segments of the whole topic, topology/tests/oracle/w*: seeded records and what whole_topic_time_segments.py
says of them. Prints what happened in each.

    make_whole_topic_fixtures.py [DIRECTORY]

NAME.spec.json, .records.jsonl, .steps.txt, .events.jsonl. Forms as in whole_topic_time_segments.py. Each fixture names what has to happen in it at least.
"""
import json, os, random, sys
from collections import Counter
import whole_topic_time_segments
from make_segment_fixtures import AMOUNT, BASE, DOORS, PLAN, SCORE, STATUSES, line, second, values


class Fixture:
    def __init__(self, name, seed, features, **spec):
        self.name, self.rnd, self.names = name, random.Random(seed), [f["name"] for f in features]
        self.spec = {"features": features, "epsilon": 0.0001, "thresholds": {"possible": 0.3, "drift": 1.0}, "significance": 0.05, **spec}
        self.rows, self.steps = [], []

    def add(self, partition, fields, time, shift=0):
        drawn = values(self.rnd, shift)
        self.rows.append(line({**fields, **{name: drawn[name] for name in self.names if name in drawn}}))
        self.steps.append(("record", str(partition), str(time)))

    def invalid(self, partition, payload, time):
        self.rows.append(payload)
        self.steps.append(("record", str(partition), str(time)))

    def idle(self, partition):
        self.steps.append(("idle", str(partition)))

    def publish(self, name):
        self.steps.append(("publish", name))

    def write(self, directory, **least):
        tally = Counter()
        events = list(whole_topic_time_segments.evaluate(self.steps, self.rows, self.spec, tally))

        def put(kind, text):
            with open(os.path.join(directory, f"{self.name}.{kind}"), "wb") as fh:
                fh.write(text if isinstance(text, bytes) else text.encode())

        put("spec.json", json.dumps(self.spec, indent=1, ensure_ascii=False))
        put("records.jsonl", b"".join(row + b"\n" for row in self.rows))
        put("steps.txt", "".join(" ".join(step) + "\n" for step in self.steps))
        put("events.jsonl", "".join(json.dumps(e) + "\n" for e in events))
        print(f"{self.name}: {len(self.rows)} records, {len(events)} events of {len({e['segment'] for e in events})} segments")
        for what, count in sorted(tally.items()):
            print(f"{count:6} {what}")
        for what, count in {**STATUSES, **least}.items():
            if tally[what] < count:
                sys.exit(f"{self.name}: {what}: {tally[what]}, not {count}")
        return events


def w1(directory):
    """Hopping windows; partitions of different pace, late records, more segments than a partition may have."""
    f = Fixture("w1_segments_of_the_whole_topic", 201, [AMOUNT, PLAN, DOORS], size_ms=60_000, every_ms=20_000, grace_ms=10_000, min_samples=30,
                segment_by=["site"], max_segments=4)
    rnd, clocks = f.rnd, [BASE, BASE + 5_000, BASE]
    sites = ["a", "a!", "ﬀ", "😀", None]
    while min(clocks) < BASE + 400_000:
        partition = rnd.choices(range(3), [5, 3, 2])[0]
        clocks[partition] += rnd.choice([0, 100, 300, 900]) * (1, 2, 3)[partition]
        now = clocks[partition]
        # One of them hangs behind.
        if partition == 1 and BASE + 100_000 < now < BASE + 105_000 and clocks[0] < BASE + 260_000:
            clocks[1] -= 900
            continue
        site = rnd.choices(sites, [5, 4, 3, 2, 1])[0] if rnd.random() < 0.93 else rnd.choice(["z1", "z2", "z3"])
        time = now - rnd.randrange(1, 80_000) if rnd.random() < 0.1 else -1 if rnd.random() < 0.02 else now
        f.add(partition, {"site": site}, time, 2 if site == "a!" and now > BASE + 200_000 else 1 if partition == 2 else 0)
        if rnd.random() < 0.01:
            f.invalid(partition, b"[]", now)
    events = f.write(directory, invalid=5, **{"windows of several partitions": 50, "rest: no room": 20, "closed with fewer than min_samples": 5})
    assert "__rest__" in {e["segment"] for e in events}


def w2(directory):
    """Partitions that fall silent and come again, segments that expire, there and in the whole topic; one partition without records at first."""
    f = Fixture("w2_idle_partitions_and_expiry", 202, [AMOUNT, SCORE], size_ms=30_000, every_ms=10_000, grace_ms=5_000, min_samples=12,
                segment_by=["site"], max_segments=10, segment_expiry_ms=90_000)
    rnd, now, last = f.rnd, BASE, [BASE] * 3
    f.idle(2)
    for phase in range(24):
        active = [[0, 1], [0], [0, 1, 2], [1, 2]][phase % 4]
        sites = [["one", "two"], ["two", "three"], ["three", "four", "one"]][phase // 3 % 3]
        for partition in {0, 1, 2} - set(active):
            f.idle(partition)
            if phase % 5 == 0:
                f.idle(partition)
        if phase % 8 == 4:
            # It wakes up where it fell asleep, with what is old by now for all others.
            for step in range(60):
                f.add(0, {"site": rnd.choice(["busy", *sites, "old"])}, last[0] + step * 1000)
        for _ in range(70):
            now += rnd.choice([0, 200, 400, 800])
            partition = rnd.choice(active)
            back = rnd.randrange(1, 40_000) if rnd.random() < 0.1 else 0
            f.add(partition, {"site": rnd.choice(["busy", *sites])}, now - back, 2 if sites[0] == "two" else 0)
            last[partition] = max(last[partition], now - back)
        if phase % 7 == 3:
            for partition in range(3):
                f.idle(partition)
        if phase % 8 == 2:
            now += 150_000
    f.write(directory, idle=30, forgotten=3, **{"closed by idle": 40, "closed by stream_time": 20, "windows of several partitions": 50,
                                                "forgotten in the whole topic": 3, "late parts: checked before": 3, "late parts: too old": 1})


def w3(directory):
    """A change of the reference, that partitions take over one after the other; few windows may wait."""
    features = [AMOUNT, PLAN]
    f = Fixture("w3_changes_of_reference", 203, features, size_ms=40_000, every_ms=20_000, grace_ms=0, min_samples=10, segment_by=["country"],
                max_segments=5, references=second(features))
    rnd, clocks = f.rnd, [BASE, BASE, BASE]
    published = False
    while min(clocks) < BASE + 400_000:
        partition = rnd.choices(range(3), [4, 3, 2])[0]
        clocks[partition] += rnd.choice([100, 400, 700]) * (2, 2, 3)[partition]
        country = rnd.choices(["DE", "FR", "IT"], [4, 3, 0 if partition == 1 else 1])[0]
        f.add(partition, {"country": country}, clocks[partition], 2 if country == "FR" and clocks[partition] > BASE + 150_000 else 1)
        if not published and clocks[0] > BASE + 190_000:
            published = True
            f.publish("second")
    f.write(directory, **{"parts of an earlier reference": 3, "segments that change the reference": 3, "windows of several partitions": 20})


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    target = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "topology", "tests", "oracle")
    for make in (w1, w2, w3):
        make(target)
