#!/usr/bin/env python3
"""Writes the fixtures of segments, topology/tests/oracle/s*: seeded records and what segments.py says of them. Prints what happened in each.

    make_segment_fixtures.py [DIRECTORY]

NAME.spec.json, .records.jsonl, .times.txt, .events.jsonl, .invalid.txt; .idle.txt and .changes.txt where there are such. Forms as in segments.py.
Each fixture names what has to happen in it at least, so that one that no longer exercises its rule is noticed.
"""
import json, os, random, re, sys
from collections import Counter
import segments

BASE = 1_700_000_000_000                                             # a multiple of 10 s, not of a minute
ROWS = 400                                                           # of each reference

AMOUNT = {"name": "amount", "edges": [10.0, 20.0, 40.0, 80.0], "range": [0.5, 150.0], "reference_counts": [76, 76, 116, 76, 36], "reference_missing": 20}
PLAN = {"name": "plan", "categories": ["basic", "pro", "team"], "reference_counts": [200, 120, 60], "reference_other": 8, "reference_missing": 12}
DOORS = {"name": "doors", "values": [2, 4, 5], "range": [2, 5], "reference_counts": [80, 200, 100], "reference_other": 16, "reference_missing": 4}
SCORE = {"name": "score", "edges": [-0.5, 0.5], "range": [-4.0, 4.0], "reference_counts": [123, 154, 123], "reference_missing": 0}
STATUSES = {f"{kind} {status}": 1 for kind in ("feature", "summary") for status in ("no_drift", "possible_drift", "drift")}


def raw(text):
    """JSON that Python would not write so."""
    return f"\0{text}\0"


def line(fields):
    written = json.dumps(fields, ensure_ascii=False)
    return re.sub(r'"\\u0000(.*?)\\u0000"', lambda found: json.loads(f'"{found[1]}"'), written).encode()


def values(rnd, shift):
    """Feature values: as the reference has them at 0, more unlike it the higher the shift."""
    row = {}
    edges = [0.5, 10, 20, 40, 80, 150]
    weights = ([76, 76, 116, 76, 36, 16, 4], [60, 50, 90, 110, 70, 16, 4], [10, 10, 60, 160, 140, 10, 10])
    at = rnd.choices(range(7), weights[shift])[0]
    if at < 5:
        row["amount"] = rnd.choice([edges[at + 1], round(rnd.uniform(edges[at] + 0.1, edges[at + 1]), 2)])
        if shift == 2 and rnd.random() < 0.1:
            row["amount"] = rnd.choice([-3, 1e6])
    else:
        row["amount"] = "ten" if at == 6 else None
    weights = ([200, 120, 60, 8, 12], [150, 130, 90, 15, 15], [40, 80, 120, 120, 40])
    row["plan"] = rnd.choices(["basic", "pro", "team", "free", None], weights[shift])[0]
    weights = ([80, 200, 100, 16, 4], [120, 140, 100, 30, 10], [200, 40, 40, 100, 20])
    row["doors"] = rnd.choices([2, 4, raw("5.0"), 3, True], weights[shift])[0]
    row["score"] = round(rnd.gauss(0.7 * shift, 1), 3)
    return {name: value for name, value in row.items() if value is not None or rnd.random() < 0.5}


