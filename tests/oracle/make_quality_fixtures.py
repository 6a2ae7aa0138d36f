#!/usr/bin/env python3
"""Writes the fixtures of quality, topology/tests/oracle/q*: seeded records, and what the models say of them. Prints what happened in each.

    make_quality_fixtures.py [DIRECTORY]

Files and forms as make_segment_fixtures.py has them, and .partitions.txt of a whole topic: the partition of each record, in the order in which they are
processed. Each fixture names what has to happen in it at least.
"""
import os, sys
from collections import Counter
import oracle, time_windows, whole_topic
from make_segment_fixtures import AMOUNT, BASE, DOORS, PLAN, SCORE, Fixture, raw, second, values

FREE = {**SCORE, "name": "free", "range": None}                      # no number in the reference: nothing is out of range
CHECKED = {f"quality {status}": 10 for status in ("ok", "violated")}
OTHER_DOORS = {**DOORS, "values": [2, 3], "reference_counts": [180, 200]}

# What `other` may hold. More than 8 of them at once; texts that are equal but for what is cut, and in characters of more bytes than one.
ODD_PLANS = ["free", "Free", "", "trial", "zz", "ä", "😀", "ﬀ", "x" * 64, "x" * 65, "x" * 64 + "y", "x" * 63 + "ä", "x" * 63, "ü" * 40, "😀" * 17,
             "quote \" \\ \u0000 \n \u007f \u2028", True, False, 3, raw("3.0"), "3", raw("-0.0"), 2 ** 53]
ODD_DOORS = [3, raw("3.0"), raw("-0.0"), 0, -7, raw("0.1"), raw("1e21"), raw("1e22"), raw("123456789012345680000"), raw("1e-7"), raw("2.5e-320"), raw("-1e300"),
             raw("5.000000000000001"), raw("1E2")]


class Quality(Fixture):
    """With values of its own for what is `other`."""

    odd = 0.1                                                        # the share of values that are
    plans, doors = ODD_PLANS, ODD_DOORS
    silent = False                                                   # nothing but missing values

    def draw(self, shift):
        drawn = {**values(self.rnd, shift), "free": round(self.rnd.gauss(0, 9), 3)}
        for name, some in (("plan", self.plans), ("doors", self.doors)):
            if self.rnd.random() < self.odd:
                drawn[name] = self.rnd.choice(some)
        return {name: [] for name in drawn if self.rnd.random() < 0.5} if self.silent else drawn

    def say(self, events, tally):
        """What the examples show."""
        before = {}
        for event in events:
            if event.get("kind") != "quality":
                continue
            tally["thresholds met exactly"] += any(event[f"{kind}_share"] == event[f"{kind}_threshold"] for kind in event["violations"])
            for kind in event["violations"]:
                tally[f"violations of {kind}"] += 1
            found = event["examples"]
            tally["changes of status"] += event["previous_status"] not in (None, event["status"])
            tally["first of its feature"] += event["previous_status"] is None
            tally["nothing but missing values"] += event["missing_share"] == 1
            if found is None:
                tally["without examples"] += 1
                continue
            size = {len(example["value"].encode()) for example in found}
            tally["with 8 examples"] += len(found) == 8
            tally["with no example though some are other"] += not found and event["other_share"] > 0
            tally["examples of one count"] += len({example["count"] for example in found}) < len(found)
            tally["cut examples"] += bool(size & {62, 63, 64})
            window = event.get("segment"), event["feature"], event["record_count"]
            tally["examples after another window of the same record"] += window in before and bool(found)
            tally["no examples after another window of the same record"] += before.get(window, False) and not found
            before[window] = before.get(window, False) or bool(found)


class Partition(Quality):
    """Without segments."""

    def events(self, bad, tally):
        if "size_ms" in self.spec:
            events = list(time_windows.evaluate(self.rows, self.times, self.spec, bad.append, self.idle))
        else:
            events = list(oracle.evaluate(self.rows, self.spec, bad.append))
        for event in events:
            tally[f"{event.get('kind', 'summary' if event['feature'] == '*' else 'feature')} {event['status']}"] += 1
            tally[f"closed by {event.get('closed_by')}"] += 1
        return events


