#!/usr/bin/env python3
"""A slow, simple model of the events of ONE partition with segments (scope `partition`), count windows or time windows.

    segments.py --spec spec.json --times times.txt < records.jsonl > events.jsonl   [--idle FILE] [--changes FILE] [--invalid FILE] [--tally]

spec.json as oracle.py has it for count windows, as time_windows.py has it for time windows, and besides "segment_by": [fields], "max_segments" (10000)
and "segment_expiry_ms" (none). times.txt and "timestamp_field" as time_windows.py has them; count windows need them for the expiry alone.
--idle: numbers of valid records of the partition, of whatever segment, one a line, after which it was idle at its end for as long as it takes.
--changes: a line each of such a number and of a reference's name: after that record (and after its idle closing) the partition changed to
"references": {name: [features]} of the spec; it began with "features". --tally: what happened, to standard error.

The rules are those of docs/segments.md, and of contract.md, section 5. A segment is all of its records since it began: each window is counted anew.
"""
import argparse, json, math, sys
from collections import Counter
import oracle
from oracle import Pairs, lines
from time_windows import as_count_window, parse_record, time_of

REST, MISSING, LONGEST = "__rest__", "__missing__", 256


class Segment:
    """One life of a segment."""

    def __init__(self, text):
        self.text, self.rows, self.times, self.previous = text, [], [], {}
        self.start = 0                                               # k at the last change of reference
        self.last = -1                                               # stream time at its last record
        self.since = []                                              # payloads of its windows since its last check
        self.windows, self.closed = {}, -1                           # by start: payloads; each window that starts at `closed` or before is closed

    @property
    def k(self):
        return len(self.rows)

    def add(self, rows, times):
        self.rows += rows
        self.times += times

    def change(self):
        """The reference has changed: each window starts anew."""
        self.start = self.k
        self.windows.clear()
        self.previous.clear()
        self.since.clear()

    def due(self, spec):
        """The records of the count window that is to be checked now, or none."""
        size, least = spec["window_size"], spec.get("min_samples", 100)
        rows = self.rows[self.start:][-size:]
        return rows if self.k % spec["check_interval"] == 0 and self.k >= least and len(rows) >= min(least, size) else []

    def check(self, rows, spec, **rest):
        for event in as_count_window(rows, spec, self.since):
            key = event.get("kind"), event["feature"]
            yield {**event, "segment": self.text, "record_count": self.k, "previous_status": self.previous.get(key), **rest}
            self.previous[key] = event["status"]
        self.since.clear()


class Living:
    """The segments of a partition that live."""

    def __init__(self, spec, tally=None):
        self.most, self.expiry, self.tally = spec.get("max_segments", 10_000), spec.get("segment_expiry_ms"), Counter() if tally is None else tally
        self.segments, self.stream_time, self.forgotten = {}, -1, set()

    def __iter__(self):
        return iter(list(self.segments.values()))

    def admit(self, text):
        """The segment that a record of this one is counted in."""
        if len(text.encode()) > LONGEST:
            self.tally["rest: too long"] += 1
            text = REST
        elif text not in self.segments and text != REST and len(self.segments.keys() - {REST}) >= self.most:
            self.tally["rest: no room"] += 1
            text = REST
        if text not in self.segments:
            self.tally["began again" if text in self.forgotten else "began"] += 1
            self.segments[text] = Segment(text)
        return self.segments[text]

    def move(self, segment, time):
        """After a record of this segment, of this time (a negative one is none)."""
        self.stream_time = max(self.stream_time, time)
        segment.last = self.stream_time

    def expire(self):
        """Forgets those whose last record is too long ago. Before there is a stream time no time goes by."""
        for segment in self:
            if segment.last < 0:
                segment.last = self.stream_time
            if self.expiry is not None and self.stream_time - segment.last >= self.expiry:
                assert not segment.windows, "the expiry must be at least the window's size and grace"
                self.tally["forgotten"] += 1
                self.forgotten.add(segment.text)
                del self.segments[segment.text]


def field(record, name):
    """The value of a field, top-level or by a JSON pointer (RFC 6901); None where there is none."""
    if not name.startswith("/"):
        return record.get(name)
    value = record
    for token in name.split("/")[1:]:
        token = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, (dict, Pairs)):
            value = dict(value).get(token)                           # of a duplicate field the last counts
        elif isinstance(value, list) and token.isascii() and token.isdigit() and str(int(token)) == token and int(token) < len(value):
            value = value[int(token)]
        else:
            return None
    return value