class Fixture:
    def __init__(self, name, seed, features, **spec):
        self.name, self.rnd, self.names = name, random.Random(seed), [f["name"] for f in features]
        self.spec = {"features": features, "epsilon": 0.0001, "thresholds": {"possible": 0.3, "drift": 1.0}, "significance": 0.05, **spec}
        self.rows, self.times, self.idle, self.changes, self.valid = [], [], set(), {}, 0

    def draw(self, shift):
        return values(self.rnd, shift)

    def add(self, fields, time, shift=0):
        drawn = self.draw(shift)
        self.rows.append(line({**fields, **{name: drawn[name] for name in self.names if name in drawn}}))
        self.times.append(time)
        self.valid += 1

    def invalid(self, payload, time):
        self.rows.append(payload)
        self.times.append(time)

    def change(self, after, name):
        """Changes the reference at the first check from that valid record on."""
        for number in range(after, self.valid + 1):
            try:
                list(segments.evaluate(self.rows, self.times, self.spec, None, self.idle, {**self.changes, number: name}))
            except ValueError:
                continue
            self.changes[number] = name
            return
        raise ValueError(f"no check after record {after}")

    def events(self, bad, tally):
        """What the model says."""
        return list(segments.evaluate(self.rows, self.times, self.spec, bad.append, self.idle, self.changes, tally))

    def say(self, events, tally):
        """Adds to what happened what only the events show."""

    def write(self, directory, **least):
        bad, tally = [], Counter()
        events = self.events(bad, tally)
        self.say(events, tally)

        def put(kind, text):
            with open(os.path.join(directory, f"{self.name}.{kind}"), "wb") as fh:
                fh.write(text if isinstance(text, bytes) else text.encode())

        put("spec.json", json.dumps(self.spec, indent=1, ensure_ascii=False))
        put("records.jsonl", b"".join(row + b"\n" for row in self.rows))
        put("times.txt", "".join(f"{time}\n" for time in self.times))
        put("events.jsonl", "".join(json.dumps(e) + "\n" for e in events))
        put("invalid.txt", "".join(f"{i}\n" for i in bad))
        if self.idle:
            put("idle.txt", "".join(f"{i}\n" for i in sorted(self.idle)))
        if self.changes:
            put("changes.txt", "".join(f"{i} {name}\n" for i, name in sorted(self.changes.items())))
        print(f"{self.name}: {len(self.rows)} records, {len(events)} events of {len({e.get('segment') for e in events})} segments")
        for what, count in sorted(tally.items()):
            print(f"{count:6} {what}")
        for what, count in {**STATUSES, **least}.items():
            if tally[what] < count:
                sys.exit(f"{self.name}: {what}: {tally[what]}, not {count}")
        return events


def s1(directory):
    """Texts of segments."""
    f = Fixture("s1_segments_by_two_fields", 101, [AMOUNT, PLAN, DOORS], window_size=40, check_interval=20, min_samples=20,
                segment_by=["/who/country", "tier=%, of\u0001it"], max_segments=10_000)
    rnd = f.rnd
    countries = {
        "DE": ["DE"] * 8 + [raw('{"country": "FR", "country": "DE"}')],
        "true": [True, "true"],
        "3": [3, raw("3.0"), raw("30e-1"), "3"],
        "0": [0, raw("-0.0"), raw("-1e-4000"), "0"],
        "2^53": [2 ** 53, raw("9007199254740992.0"), "9007199254740992"],
        "specials": ["A,B=C%D"],
        "controls": ["tab\tline\nand\u0001\u001f\u007f\u0085"],
        "empty": [""],
        "unicode": ["Å/😀"],
        "missing": [None, [], ["DE"], {}, 3.5, raw("1e400"), 9007199254740994, "__missing__"],
    }
    tiers = {"gold": ["gold"], "1": [1, "1", raw("1.0"), raw("1e0")], "a=1,b=2": ["a=1,b=2"], "missing": [None, {"x": 1}, "__missing__"]}
    for i in range(1500):
        country = rnd.choices(list(countries), [6, 3, 3, 2, 1, 3, 3, 2, 2, 4])[0]
        tier = rnd.choices(list(tiers), [8, 3, 2, 2])[0]
        value, fields = rnd.choice(countries[country]), {}
        if isinstance(value, str) and value.startswith("\0{"):
            fields["who"] = value
        elif country == "missing" and rnd.random() < 0.4:
            fields.update(rnd.choice([{}, {"who": None}, {"who": 5}, {"who": "DE"}, {"who": ["DE"]}, {"who": {"land": "DE"}}, {"/who/country": "DE"}]))
        else:
            fields["who"] = {"id": i, "country": value}
        of = rnd.choice(tiers[tier])
        if of is not None or rnd.random() < 0.5:
            fields["tier=%, of\u0001it"] = of
        shift = 0 if country == "DE" else 1 if country in ("3", "specials") else 2 if country in ("missing", "true") and i > 700 else 0
        f.add(fields, BASE + i * 250, shift)
        if rnd.random() < 0.01:
            f.invalid(rnd.choice([b"", b"[]", b'{"who": {"country": "D', b"\xff", b'{"who": {"country": "\\ud800"}}']), BASE + i * 250)
    f.write(directory, invalid=5)


