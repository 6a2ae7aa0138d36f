#!/usr/bin/env python3
"""A slow, simple model of the events of a WHOLE topic with count windows (scope `global`), with or without segments.

    whole_topic.py --spec spec.json --order order.txt --records DIRECTORY > events.jsonl   [--times DIRECTORY] [--tally]

spec.json as oracle.py has it, with "references": {version: [features]} instead of "features", and as segments.py has it where there are segments.
DIRECTORY holds the records of each input partition in a file named by its number, a record a line; that of --times their times, as segments.py has
them (none: no record has a time). order.txt: the panes as they stand in the repartition topic, a line each: partition, number of the pane in its
partition (from 0), reference version, and that reference's place in the order of publication. With segments the number is the pane's in its segment
in that partition (pane i: the segment's records from i * every + 1 on), and two more follow: partition of the repartition topic, and the segment, to
the end of the line. Panes of different partitions of the repartition topic may stand in any order.

The rules are those of contract.md, section 5, Scope and Change of reference, and docs/segments.md. There are no histograms here: a pane is the records
themselves, and each window is counted anew. A segment that expires in an input partition and comes back counts its panes from 0 again: its next life
is where a number is not above the one before. (So order.txt is not enough where a change of reference fell into the first pane of such a life.)
"""
import argparse, json, os, sys
from collections import Counter, defaultdict
from oracle import lines
from segments import Living, follow


def without_examples(event):
    """A quality event of a whole topic: partitions ship counts, and no values."""
    return {**event, "examples": None} if event.get("kind") == "quality" else event


def lives(payloads, times, spec):
    """Each life of each segment of an input partition, by its text, in order; without segments one, of the text ``."""
    found = defaultdict(list)
    for segment, _ in follow(payloads, times, {"segment_by": [], **spec}, Living(spec)):
        if segment not in found[segment.text]:
            found[segment.text].append(segment)
    return found


def evaluate(order, records, spec, times=None, tally=None):
    """Yields the events of the whole topic, in order."""
    every, tally = spec["check_interval"], Counter() if tally is None else tally
    times = times or {partition: [-1] * len(payloads) for partition, payloads in records.items()}
    # Those that never filled a pane shipped none.
    left = {(partition, text): [life for life in found if life.k >= every]
            for partition, payloads in records.items() for text, found in lives(payloads, times[partition], spec).items()}
    tasks, before = {}, defaultdict(lambda: -1)

    for partition, number, version, publication, place, text in order:
        if number <= before[partition, text]:
            left[partition, text].pop(0)                             # it has expired, and come again
        before[partition, text] = number
        living = tasks.setdefault(place, Living({**spec, "max_segments": float("inf")}, tally))
        segment = living.segments.get(text)
        if segment and version != segment.version and publication <= segment.published:
            tally["panes of an earlier reference"] += 1
            continue                                                 # measured by an earlier reference
        life, pane = left[partition, text][0], slice(number * every, (number + 1) * every)
        rows = life.rows[pane]
        assert len(rows) == every, f"pane {number} of {text!r} in partition {partition} has {len(rows)} records"
        if not segment:
            segment = living.admit(text)
            segment.version, segment.published = version, publication
        elif version != segment.version:
            segment.change()
            segment.version = version
        segment.published = max(segment.published, publication)
        segment.add(rows, life.times[pane])
        living.move(segment, max(life.times[pane]))
        window = segment.due(spec)
        if window:
            named = {"scope": "global", "reference_version": version, "segment": text and segment.text or None}
            yield from map(without_examples, segment.check(window, {**spec, "features": spec["references"][version]}, **named))
        living.expire()


def directory(path, read):
    found = {}
    for name in os.listdir(path):
        with open(os.path.join(path, name), "rb") as fh:
            found[int(name)] = read(fh)
    return found


def pane(line):
    partition, number, version, publication, *rest = line.rstrip("\n").split(" ", 5)
    place, text = rest or (0, "")
    return int(partition), int(number), version, int(publication), int(place), text


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--spec", required=True)
    ap.add_argument("--order", required=True)
    ap.add_argument("--records", required=True)
    ap.add_argument("--times")
    ap.add_argument("--tally", action="store_true", help="say what happened")
    args = ap.parse_args()
    with open(args.spec, encoding="utf-8") as fh:
        spec = json.load(fh)
    records = directory(args.records, lambda fh: list(lines(fh)))
    times = args.times and directory(args.times, lambda fh: [int(line) for line in fh])
    with open(args.order, encoding="utf-8", newline="\n") as fh:
        order = [pane(line) for line in fh]
    tally = Counter()
    for e in evaluate(order, records, spec, times, tally):
        sys.stdout.write(json.dumps(e) + "\n")
    if args.tally:
        for what, count in sorted(tally.items()):
            print(f"{count:6} {what}", file=sys.stderr)
