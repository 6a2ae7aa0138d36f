#!/usr/bin/env python3
"""A slow, simple model of the events of a WHOLE topic with time windows (scope `global`, no segments).

    whole_topic_time.py --spec spec.json --order order.txt --records DIRECTORY --times DIRECTORY > events.jsonl   [--tally]

spec.json as time_windows.py has it, with "references": {version: [features]} instead of "features", and "max_waiting" (10000). DIRECTORY holds the
records of each input partition in a file named by its number, a record a line; that of --times their times, a line each, a negative one is none.
order.txt: the messages as they stand in the repartition topic, a line each:

    window PARTITION START_MS VERSION PUBLICATION K IDLE     the partition closed its window that starts then, having seen K valid records; IDLE: 0, 1
    progress PARTITION PARTITIONS OPEN_FROM_MS K IDLE        its first open window starts then; IDLE 1: it is idle at its end, or never had a record

VERSION is that of the reference that counted the window, PUBLICATION its place in the order of publication, PARTITIONS how many the input has.

The rules are those of contract.md, section 5, Time windows, Scope and Change of reference, and docs/windows.md. There are no histograms here: which
records a window has is found from the records and times of its partition, and each window of the topic is counted anew. Of the order only that is
believed which a clock or the reference topic decides: after which records a partition was idle, and changed its reference. A message that the
partition cannot have shipped where it stands is an error.
"""
import argparse, json, sys
from collections import Counter, namedtuple
from oracle import lines
from segments import Segment, field
from time_windows import parse_record, time_of
from whole_topic import directory, without_examples

Window = namedtuple("Window", "partition start version publication k idle")
Progress = namedtuple("Progress", "partition partitions open_from k idle")
Closing = namedtuple("Closing", "start version k idle rows")


def demand(true, message):
    if not true:
        raise ValueError(message)


class Course:
    """What a partition does by its records, but for what `windows`, those that it shipped, tell of a clock and the reference topic."""

    def __init__(self, payloads, times, spec, windows, changes):
        size, every, grace = spec["size_ms"], spec["every_ms"], spec["grace_ms"]
        self.closings = []                                           # in the order in which it closes its windows
        self.possible = [{0}]                                        # by k: where its first open window may start then
        self.holds = [0]                                             # by k: how many open windows have records, at last
        idle = {window.k for window in windows if window.idle}
        version = windows[0].version if windows else None
        open_windows, closed, stream_time, k = {}, -1, -1, 0         # by start: payloads; each window that starts at `closed` or before has closed

        def first_open():
            return closed + every if closed >= 0 else 0

        def close(starts, idle):
            self.closings += [Closing(start, version, k, idle, open_windows.pop(start)) for start in starts]

        for payload, time in zip(payloads, times):
            record = parse_record(payload)
            if record is None:
                continue
            k += 1
            name = spec.get("timestamp_field")
            said = time_of(field(record, name)) if name else None
            time = time if said is None else said
            if time >= 0:
                stream_time = max(stream_time, time)
                start = time - time % every
                while start >= 0 and start + size > time:
                    if start > closed:
                        open_windows.setdefault(start, []).append(payload)
                    start -= every
                close([start for start in sorted(open_windows) if start + size + grace <= stream_time], False)
                if stream_time >= size + grace:
                    ended = stream_time - size - grace
                    closed = max(closed, ended - ended % every)
            self.possible.append({first_open()})
            if k in idle:
                # All that have records; later ones of these windows are late.
                closed = max([closed, *open_windows])
                close(sorted(open_windows), True)
                self.possible[k].add(first_open())
            if k in changes:
                version = changes[k]
                open_windows.clear()
            self.holds.append(len(open_windows))


class Partition:
    """One input partition, by what it has said: the judge of it."""

    def __init__(self, payloads, times, spec, windows):
        demand(len(payloads) == len(times), f"{len(payloads)} records, {len(times)} times")
        self.every, self.windows = spec["every_ms"], windows
        # It changes after a window that closes, and ships all that close: so after the last one that it counted by the earlier reference.
        changes = {a.k: b.version for a, b in zip(windows, windows[1:]) if a.version != b.version}
        self.course = Course(payloads, times, spec, windows, changes)
        self.courses = [self.course]                                 # after its last window
        if windows and len(spec["references"]) > 1:
            # It may have changed then, and nothing tells: no window has come of it.
            self.courses.append(Course(payloads, times, spec, windows, {**changes, windows[-1].k: None}))
        self.shipped, self.open_from, self.k, self.idle = 0, 0, 0, False     # before it is heard of it has closed none

    def take(self, message):
        """Judges the message, the next that it has shipped. Of a window: the closing."""
        records = len(self.course.holds) - 1
        demand(message.k >= self.k, f"it has seen {message.k} records, and {self.k} before")
        demand(message.k <= records, f"it has seen {message.k} records, and has {records} valid ones")
        self.k = message.k
        if isinstance(message, Progress):
            self.progress(message)
            return None
        closing, found = self.due(self.course), (message.start, message.version, message.k, message.idle)
        demand(closing and closing[:4] == found, f"it ships {told(*found)}, where it closes {told(*closing[:4]) if closing else 'none'}")
        self.shipped += 1
        # A window closes after a record, so that it is idle no more; or by idleness, which it says when it has shipped them all.
        self.open_from, self.idle = message.start + self.every, False
        return closing

    def due(self, course):
        """The closing that it ships next."""
        return course.closings[self.shipped] if self.shipped < len(course.closings) else None

    def progress(self, message):
        says, open_from = f"says that its windows are open from {message.open_from} on, at record {message.k}", max(message.open_from, 0)
        possible = self.course.possible[message.k]
        demand(message.partition < message.partitions, f"it is none of the {message.partitions} partitions")
        demand(open_from in possible, f"it {says}, where they are from {' or '.join(map(str, sorted(possible)))} on")
        demand(open_from >= self.open_from, f"it {says}, and said {self.open_from} before")

        def fault(course):
            closing, held = self.due(course), course.holds[message.k]
            if closing and closing.k <= message.k and closing.start < open_from:
                return f"it {says}, and has not shipped {told(*closing[:4])}"
            return message.idle and held and f"it {says}, and that it is idle, and {held} open windows have records"

        faults = [fault(course) for course in (self.courses if self.shipped == len(self.windows) else [self.course])]
        demand(not all(faults), faults[0])
        self.open_from, self.idle = open_from, message.idle


