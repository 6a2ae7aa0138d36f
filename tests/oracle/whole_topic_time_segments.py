#!/usr/bin/env python3
"""A slow, simple model of the drift events of a WHOLE topic with time windows of segments (scope `global`).

    whole_topic_time_segments.py --spec spec.json --steps steps.txt < records.jsonl > events.jsonl   [--tally]

spec.json as segments.py has it for time windows, and besides "partitions" (3) of the input, "max_waiting" (100000) and, for changes of the reference,
"references": {name: [features]}; every partition begins with "features". steps.txt: what happens, a line each, in order:

    record PARTITION TIME     the next of the records comes to this partition, with this timestamp in ms; a negative one is none
    idle PARTITION            it is idle at its end for as long as it takes
    publish NAME              another reference is current from here on

What a partition ships after a step is in the repartition topic before the next step. That topic has one partition.

The rules are those of docs/windows.md (The whole topic, With time windows) and docs/segments.md (Scope `global`), and of contract.md, section 5. There
are no histograms here: a part of a window is the records themselves, and each window is counted anew.
"""
import argparse, json, sys
from collections import Counter, namedtuple
from oracle import lines
from segments import Living, Segment, field, segment_of
from time_windows import parse_record, time_of

Part = namedtuple("Part", "partition text start k idle reference rows")       # of a window, as a partition had it when it closed it
Progress = namedtuple("Progress", "partition open_from idle")                 # how far a partition is: its first open window starts then


class Input:
    """One partition of the input: what it ships."""

    def __init__(self, number, spec, tally):
        self.number, self.spec, self.tally = number, spec, tally
        self.living, self.closed, self.seen = Living(spec, tally), -1, False   # each window that starts at `closed` or before is over
        self.reference, self.offered = (None, spec["features"]), None

    def close(self, segment, start, idle):
        return Part(self.number, segment.text, start, segment.k, idle, self.reference, segment.windows.pop(start))

    def end(self, parts, idle):
        """What it ships: the parts, and then how far it is. A reference that was offered counts after the next check."""
        if any(len(part.rows) >= self.spec["min_samples"] for part in parts):
            self.take_over()
        return parts + [Progress(self.number, self.closed + self.spec["every_ms"] if self.closed >= 0 else 0, idle)]

    def take_over(self):
        if self.offered:
            self.reference, self.offered = self.offered, None
            for segment in self.living:
                segment.change()

    def offer(self, reference):
        self.offered = reference
        if not self.seen:
            self.take_over()

    def take(self, payload, time):
        record, spec = parse_record(payload), self.spec
        if record is None:
            self.tally["invalid"] += 1
            return []
        self.seen, size, every, grace = True, spec["size_ms"], spec["every_ms"], spec["grace_ms"]
        said = time_of(field(record, spec["timestamp_field"])) if "timestamp_field" in spec else None
        time = time if said is None else said
        segment = self.living.admit(segment_of(record, spec["segment_by"]))
        segment.add([payload], [time])
        self.living.move(segment, time)
        start = time - time % every
        while time >= 0 and start >= 0 and start + size > time:
            if start > max(self.closed, segment.closed):
                segment.windows.setdefault(start, []).append(payload)
            start -= every
        now = self.living.stream_time
        over = [(start, other.text.encode(), other) for other in self.living for start in other.windows if start + size + grace <= now]
        parts = [self.close(other, start, False) for start, _, other in sorted(over, key=lambda window: window[:2])]
        if now >= size + grace:
            ended = now - size - grace
            self.closed = max(self.closed, ended - ended % every)
        self.living.expire()
        return self.end(parts, False)

    def silence(self):
        parts = []
        for segment in sorted(self.living, key=lambda segment: segment.text.encode()):
            if segment.windows:
                segment.closed = max(segment.windows)
                parts += [self.close(segment, start, True) for start in sorted(segment.windows)]
        return self.end(parts, True)


class Watched(Segment):
    """A segment of the whole topic."""

    def __init__(self, text):
        super().__init__(text)
        self.reference, self.ks = None, {}                           # by partition: k, as shipped last
        self.done, self.shipped = -1, -1                             # the last window that was checked or given up; the last of which a part came


