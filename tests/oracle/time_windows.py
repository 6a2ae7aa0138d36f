#!/usr/bin/env python3
"""A slow, simple model of the events of ONE partition with time windows (scope `partition`, no segments, one reference).

    time_windows.py --spec spec.json --times times.txt < records.jsonl > events.jsonl   [--idle FILE] [--invalid FILE]

spec.json as oracle.py has it, with "size_ms", "every_ms", "grace_ms" instead of "window_size" and "check_interval". times.txt: for each record its
timestamp in ms, one a line; a negative one is none. "timestamp_field": a field that says the time, RFC 3339 or whole milliseconds; where it says none,
the record's own timestamp holds. --idle: numbers of valid records, one a line, after which the partition was idle at its end for as long as it takes.

The rules are those of contract.md, section 5, Time windows; windows start at 0 or later. There are no panes here: every record is put into each of its
windows that is open, and each window is counted when it closes.
"""
import argparse, json, math, re, sys
from datetime import datetime, timedelta, timezone
import functools
import oracle
from oracle import lines

# A record is in many windows: parsed once, and never changed.
parse_record = oracle.parse_record = functools.cache(oracle.parse_record)


RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def time_of(value):
    """Milliseconds since 1970, or None."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) <= 2 ** 53:
        return int(value)
    if isinstance(value, str) and RFC_3339.fullmatch(value):
        try:
            return (datetime.fromisoformat(value) - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)
        except ValueError:
            return None
    return None


def as_count_window(rows, spec, since):
    """The events of a check of just these records, as if they were the first ones; the examples are taken from `since`."""
    yield from oracle.evaluate(rows, {**spec, "window_size": len(rows), "check_interval": len(rows), "min_samples": 1}, since=since)


def evaluate(payloads, times, spec, on_invalid=None, idle=frozenset()):
    """Yields the events of one partition, in order."""
    size, every, grace, least = spec["size_ms"], spec["every_ms"], spec["grace_ms"], spec.get("min_samples", 100)
    windows, closed, stream_time, k, previous = {}, -1, -1, 0, {}         # by start: payloads; each window that starts at `closed` or before has closed
    since = []                                                       # payloads that are in a window, since the last check

    def check(starts, closed_by, k):
        for start in starts:
            rows = windows.pop(start)
            if len(rows) < least:
                continue
            for event in as_count_window(rows, spec, since):
                key = event.get("kind"), event["feature"]
                yield {**event, "record_count": k, "window_start_ms": start, "window_end_ms": start + size, "closed_by": closed_by,
                       "previous_status": previous.get(key)}
                previous[key] = event["status"]
            since.clear()

    for line, (payload, time) in enumerate(zip(payloads, times, strict=True), 1):
        record = parse_record(payload)
        if record is None:
            if on_invalid:
                on_invalid(line)
            continue
        k += 1
        said = time_of(record.get(spec.get("timestamp_field")))
        time = time if said is None else said
        if time >= 0:                                                # else it is in no window, and moves no time
            stream_time = max(stream_time, time)
            start, late = time - time % every, True
            while start >= 0 and start + size > time:
                if start > closed:
                    late = False
                    windows.setdefault(start, []).append(payload)
                start -= every
            if not late:
                since.append(payload)
            over = [start for start in sorted(windows) if start + size + grace <= stream_time]
            yield from check(over, "stream_time", k)
            if stream_time >= size + grace:
                ended = stream_time - size - grace
                closed = max(closed, ended - ended % every)
        if k in idle:
            # All that have records; later ones of these windows are late.
            closed = max([closed, *windows])
            yield from check(sorted(windows), "idle", k)


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--spec", required=True)
    ap.add_argument("--times", required=True)
    ap.add_argument("--idle", help="numbers of records after which the partition was idle")
    ap.add_argument("--invalid", help="write the 1-based line numbers of invalid records here")
    args = ap.parse_args()
    bad = []
    with open(args.spec, encoding="utf-8") as fh:
        spec = json.load(fh)
    with open(args.times) as fh:
        times = [int(line) for line in fh]
    idle = set()
    if args.idle:
        with open(args.idle) as fh:
            idle = {int(line) for line in fh}
    for e in evaluate(lines(sys.stdin.buffer), times, spec, bad.append, idle):
        sys.stdout.write(json.dumps(e) + "\n")
    if args.invalid:
        with open(args.invalid, "w") as fh:
            fh.write("".join(f"{i}\n" for i in bad))