def s2(directory):
    """More segments than there may be, and too long ones."""
    f = Fixture("s2_more_segments_than_allowed", 102, [AMOUNT, PLAN], window_size=20, check_interval=10, min_samples=30,
                segment_by=["customer"], max_segments=5)
    rnd = f.rnd
    # `customer=` has 9 bytes: 256 of them is not too long, 257 is; encoded ones.
    longest, encoded = "x" * 247, "," * 82 + "y"
    overlong = ["x" * 248, "," * 83, "," * 82 + "yz", "ü" * 124, "x" * 3000]
    f.invalid(b'{"customer": "never"', BASE)
    for customer in overlong:                                        # while there is room
        f.add({"customer": customer}, BASE)
    lived = ["a", longest, encoded, None, "__rest__"]
    for customer in lived:
        f.add({"customer": customer}, BASE)
    for i in range(1000):
        time = BASE + i * 100
        if rnd.random() < 0.55:
            customer = rnd.choices(lived, [5, 1, 1, 2, 2])[0]
            f.add({} if customer is None and i % 2 else {"customer": customer}, time, 0 if customer != "a" or i < 500 else 2)
        elif rnd.random() < 0.05:
            f.add({"customer": rnd.choice(overlong[:-1])}, time, 2)
        else:
            f.add({"customer": f"further-{rnd.randrange(40)}"}, time, 1 if i < 500 else 0)
    events = f.write(directory, **{"rest: too long": 20, "rest: no room": 200, "began": 6})
    assert {e["segment"] for e in events} > {"__rest__", "customer=__rest__", f"customer={longest}"}


def s3(directory):
    """Expiry, of count windows."""
    f = Fixture("s3_segments_that_expire", 103, [AMOUNT, PLAN], window_size=20, check_interval=5, min_samples=10, segment_by=["region"], max_segments=3,
                segment_expiry_ms=60_000)
    rnd, now = f.rnd, BASE

    def add(region, time, shift=0):
        f.add({"region": region}, time, shift)

    # Before there is a stream time, no time goes by: north goes on; south is forgotten a minute after the first time.
    for _ in range(6):
        add("north", -1)
        add("south", -1)
    add("west", now)
    for _ in range(40):
        now += 1400
        add(rnd.choice(["north", "west"]), now, 1)
    now = BASE + 59_999
    add("west", now)
    add("south-west", now)                                           # no room yet
    now = BASE + 60_000
    add("east", now)                                                 # none either, but then south is forgotten
    add("south-west", now)
    add("south", now)
    for phase in range(20):
        # Two to four of six at a time, so that some are silent for long.
        active = rnd.sample(["north", "south", "west", "east", "south-west", "centre"], rnd.choice([2, 3, 4]))
        for _ in range(rnd.randrange(25, 45)):
            now += rnd.choice([0, 1, 400, 900, 1500])
            time = -1 if rnd.random() < 0.06 else now - rnd.randrange(1, 200_000) if rnd.random() < 0.1 else now
            add(rnd.choice(active), time, (0, 2, 1)[phase % 3])
            if rnd.random() < 0.02:
                f.invalid(b'{"region": "nowhere", }', now + 500_000)  # moves no stream time
        now += rnd.choice([0, 20_000, 61_000])
    # To the millisecond; the first record makes room.
    now += 300_000
    add("x", now)
    for _ in range(6):
        add("x", now)
    for _ in range(9):
        add("y", now)
    add("z", now + 59_999)                                           # y lives
    add("x", now + 59_999)
    add("w", now + 60_000)                                           # no room; and y is forgotten
    add("w", now + 60_000)
    add("y", now + 60_000)                                           # w lives, y does not
    for _ in range(3):
        add("x", now + 600_000)                                      # all but x, that moved stream time
        add("y", now + 10)
    # Segments whose records are all late, or all have no time, live on nevertheless.
    for _ in range(26):
        now += 5_000
        add("x", now + 600_000, 2)
        add("y", now + (10, 599_000)[now % 2])
        add("z", -1)
    f.write(directory, forgotten=20, **{"began again": 15, "rest: no room": 40, "records of __rest__": 50})