class Whole:
    def __init__(self, spec, tally):
        self.spec, self.tally, self.names = spec, tally, []          # references in the order of their publication
        self.said, self.segments, self.waiting = {}, {}, {}          # by partition; by text; by start and text: parts
        self.clock = 0                                               # the start of the first window that not all that were waited for had closed

    def is_over(self, start):
        """No partition can add to a window that starts then."""
        known = len(self.said) == self.spec.get("partitions", 3)
        return known and all(idle or open_from > start for open_from, idle in self.said.values())

    def say(self, partition, open_from, idle):
        before, _ = self.said.get(partition, (0, False))
        self.said[partition] = (max(before, open_from), idle)
        waited_for = [open_from for open_from, idle in self.said.values() if not idle]
        if len(self.said) == self.spec.get("partitions", 3) and waited_for:
            self.clock = max(self.clock, min(waited_for))

    def is_old(self, start):
        """The last window that was closed by all is later by the expiry."""
        expiry = self.spec.get("segment_expiry_ms")
        return expiry is not None and self.clock - self.spec["every_ms"] - start >= expiry

    def take(self, message):
        """Yields the events that a message leads to."""
        if isinstance(message, Progress):
            self.say(*message)
        else:
            # Others of its parts may follow, of other segments: it says itself when it has closed a window.
            self.say(message.partition, 0, False)
            self.part(message)
        while self.waiting:
            start, text = key = min(self.waiting, key=lambda key: (key[0], key[1].encode()))
            segment = self.segments[text]
            if self.is_over(start):
                segment.done = start
                yield from self.check(segment, start, self.waiting.pop(key))
            elif len(self.waiting) > self.spec.get("max_waiting", 100_000):
                segment.done = start
                del self.waiting[key]
                self.tally["waited too long"] += 1
            else:
                break
        for segment in list(self.segments.values()):
            if self.is_old(segment.shipped):
                assert not any(text == segment.text for _, text in self.waiting), "it has an open window"
                self.tally["forgotten in the whole topic"] += 1
                del self.segments[segment.text]

    def part(self, part):
        segment = self.segments.get(part.text)
        if segment:
            segment.ks[part.partition] = part.k
            segment.shipped = max(segment.shipped, part.start)
        order = [name for name, _ in self.names]
        if segment and order.index(part.reference[0]) < order.index(segment.reference[0]):
            self.tally["parts of an earlier reference"] += 1
        elif self.is_old(part.start):
            self.tally["late parts: too old"] += 1
        elif segment and part.start <= segment.done:
            self.tally["late parts: checked before"] += 1
        else:
            if not segment:
                segment = self.segments[part.text] = Watched(part.text)
                segment.ks[part.partition], segment.shipped = part.k, part.start
            elif segment.reference != part.reference:
                self.tally["segments that change the reference"] += 1
                for key in [key for key in self.waiting if key[1] == part.text]:
                    self.tally["parts of an earlier reference"] += len(self.waiting.pop(key))
                segment.change()
            segment.reference = part.reference
            self.waiting.setdefault((part.start, part.text), []).append(part)

    def check(self, segment, start, parts):
        rows = [row for part in parts for row in part.rows]
        lacking = [open_from for open_from, _ in self.said.values() if open_from <= start]
        closed_by = "idle" if lacking or any(part.idle for part in parts) else "stream_time"
        enough = len(rows) >= self.spec["min_samples"]
        self.tally[f"closed by {closed_by}" if enough else "closed with fewer than min_samples"] += 1
        self.tally["windows of several partitions"] += len({part.partition for part in parts}) > 1
        if enough:
            named = {"scope": "global", "record_count": sum(segment.ks.values()), "closed_by": closed_by, "window_start_ms": start,
                     "window_end_ms": start + self.spec["size_ms"]}
            for event in segment.check(rows, {**self.spec, "features": segment.reference[1]}, **named):
                self.tally[("summary " if event["feature"] == "*" else "feature ") + event["status"]] += 1
                yield event


def evaluate(steps, payloads, spec, tally=None):
    """Yields the events of the whole topic, in order."""
    tally, payloads = Counter() if tally is None else tally, iter(payloads)
    inputs = [Input(number, spec, tally) for number in range(spec.get("partitions", 3))]
    whole = Whole(spec, tally)
    whole.names.append((None, spec["features"]))
    for what, *rest in steps:
        if what == "publish":
            whole.names.append((rest[0], spec["references"][rest[0]]))
            for one in inputs:
                one.offer(whole.names[-1])
            continue
        one = inputs[int(rest[0])]
        shipped = one.silence() if what == "idle" else one.take(next(payloads), int(rest[1]))
        tally["idle"] += what == "idle"
        for message in shipped:
            yield from whole.take(message)
    tally["windows that wait at the end"] += len(whole.waiting)


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--spec", required=True)
    ap.add_argument("--steps", required=True)
    ap.add_argument("--tally", action="store_true", help="say what happened, to standard error")
    args = ap.parse_args()
    with open(args.spec, encoding="utf-8") as fh:
        spec = json.load(fh)
    with open(args.steps, encoding="utf-8") as fh:
        steps = [line.split() for line in fh]
    tally = Counter()
    for e in evaluate(steps, lines(sys.stdin.buffer), spec, tally):
        sys.stdout.write(json.dumps(e) + "\n")
    if args.tally:
        for what, count in sorted(tally.items()):
            print(f"{count:6} {what}", file=sys.stderr)
