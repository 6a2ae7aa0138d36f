"""A slow, simple model of what is judged of the quality of a window, whichever model says which records are in it. oracle.py calls it.

A spec that has "quality": {"missing", "other", "out_of_range": shares, each may be left out} or "feature_quality": {feature: the same} has quality
events; what a feature leaves out is "quality"'s. The rules are those of docs/quality.md. Nothing is kept from check to check here: the examples are
counted anew, from the records that came since.
"""
KINDS = ("missing", "other", "out_of_range")
COUNTERS, LONGEST = 8, 64                                            # of examples: how many, and how many bytes each


def thresholds(feature, spec):
    """By kind: the threshold that applies to the feature, or None."""
    of = {**spec.get("quality", {}), **spec.get("feature_quality", {}).get(feature.name, {})}
    applies = {"missing": True, "other": feature.index is not None, "out_of_range": feature.has_range}
    return {kind: of.get(kind) if applies[kind] else None for kind in KINDS}


def cut(text):
    return text.encode()[:LONGEST].decode(errors="ignore")           # a character of which a part is left is left out


def most_frequent(texts):
    """Misra and Gries (1982)."""
    counters = {}
    for text in map(cut, texts):
        if text in counters or len(counters) < COUNTERS:
            counters[text] = counters.get(text, 0) + 1
        else:
            counters = {other: count - 1 for other, count in counters.items() if count > 1}
    return [{"value": text, "count": count} for text, count in sorted(counters.items(), key=lambda item: (-item[1], item[0].encode()))]


def judge(feature, records, since, spec):
    """The feature's event of a window of these records, or None if no threshold applies. `since`: records from which the examples are taken."""
    limits = thresholds(feature, spec)
    if not any(limits.values()):
        return None
    rows, since = ([record.get(feature.name) for record in some] for some in (records, since))
    bins, sides = [feature.bin(value) for value in rows], [feature.side(value) for value in rows]
    missing = bins.count(feature.bins - 1)
    there = len(rows) - missing

    def share(count, of):
        return count / of if of else 0.0

    shares = {"missing": share(missing, len(rows)),
              "other": None if feature.index is None else share(bins.count(feature.ordinary), there),
              "out_of_range": share(len(sides) - sides.count(0), there) if feature.has_range else None}
    violations = [kind for kind in KINDS if limits[kind] is not None and shares[kind] >= limits[kind]]
    event = {"kind": "quality", "feature": feature.name, "status": "violated" if violations else "ok", "violations": violations, "examples": None}
    for kind in KINDS:
        event[f"{kind}_share"], event[f"{kind}_threshold"] = shares[kind], limits[kind]
    if limits["other"] is not None:
        event["examples"] = most_frequent(feature.text(value) for value in since if feature.bin(value) == feature.ordinary)
    return event
