#!/usr/bin/env python3
"""A slow, simple model of the drift events of a WHOLE topic with count windows (scope `global`, no segments).

    whole_topic.py --spec spec.json --order order.txt --records DIRECTORY > events.jsonl

spec.json as oracle.py has it, with "references": {version: [features]} instead of "features". DIRECTORY holds the records of each input partition in a
file named by its number, a record a line. order.txt: the panes as they stand in the repartition topic, a line each: partition, number of the pane in
its partition (from 0), reference version, and that reference's place in the order of publication.

The rules are those of contract.md, section 5, Scope and Change of reference. There are no histograms here: a pane is the records themselves, and each
window is counted anew.
"""
import argparse, json, os, sys
from collections import deque
import functools
import oracle
from oracle import lines

# A record is in many windows: parsed once, and never changed.
parse_record = oracle.parse_record = functools.cache(oracle.parse_record)


def evaluate(order, records, spec):
    """Yields the events of the whole topic, in order."""
    size, every, least = spec["window_size"], spec["check_interval"], spec.get("min_samples", 100)
    valid = {partition: [payload for payload in payloads if parse_record(payload) is not None] for partition, payloads in records.items()}
    window, current, published, k, start, previous = deque(maxlen=size // every), None, -1, 0, 0, {}

    for partition, number, version, publication in order:
        if version != current:
            if publication <= published:
                continue                                             # measured by an earlier reference
            window.clear()
            current, start, previous = version, k, {}
        published = max(published, publication)
        rows = valid[partition][number * every:(number + 1) * every]
        assert len(rows) == every, f"pane {number} of partition {partition} has {len(rows)} records"
        window.append(rows)
        k += every
        if k < least or k - start < min(least, size):
            continue
        rows = [row for pane in window for row in pane]
        # Checked as a count window that has just these records.
        own = {**spec, "features": spec["references"][version], "window_size": len(rows), "check_interval": len(rows), "min_samples": 1}
        for event in oracle.evaluate(rows, own):
            name = event["feature"]
            yield {**event, "scope": "global", "record_count": k, "reference_version": version, "previous_status": previous.get(name)}
            previous[name] = event["status"]


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--spec", required=True)
    ap.add_argument("--order", required=True)
    ap.add_argument("--records", required=True)
    args = ap.parse_args()
    with open(args.spec, encoding="utf-8") as fh:
        spec = json.load(fh)
    records = {}
    for name in os.listdir(args.records):
        with open(os.path.join(args.records, name), "rb") as fh:
            records[int(name)] = list(lines(fh))
    with open(args.order) as fh:
        order = [(int(p), int(n), v, int(at)) for p, n, v, at in (line.split() for line in fh)]
    for e in evaluate(order, records, spec):
        sys.stdout.write(json.dumps(e) + "\n")