def category(value):
    """The text as which a categorical feature takes a value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) <= 2 ** 53:
        return str(int(value))
    return MISSING


def encode(text):
    return "".join(f"%{ord(c):02X}" if c in "%,=" or c < " " or c == "\x7f" else c for c in text)


def segment_of(record, fields):
    return ",".join(f"{encode(name)}={encode(category(field(record, name)))}" for name in fields)


def follow(payloads, times, spec, living, on_invalid=None):
    """Yields the segment of each valid record and its time, after it has moved stream time; forgets what is to be forgotten when asked for the next."""
    for line, (payload, time) in enumerate(zip(payloads, times, strict=True), 1):
        record = parse_record(payload)
        if record is None:
            living.tally["invalid"] += 1
            if on_invalid:
                on_invalid(line)
            continue
        said = time_of(record.get(spec.get("timestamp_field")))
        time = time if said is None else said
        segment = living.admit(segment_of(record, spec["segment_by"]))
        segment.add([payload], [time])
        living.move(segment, time)
        yield segment, time
        living.expire()


def evaluate(payloads, times, spec, on_invalid=None, idle=frozenset(), changes=None, tally=None):
    """Yields the events of one partition, in order."""
    changes, least, living = changes or {}, spec.get("min_samples", 100), Living(spec, tally)
    tally, counted, closed = living.tally, "size_ms" not in spec, -1     # each window that starts at `closed` or before is over
    if not counted:
        size, every, grace = spec["size_ms"], spec["every_ms"], spec["grace_ms"]

    def close(segment, start, closed_by):
        rows = segment.windows.pop(start)
        tally[f"closed by {closed_by}" if len(rows) >= least else "closed with fewer than min_samples"] += 1
        if len(rows) >= least:
            yield from segment.check(rows, spec, window_start_ms=start, window_end_ms=start + size, closed_by=closed_by)

    def after(segment, time):
        """The events of one record."""
        nonlocal closed
        if counted:
            segment.since.append(segment.rows[-1])
            rows = segment.due(spec)
            if rows:
                yield from segment.check(rows, spec)
            return
        if time < 0:
            tally["without a time"] += 1
            return
        start, late = time - time % every, True
        while start >= 0 and start + size > time:
            if start > max(closed, segment.closed):
                late = False
                segment.windows.setdefault(start, []).append(segment.rows[-1])
            else:
                tally["late for a window" + (" that idleness closed" if start > closed else "")] += 1
            start -= every
        if not late:
            segment.since.append(segment.rows[-1])
        over = [(start, other.text.encode(), other) for other in living for start in other.windows if start + size + grace <= living.stream_time]
        for start, _, other in sorted(over, key=lambda window: window[:2]):
            yield from close(other, start, "stream_time")
        if living.stream_time >= size + grace:
            ended = living.stream_time - size - grace
            closed = max(closed, ended - ended % every)

    def silence():
        """The events of idleness."""
        for segment in sorted(living, key=lambda segment: segment.text.encode()):
            if any(len(rows) >= least for rows in segment.windows.values()):
                segment.closed = max(segment.windows)                # later ones of these windows are late
                for start in sorted(segment.windows):
                    yield from close(segment, start, "idle")
            else:
                tally["windows that stay open in idleness"] += len(segment.windows)

    for number, (segment, time) in enumerate(follow(payloads, times, spec, living, on_invalid), 1):
        tally[f"records of {REST}"] += segment.text == REST
        events = list(after(segment, time))
        if number in idle:
            living.expire()
            events += silence()
        for event in events:
            tally[f"{event.get('kind', 'summary' if event['feature'] == '*' else 'feature')} {event['status']}"] += 1
            yield event
        if number in changes:
            if not events:
                raise ValueError(f"no check after record {number}: the reference cannot have changed there")
            spec = {**spec, "features": spec["references"][changes[number]]}
            for segment in living:
                tally["in the middle of a pane at a change"] += counted and segment.k % spec["check_interval"] != 0
                segment.change()


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--spec", required=True)
    ap.add_argument("--times", required=True)
    ap.add_argument("--idle", help="numbers of records after which the partition was idle")
    ap.add_argument("--changes", help="numbers of records and the references that the partition changed to after them")
    ap.add_argument("--invalid", help="write the 1-based line numbers of invalid records here")
    ap.add_argument("--tally", action="store_true", help="say what happened")
    args = ap.parse_args()
    bad, tally, idle, changes = [], Counter(), set(), {}
    with open(args.spec, encoding="utf-8") as fh:
        spec = json.load(fh)
    with open(args.times) as fh:
        times = [int(line) for line in fh]
    if args.idle:
        with open(args.idle) as fh:
            idle = {int(line) for line in fh}
    if args.changes:
        with open(args.changes) as fh:
            changes = {int(number): name for number, name in (line.split() for line in fh)}
    for e in evaluate(lines(sys.stdin.buffer), times, spec, bad.append, idle, changes, tally):
        sys.stdout.write(json.dumps(e) + "\n")
    if args.invalid:
        with open(args.invalid, "w") as fh:
            fh.write("".join(f"{i}\n" for i in bad))
    if args.tally:
        for what, count in sorted(tally.items()):
            print(f"{count:6} {what}", file=sys.stderr)