def s4(directory):
    """Time windows, hopping."""
    f = Fixture("s4_time_windows_of_segments", 104, [AMOUNT, PLAN, DOORS], size_ms=60_000, every_ms=20_000, grace_ms=10_000, min_samples=20,
                segment_by=["site", "v"], max_segments=6, timestamp_field="at")
    rnd, now = f.rnd, BASE
    # In the order of their texts not in that of their values, nor in that of UTF-16.
    sites = ["a", "a!", "a,b", "ﬀ", "😀", None]
    weights, i = [5, 5, 4, 4, 3, 2], 0
    for site in sites:
        f.add({"site": site, "v": 1}, now)
    while now < BASE + 330_000:
        now += rnd.choice([0, 1, 150, 250, 450])
        if BASE + 110_000 < now < BASE + 112_000:
            now += 140_000                                           # closes many windows at once
        i += 1
        silent = now > BASE + 100_000
        site = rnd.choices(sites, [w * (0 if s == "ﬀ" and silent else 1) for w, s in zip(weights, sites)])[0]
        fields = {"site": site, "v": rnd.choice([1, raw("1.0"), "1"])}
        if rnd.random() > 0.9:
            fields = {"site": rnd.choice(["z1", "z2"]), "v": rnd.randrange(2, 5)}
        time = now - rnd.randrange(1, 90_000) if rnd.random() < 0.2 else now
        if rnd.random() < 0.02:
            time = -1
        shift = 2 if site == "a!" else 1 if site in ("a", "😀") else 0
        said = rnd.randrange(8)
        if time >= 0 and said < 3:
            # The field says the time, the record another.
            seconds, ms = divmod(time, 1000)
            day, of_day = divmod(seconds + 5_400, 86_400)
            assert day == 19_675 or day == 19_676
            local = f"2023-11-{14 + day - 19_675}T{of_day // 3600:02}:{of_day // 60 % 60:02}:{of_day % 60:02}.{ms:03}+01:30"
            fields["at"], time = (time, raw(f"{time}.0"), local)[said], (BASE + 10 ** 9, 5, -1)[said]
        elif said == 3:
            fields["at"] = rnd.choice([None, "yesterday", 0.5, {}, True, "2023-11-14 25:00:00Z"])
        f.add(fields, time, shift)
        if rnd.random() < 0.01:
            f.invalid(b"nonsense", now + 10 ** 6)
    events = f.write(directory, invalid=3, **{"late for a window": 50, "records of __rest__": 40, "closed with fewer than min_samples": 5})
    together = Counter((e["window_start_ms"], e["segment"]) for e in events if e["feature"] == "*")
    print(f"{max(Counter(start for start, _ in together).values()):6} segments at most that closed one window, "
          f"{sum(e['record_count'] == 1 for e in events)} events at k = 1")


