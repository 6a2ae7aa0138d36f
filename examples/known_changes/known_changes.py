#!/usr/bin/env python3
"""Known changes in public data, found by `leeway check` chunk by chunk: the charts of docs/examples.md.

    known_changes.py --output DIRECTORY     [--leeway PATH]

The data is shipped inside a public Python package, nannyml, whose wheel is downloaded and read, not installed. Each example is a reference and what
came after it, in chunks of equal size: the numbers are those of tumbling windows over the same rows. Fails if what is known to change is not found, or
what is known not to change is.
"""
import argparse, csv, io, json, subprocess, sys, tempfile, zipfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "leeway"      # The same drawing has the same bytes.
from matplotlib import pyplot

PACKAGE = "nannyml==0.13.1"
POSSIBLE_DRIFT, DRIFT = 0.1, 0.25


@dataclass(frozen=True)
class Example:
    name: str
    title: str
    reference: str
    analysis: str
    chunk: int
    """Rows of a chunk."""
    without: tuple[str, ...]
    """Columns that are no features: keys, times, and targets that come later."""
    changing: frozenset[str]
    """What is known to change: at least possible drift in some chunk."""
    steady: frozenset[str]
    """What is known not to: in no chunk."""


EXAMPLES = [
    Example(
        "car-loan",
        "Car loans: the second half is another population",
        "synthetic_car_loan_reference.csv",
        "synthetic_car_loan_analysis.csv",
        5000,
        ("id", "timestamp", "repaid", "y_pred"),
        frozenset({"car_value", "salary_range", "loan_length", "repaid_loan_on_prev_car", "y_pred_proba"}),
        frozenset({"debt_to_income_ratio", "driver_tenure", "size_of_downpayment"}),
    ),
    Example(
        "california-housing",
        "California: the model goes from one region to another",
        "california_housing_reference.csv",
        "california_housing_analysis.csv",
        1000,
        ("id", "timestamp", "clf_target", "y_pred"),
        frozenset({"Latitude", "Longitude"}),
        frozenset(),
    ),
]


def wheel(directory: Path) -> zipfile.ZipFile:
    """The package's wheel, downloaded without what it depends on."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(directory), PACKAGE]
    subprocess.run(command, check=True)
    return zipfile.ZipFile(next(directory.glob("*.whl")))


def rows(archive: zipfile.ZipFile, name: str, without: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file in the wheel."""
    with archive.open(f"nannyml/datasets/data/{name}") as file:
        table = list(csv.reader(io.TextIOWrapper(file, encoding="utf-8")))
    keep = [index for index, column in enumerate(table[0]) if column not in without]
    return [table[0][index] for index in keep], [[row[index] for index in keep] for row in table[1:]]


def write(path: Path, header: list[str], table: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *table])
    return path


def check(leeway: str, reference: Path, current: Path) -> list[dict]:
    """What `leeway check` says of each feature. Exit code 3 is a result."""
    done = subprocess.run(
        [leeway, "check", "--reference", str(reference), "--current", str(current), "--format", "json"], capture_output=True, text=True
    )
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)["features"]


def run(example: Example, archive: zipfile.ZipFile, leeway: str, directory: Path) -> list[list[dict]]:
    """Chunk by chunk, what is found for each feature."""
    header, before = rows(archive, example.reference, example.without)
    other, after = rows(archive, example.analysis, example.without)
    assert header == other, f"{example.name}: {header} and {other}"
    table, reference = write(directory / "train.csv", header, before), directory / "reference.json"
    subprocess.run([leeway, "reference", "build", "--input", str(table), "--output", str(reference)], check=True, capture_output=True)
    chunks = [after[start : start + example.chunk] for start in range(0, len(after) - example.chunk + 1, example.chunk)]
    return [check(leeway, reference, write(directory / "chunk.csv", header, chunk)) for chunk in chunks]


def draw(example: Example, found: list[list[dict]], path: Path) -> None:
    """PSI of each feature over the chunks; those that never drift in grey."""
    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    chunks = range(1, len(found) + 1)
    for index, feature in enumerate(found[0]):
        name = feature["feature"]
        psi = [max(chunk[index]["psi"], 1e-4) for chunk in found]
        if any(chunk[index]["status"] != "no_drift" for chunk in found):
            axes.plot(chunks, psi, marker="o", markersize=3, label=name)
        else:
            axes.plot(chunks, psi, color="0.75", linewidth=1, zorder=1)
    for threshold, word in [(POSSIBLE_DRIFT, "possible drift"), (DRIFT, "drift")]:
        axes.axhline(threshold, color="0.3", linestyle="--", linewidth=0.8)
        axes.annotate(word, (1, threshold), xytext=(2, 2), textcoords="offset points", fontsize=8, color="0.3")
    axes.set(title=example.title, xlabel=f"chunk of {example.chunk:,} rows", ylabel="PSI", yscale="log", xticks=list(chunks))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def told(example: Example, found: list[list[dict]]) -> str:
    """A table in Markdown: for each feature that changes its worst chunk, and what changed most there."""
    lines = ["| feature | first seen in chunk | worst PSI | in chunk | changed most |", "| --- | --- | --- | --- | --- |"]
    for index, feature in enumerate(found[0]):
        series = [chunk[index] for chunk in found]
        seen = [number for number, one in enumerate(series, 1) if one["status"] != "no_drift"]
        if seen:
            worst = max(series, key=lambda one: one["psi"])
            lines.append(
                f"| `{feature['feature']}` | {seen[0]} of {len(found)} | {worst['psi']:.3f}, {worst['status'].replace('_', ' ')} | "
                f"{series.index(worst) + 1} | `{worst['top_bin']}` |"
            )
    return "\n".join(lines)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--output", required=True, type=Path, help="where the charts go")
    ap.add_argument("--leeway", default="leeway", help="the binary")
    args = ap.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        archive = wheel(Path(directory))
        for example in EXAMPLES:
            found = run(example, archive, args.leeway, Path(directory))
            draw(example, found, args.output / f"{example.name}.svg")
            drifting = {one["feature"] for chunk in found for one in chunk if one["status"] != "no_drift"}
            print(f"{example.title}\n\n{told(example, found)}\n")
            missed, invented = sorted(example.changing - drifting), sorted(example.steady & drifting)
            if missed or invented:
                raise SystemExit(f"{example.name}: not found {missed}, found and not there {invented}")


if __name__ == "__main__":
    main()