class WholeTopic(Quality):
    """In scope global: panes are merged in the order in which they are full."""

    def __init__(self, name, seed, features, **spec):
        super().__init__(name, seed, features, references={"the only": features}, **spec)
        self.partitions = []

    def events(self, bad, tally):
        rows, order, every = {}, [], self.spec["check_interval"]
        for row, partition in zip(self.rows, self.partitions, strict=True):
            own = rows.setdefault(partition, [])
            own.append(row)
            if len(own) % every == 0:
                order.append((partition, len(own) // every - 1, "the only", 0, 0, ""))
        events = list(whole_topic.evaluate(order, rows, self.spec))
        for event in events:
            tally[f"{event.get('kind', 'summary' if event['feature'] == '*' else 'feature')} {event['status']}"] += 1
            del event["reference_version"]                           # a digest there
        return events

    def write(self, directory, **least):
        super().write(directory, **least)
        with open(os.path.join(directory, f"{self.name}.partitions.txt"), "w") as fh:
            fh.write("".join(f"{partition}\n" for partition in self.partitions))


def q1(directory):
    """Count windows of a partition."""
    f = Partition("q1_quality_of_count_windows", 201, [AMOUNT, PLAN, DOORS, SCORE, FREE], window_size=60, check_interval=20, min_samples=50,
                  quality={"missing": 0.1, "out_of_range": 0.05}, feature_quality={"plan": {"other": 0.1}, "doors": {"other": 0.2, "out_of_range": 0.1},
                                                                                  "score": {"missing": 1.0, "out_of_range": 1.0}, "free": {"other": 0.01}})
    for i in range(1800):
        f.odd = (0, 0.1, 0.9)[i // 100 % 3]
        # Few values, so that counts are exact; many; one that leads; and all of them different.
        f.plans = (ODD_PLANS[:4], ODD_PLANS, ["led"] * 5 + ODD_PLANS, [f"id-{i}"])[i // 300 % 4]
        f.doors = (ODD_DOORS[:5], ODD_DOORS)[i // 150 % 2]
        f.silent = i // 90 % 7 == 6
        f.add({}, BASE + i, (0, 2, 1)[i // 200 % 3])
        if f.rnd.random() < 0.02:
            f.invalid(b'{"plan": "never", "doors": 99', BASE)
    f.write(directory, **CHECKED, **{"violations of missing": 20, "violations of other": 20, "violations of out_of_range": 20, "with 8 examples": 5,
            "with no example though some are other": 2, "examples of one count": 20, "cut examples": 5, "nothing but missing values": 3,
            "thresholds met exactly": 5, "changes of status": 20, "without examples": 100})


def q2(directory):
    """Time windows of a partition."""
    f = Partition("q2_quality_of_time_windows", 202, [PLAN, DOORS], size_ms=20_000, every_ms=5_000, grace_ms=2_000, min_samples=25,
                  quality={"other": 0.15}, feature_quality={"doors": {"missing": 0.05}})
    rnd, now = f.rnd, BASE
    for phase in range(24):
        f.odd = (0.05, 0.3)[phase % 2]
        for i in range(rnd.randrange(40, 90)):
            now += rnd.choice([0, 100, 400])
            time = -1 if rnd.random() < 0.05 else now - rnd.randrange(1, 40_000) if rnd.random() < 0.3 else now
            f.plans = ["no time"] if time < 0 else ["late"] if time + 22_000 <= now - 5_000 else ODD_PLANS
            f.add({}, time, phase % 3)
        if phase % 4 == 1:
            now += 30_000                                            # the next record closes several
        if phase % 4 == 2:
            f.plans = ["the last"]
            f.odd = 1
            f.add({}, (now, -1, now - 90_000)[phase // 4 % 3])
            f.idle.add(f.valid)
            for _ in range(30):                                      # late for what idleness closed
                f.add({}, now - rnd.randrange(0, 3_000))
        if phase % 4 == 3:
            now += 15_000
            f.add({}, now)                                           # alone: the windows that it is in have too few
            now += 26_000
    f.write(directory, **CHECKED, **{"closed by idle": 20, "closed by stream_time": 100, "examples after another window of the same record": 0,
            "no examples after another window of the same record": 20, "violations of other": 20, "violations of missing": 5})


def q3(directory):
    """Count windows of segments, that expire, and changes of reference."""
    features = [AMOUNT, PLAN, DOORS]
    f = Quality("q3_quality_of_segments", 203, features, window_size=20, check_interval=10, min_samples=10, segment_by=["country"], max_segments=3,
                 segment_expiry_ms=30_000, references={**second(features), "second": [*second(features)["second"], OTHER_DOORS]},
                 quality={"missing": 0.1, "other": 0.2, "out_of_range": 0.05}, feature_quality={"amount": {"missing": 0.3}})
    now = BASE
    for i in range(1500):
        now += f.rnd.choice([0, 50, 100])
        if i % 180 == 179:
            now += 25_000
        f.odd = (0.1, 0.4)[i // 250 % 2]
        active = (["DE", "FR", "IT"], ["DE", "FR", "PT", "CH"], ["IT", "FR", "AT"])[i // 180 % 3]
        f.add({"country": f.rnd.choices(active, [6, 3, 2, 1][:len(active)])[0]}, now, (0, 1, 2)[i // 200 % 3])
    f.change(503, "second")
    f.change(1050, "third")
    f.write(directory, forgotten=3, **CHECKED, **{"began again": 2, "records of __rest__": 40, "in the middle of a pane at a change": 4, "cut examples": 5,
            "violations of missing": 20, "violations of other": 20, "violations of out_of_range": 20, "first of its feature": 20})


def q4(directory):
    """Time windows of segments, closed by idleness too, and changes of reference."""
    features = [PLAN, DOORS]
    f = Quality("q4_quality_of_time_windows_of_segments", 204, features, size_ms=20_000, every_ms=10_000, grace_ms=3_000, min_samples=12,
                 segment_by=["country"], max_segments=4, segment_expiry_ms=60_000,
                 references={"second": [second([])["second"][1], OTHER_DOORS], "third": features},
                 quality={"missing": 0.08, "other": 0.2}, feature_quality={"doors": {"out_of_range": 0.1}})
    rnd, now, idle = f.rnd, BASE, []
    for phase in range(12):
        f.odd = (0.1, 0.4)[phase % 2]
        for _ in range(rnd.randrange(90, 120)):
            now += rnd.choice([0, 100, 400])
            time = -1 if rnd.random() < 0.04 else now - rnd.randrange(1, 30_000) if rnd.random() < 0.2 else now
            country = rnd.choices(["DE", "FR", "IT", ("PT", "CH")[phase // 6]], [6, 5, 3 if phase % 4 else 0, 1])[0]
            f.add({"country": country}, time, phase % 3)
        if phase % 3 == 1:
            f.idle.add(f.valid)
            idle.append(f.valid)
            for _ in range(20):
                f.add({"country": rnd.choice(["DE", "PT"])}, now - rnd.randrange(0, 3_000))
        now += (0, 15_000, 45_000)[phase % 3]
    f.idle.add(f.valid)
    f.change(idle[1], "second")
    f.change(idle[1] + 300, "third")
    f.write(directory, **CHECKED, **{"closed by idle": 8, "closed by stream_time": 40, "late for a window that idleness closed": 5,
            "no examples after another window of the same record": 5, "violations of other": 20})


def q5(directory):
    """Count windows of the whole topic."""
    f = WholeTopic("q5_quality_of_the_whole_topic", 205, [AMOUNT, PLAN, DOORS, FREE], window_size=80, check_interval=20, min_samples=40,
                   quality={"missing": 0.08, "other": 0.15}, feature_quality={"amount": {"out_of_range": 0.04}, "free": {"missing": 1.0}})
    for i in range(1200):
        f.odd = (0.01, 0.4)[i // 150 % 2]
        f.silent = i // 100 == 7
        f.partitions.append(f.rnd.choices(range(3), [5, 3, 1])[0])
        f.add({}, BASE + i, (0, 0, 1, 2)[i // 150 % 4])
    f.write(directory, **CHECKED, **{"violations of missing": 10, "violations of other": 10, "violations of out_of_range": 5, "changes of status": 8})


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    target = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "topology", "tests", "oracle")
    for make in (q1, q2, q3, q4, q5):
        make(target)