def s5(directory):
    """Time windows, closed by idleness and by the segments' expiry."""
    f = Fixture("s5_idle_closings_and_expiry", 105, [AMOUNT, SCORE], size_ms=30_000, every_ms=10_000, grace_ms=5_000, min_samples=15,
                segment_by=["/tags/0/site~1id~01"], max_segments=4, segment_expiry_ms=90_000)
    rnd, now = f.rnd, BASE

    def add(site, time, shift=0):
        tag = rnd.choice([{"site/id~1": site}, {"site/id/": "not this", "site~1id~01": "nor this", "site/id~1": site}])
        fields = {"tags": [tag, {"site/id~1": "not this"}]} if rnd.random() < 0.8 else {"tags": {"0": tag, "00": {}}}
        if site is None:
            fields = rnd.choice([{"tags": []}, {}, {"tags": [{}]}, {"tags": "0"}, {"tags": [5]}])
        f.add(fields, time, shift)

    for phase in range(12):
        # busy is always there, rare never has min_samples before the partition is idle, the others come and go.
        others = [["one", "two"], ["two", "three"], [None, "four"], ["one", "five"]][phase // 2 % 4]
        for _ in range(rnd.randrange(70, 90)):
            now += rnd.choice([0, 200, 400, 800])
            site = rnd.choices(["busy", "rare", *others], [4, 0.8 if phase < 10 else 0, 3, 3])[0]
            time = -1 if rnd.random() < 0.02 else now - rnd.randrange(1, 40_000) if rnd.random() < 0.15 else now
            add(site, time, 2 if site == "two" else 1 if site == "busy" and phase > 4 else 0)
        if phase % 3 != 2:
            if phase % 2:
                add("busy", -1)                                      # idle after a record that has no time
            f.idle.add(f.valid)
            # The same windows go on: late in the segments that were closed, not in the one that was not, which now has enough.
            for _ in range(16):
                add("rare", now - rnd.randrange(0, 4_000))
                add("busy", now - rnd.randrange(0, 4_000))
            if phase == 4:
                f.idle.add(f.valid)
        now += (0, 12_000, 95_000)[phase % 3]
    f.idle.add(f.valid)
    f.write(directory, forgotten=6, **{"began again": 3, "closed by idle": 20, "closed by stream_time": 40, "windows that stay open in idleness": 3,
                                       "late for a window that idleness closed": 20, "records of __rest__": 20, "without a time": 5})


def second(features):
    """Another reference of the same names."""
    return {"second": [{**AMOUNT, "edges": [15.0, 40.0, 60.0], "reference_counts": [110, 170, 60, 40]},
                       {**PLAN, "categories": ["pro", "basic"], "reference_counts": [180, 120], "reference_other": 80, "reference_missing": 20}],
            "third": features}


def s6(directory):
    """Changes of the reference, of count windows."""
    features = [AMOUNT, PLAN]
    f = Fixture("s6_changes_of_reference", 106, features, window_size=30, check_interval=10, min_samples=20, segment_by=["country"], max_segments=4,
                references=second(features))
    for i in range(900):
        country = f.rnd.choices(["DE", "FR", "IT", "PT", "CH"], [6, 4, 3, 2 if i > 250 else 0, 1 if i > 400 else 0])[0]
        f.add({"country": country}, BASE + i * 100, (0, 1, 2)[i // 300] if country != "FR" else 0)
    f.change(203, "second")
    f.change(550, "third")
    f.write(directory, **{"in the middle of a pane at a change": 4})


def s7(directory):
    """Changes of the reference, of time windows; one of them after an idle closing."""
    features = [AMOUNT, PLAN]
    f = Fixture("s7_changes_of_reference_in_time", 107, features, size_ms=40_000, every_ms=20_000, grace_ms=5_000, min_samples=1,
                segment_by=["country"], max_segments=4, references=second(features))
    rnd, now, idle = f.rnd, BASE, 0
    while now < BASE + 300_000:
        now += rnd.choice([100, 300, 500])
        country = rnd.choices(["DE", "FR", "IT"], [4, 3, 2])[0]
        f.add({"country": country}, now - rnd.randrange(1, 50_000) if rnd.random() < 0.1 else now, 2 if country == "FR" and now > BASE + 150_000 else 1)
        if not idle and now > BASE + 190_000:
            idle = f.valid
    f.idle = {idle}
    f.change(250, "second")
    f.change(idle, "third")
    f.write(directory, **{"closed by idle": 2})


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    target = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "topology", "tests", "oracle")
    for make in (s1, s2, s3, s4, s5, s6, s7):
        make(target)