def told(start, version, k, idle):
    return f"window {start} of reference {version}, closed at record {k} by {'idleness' if idle else 'stream time'}"


def known(message):
    """How many partitions the input has at least."""
    return message.partition + 1, getattr(message, "partitions", 0)


def evaluate(order, records, times, spec, tally=None):
    """Yields the events of the whole topic, in order."""
    every, size, least, most = spec["every_ms"], spec["size_ms"], spec.get("min_samples", 100), spec.get("max_waiting", 10_000)
    tally = Counter() if tally is None else tally
    partitions = []
    for number in range(max((max(known(message)) for message in order), default=0)):
        shipped = [message for message in order if isinstance(message, Window) and message.partition == number]
        try:
            partitions.append(Partition(records.get(number, []), times.get(number, []), spec, shipped))
        except ValueError as e:
            raise ValueError(f"partition {number}: {e}") from e
    count, waiting, finished = 0, {}, -1                             # by start: closings; each window that starts at `finished` or before is over
    whole, version, published = Segment(None), None, -1

    for line, message in enumerate(order, 1):
        try:
            closing = partitions[message.partition].take(message)
            demand(closing is None or message.version in spec["references"], f"no reference {getattr(message, 'version', '')}")
        except ValueError as e:
            raise ValueError(f"message {line}: partition {message.partition}: {e}") from e
        count = max(count, *known(message))
        if closing is None:
            tally["said that it is idle or empty"] += message.idle
        elif message.start <= finished:
            tally["late windows of partitions"] += 1
        elif version not in (None, message.version) and message.publication <= published:
            tally["panes of an earlier reference"] += 1
        else:
            if message.version != version:
                tally["changes of reference"] += version is not None
                tally["panes of an earlier reference"] += sum(map(len, waiting.values()))
                waiting.clear()
                whole.change()
                version = message.version
            published = max(published, message.publication)
            waiting.setdefault(message.start, []).append(closing)
        while waiting:
            start = min(waiting)
            lacking = [partition for partition in partitions[:count] if partition.open_from <= start]
            if not all(partition.idle for partition in lacking):
                break
            parts, finished = waiting.pop(start), start
            rows = [row for part in parts for row in part.rows]
            closed_by = "idle" if lacking or any(part.idle for part in parts) else "stream_time"
            tally[f"closed by {closed_by}" if len(rows) >= least else "closed with fewer than min_samples"] += 1
            if len(rows) >= least:
                named = {"scope": "global", "reference_version": version, "record_count": sum(partition.k for partition in partitions),
                         "window_start_ms": start, "window_end_ms": start + size, "closed_by": closed_by}
                for event in whole.check(rows, {**spec, "features": spec["references"][version]}, **named):
                    tally[f"{event.get('kind', 'summary' if event['feature'] == '*' else 'feature')} {event['status']}"] += 1
                    yield without_examples(event)
        while len(waiting) > most:
            finished = min(waiting)
            del waiting[finished]
            tally["waited too long"] += 1
    tally["windows that wait at the end"] += len(waiting)


def parse(line):
    kind, partition, *rest = line.split()
    if kind == "window" and len(rest) == 5:
        start, version, publication, k, idle = rest
        found = Window(int(partition), int(start), version, int(publication), int(k), idle == "1")
    elif kind == "progress" and len(rest) == 4:
        partitions, open_from, k, idle = rest
        found = Progress(int(partition), int(partitions), int(open_from), int(k), idle == "1")
    else:
        raise ValueError(f"no message: {line.rstrip()!r}")
    demand(idle in ("0", "1"), f"IDLE is 0 or 1: {line.rstrip()!r}")
    return found


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--spec", required=True)
    ap.add_argument("--order", required=True)
    ap.add_argument("--records", required=True)
    ap.add_argument("--times", required=True)
    ap.add_argument("--tally", action="store_true", help="say what happened")
    args = ap.parse_args()
    with open(args.spec, encoding="utf-8") as fh:
        spec = json.load(fh)
    records = directory(args.records, lambda fh: list(lines(fh)))
    times = directory(args.times, lambda fh: [int(line) for line in fh])
    tally = Counter()
    try:
        with open(args.order, encoding="utf-8") as fh:
            order = [parse(line) for line in fh]
        for e in evaluate(order, records, times, spec, tally):
            sys.stdout.write(json.dumps(e) + "\n")
    except ValueError as e:
        sys.exit(f"{args.order}: {e}")
    if args.tally:
        for what, count in sorted(tally.items()):
            print(f"{count:6} {what}", file=sys.stderr)
