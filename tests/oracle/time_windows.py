#!/usr/bin/env python3
"""A slow, simple model of the drift events of ONE partition with time windows (scope `partition`, no segments, one reference).

    time_windows.py --spec spec.json --times times.txt < records.jsonl > events.jsonl   [--invalid FILE]

spec.json as oracle.py has it, with "size_ms", "every_ms", "grace_ms" instead of "window_size" and "check_interval". times.txt: for each record its
timestamp in ms, one a line; a negative one is none. "timestamp_field": a field that says the time, RFC 3339 or whole milliseconds; where it says none,
the record's own timestamp holds.

The rules are those of contract.md, section 5, Time windows; windows start at 0 or later. There are no panes here: every record is put into each of its
windows that is open, and each window is counted when it closes.
"""
import argparse, json, math, re, sys
from datetime import datetime, timedelta, timezone
from oracle import Feature, lines, parse_record, status_of


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


def evaluate(payloads, times, spec, on_invalid=None):
    """Yields the events of one partition, in order."""
    features = [Feature(f) for f in spec["features"]]
    size, every, grace, least = spec["size_ms"], spec["every_ms"], spec["grace_ms"], spec.get("min_samples", 100)
    epsilon, alpha = spec.get("epsilon", 1e-4), spec.get("significance", 0.001)
    thresholds = {"possible": 0.1, "drift": 0.25, **spec.get("thresholds", {})}
    windows, closed, stream_time, k, previous = {}, -1, -1, 0, {}         # by start: rows; every window that starts at `closed` or before has closed

    for line, (payload, time) in enumerate(zip(payloads, times, strict=True), 1):
        record = parse_record(payload)
        if record is None:
            if on_invalid:
                on_invalid(line)
            continue
        k += 1
        said = time_of(record.get(spec.get("timestamp_field")))
        time = time if said is None else said
        if time < 0:
            continue
        stream_time = max(stream_time, time)
        row = tuple((f.bin(record.get(f.name)), f.side(record.get(f.name))) for f in features)
        start = time - time % every
        while start >= 0 and start + size > time:
            if start > closed:
                windows.setdefault(start, []).append(row)
            start -= every
        for start in sorted(windows):
            if start + size + grace > stream_time:
                break
            rows = windows.pop(start)
            if len(rows) >= least:
                yield from check(features, rows, k, start, start + size, previous, epsilon, alpha, thresholds)
        if stream_time >= size + grace:
            ended = stream_time - size - grace
            closed = max(closed, ended - ended % every)


def check(features, rows, k, start, end, previous, epsilon, alpha, thresholds):
    def event(name, **rest):
        e = {"feature": name, "record_count": k, "window_count": len(rows), "window_start_ms": start, "window_end_ms": end, "closed_by": "stream_time",
             "missing_count": None, "below_range_count": None, "above_range_count": None, "counts": None, "p_value": None, "psi_null_mean": None,
             "significant": None, "top_bin": None, "top_bin_contribution": None, "feature_count": None, "drifted_features": None,
             "previous_status": previous.get(name), **rest}
        previous[name] = e["status"]
        return e

    checked = []
    for i, f in enumerate(features):
        counts = f.count(row[i][0] for row in rows)
        below, above = (None, None) if f.categorical else (sum(row[i][1] == side for row in rows) for side in (-1, 1))
        terms, (p, df) = f.contributions(counts, epsilon), f.homogeneity(counts)
        psi, top = math.fsum(terms), max(range(f.bins), key=lambda b: (terms[b], -b))
        significant = alpha == 0 or p < alpha / len(features)
        checked.append(event(f.name, missing_count=counts[-1], counts=counts, below_range_count=below, above_range_count=above, psi=psi, p_value=p,
                             psi_null_mean=df * (1 / sum(f.reference) + 1 / len(rows)), significant=None if alpha == 0 else significant,
                             top_bin=f.labels[top] if terms[top] > 0 else None, top_bin_contribution=terms[top] if terms[top] > 0 else None,
                             status=status_of(psi, thresholds, significant)))
    yield from checked
    mean = math.fsum(e["psi"] for e in checked) / len(checked)
    yield event("*", psi=mean, status=status_of(mean, thresholds, alpha == 0 or any(e["significant"] for e in checked)),
                feature_count=len(checked), drifted_features=sum(e["status"] == "drift" for e in checked))


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--spec", required=True)
    ap.add_argument("--times", required=True)
    ap.add_argument("--invalid", help="write the 1-based line numbers of invalid records here")
    args = ap.parse_args()
    bad = []
    with open(args.spec, encoding="utf-8") as fh:
        spec = json.load(fh)
    with open(args.times) as fh:
        times = [int(line) for line in fh]
    for e in evaluate(lines(sys.stdin.buffer), times, spec, bad.append):
        sys.stdout.write(json.dumps(e) + "\n")
    if args.invalid:
        with open(args.invalid, "w") as fh:
            fh.write("".join(f"{i}\n" for i in bad))
