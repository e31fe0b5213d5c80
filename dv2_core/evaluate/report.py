"""The tables of the evaluation as Markdown and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .probes import SIGMAS, Agreement
from .prompts import MAIN
from .scores import COLUMNS, Estimate, Scores, columns

SHARES = ("misses", "top1", "top5")  # printed in percent
FINE = ("static", "flicker")  # printed with four digits
REAL = "real clips"
BARS = {"mIoU": 0.80, "CD": 0.03, "colour": 0.90, "top1": 0.50, "top5": 0.85}  # at least; of CD at most
BELOW_CEILING = 0.06  # how far mIoU may lie below that of the real clips
BAR_PAIRS, BAR_SEEDS, BAR_GALLERY = 192, 3, 48  # what the bars are meant for

Rows = Mapping[str, Sequence[Scores]]  # condition -> one Scores per sampling seed
Probes = Mapping[str, Mapping[str, Agreement]]  # condition -> probe -> what it found
Table = dict[str, dict[str, Estimate]]


def table(rows: Rows) -> str:
    """One row per condition: mean over its sampling seeds and 95 % interval per column."""
    return render_table(summary(rows))


def summary(rows: Rows) -> Table:
    return {name: columns(seeds) for name, seeds in rows.items()}


def render_table(values: Table) -> str:
    header = ["condition", *COLUMNS.values()]
    lines = [[name, *(cell(column, *row[column]) for column in COLUMNS)] for name, row in values.items()]
    return markdown([header, *lines])


def seeds_table(seeds: Mapping[int, Scores]) -> str:
    """The main condition's values, one row per sampling seed: how much another noise changes them."""
    lines = [["sampling seed", *COLUMNS.values()]]
    for seed, scores in seeds.items():
        lines.append([str(seed), *(number(name, value) for name, (value, _, _) in columns([scores]).items())])
    return markdown(lines)


def probes_table(probes: Probes) -> str:
    lines = [["condition", "probe", "clips", "correct", "chance", "above chance"]]
    for condition, found in probes.items():
        for name, a in found.items():
            shares = [f"{100 * share:.1f} %" for share in (a.accuracy, a.chance)]
            lines.append([condition, name, str(a.clips), *shares, f"{a.sigmas:+.1f} sigma"])
    return markdown(lines)


# --- the bars ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """What was asked for and what was measured."""

    demand: str
    measured: str
    met: bool
    close: bool = False  # the 95 % interval holds both answers


def bars(values: Table, probes: Probes, gallery: int) -> list[Bar]:
    """Every bar that can be judged with the rows there are; the verdict is that of the value, not of its interval.

    Retrieval has a bar only in full galleries: among fewer subjects it is easier."""
    judged = []
    main = values.get(MAIN.name)
    if main is not None:
        for name, limit in BARS.items():
            if name in ("top1", "top5") and gallery < BAR_GALLERY:
                continue
            value, low, high = main[name]
            sign, met = ("<=", value <= limit) if name == "CD" else (">=", value >= limit)
            demand = f"{COLUMNS[name]} {sign} {number(name, limit)}"
            judged.append(Bar(demand, cell(name, value, low, high), met, low < limit < high))
        if REAL in values:
            below = values[REAL]["mIoU"][0] - main["mIoU"][0]
            demand = f"mIoU at most {BELOW_CEILING} below that of real clips"
            judged.append(Bar(demand, f"{below:.3f} below", below <= BELOW_CEILING))
    for condition, found in probes.items():
        if not condition.startswith(REAL):
            for name, a in found.items():
                demand = f'{name} in "{condition}" {SIGMAS:.0f} sigma above chance'
                judged.append(Bar(demand, f"{a.sigmas:+.1f} sigma", a.sigmas >= SIGMAS))
    return judged


def bars_table(judged: Sequence[Bar]) -> str:
    lines = [["bar", "measured", "verdict"]]
    for bar in judged:
        verdict = "met" if bar.met else "missed"
        lines.append([bar.demand, bar.measured, verdict + (", within the interval" if bar.close else "")])
    return markdown(lines)


# --- text -------------------------------------------------------------------------------------------------------------


def markdown(lines: list[list[str]]) -> str:
    """A Markdown table with aligned columns; the first line is its header."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in ruled
    )


def cell(column: str, value: float, low: float, high: float) -> str:
    if column in SHARES:
        return f"{100 * value:.0f} % ({100 * low:.0f}..{100 * high:.0f})"
    return f"{number(column, value)} ({number(column, low)}..{number(column, high)})"


def number(column: str, value: float) -> str:
    if column in SHARES:
        return f"{100 * value:.0f} %"
    return f"{value:.{4 if column in FINE else 3}f}"


def write(out: Path, rows: Rows, probes: Probes, seeds: Sequence[int], about: dict[str, Any]) -> str:
    """Write results.json and results.md into `out`; returns the tables as Markdown.

    seeds: the sampling seeds of the main condition's scores. about: the settings and files behind the numbers."""
    values = summary(rows)
    judged = bars(values, probes, about["gallery"])
    parts = [render_table(values)]
    if len(rows.get(MAIN.name, ())) > 1:
        by_seed = dict(zip(seeds, rows[MAIN.name], strict=True))
        parts += [f"## {MAIN.name}, seed by seed", seeds_table(by_seed)]
    parts += ["## Text probes", probes_table(probes)]
    if judged:
        meant = f"Meant for {BAR_PAIRS} pairs or more, {BAR_SEEDS} sampling seeds and galleries of {BAR_GALLERY}; "
        here = f"here: {about.get('pairs')}, {len(rows.get(MAIN.name, ()))} and {about.get('gallery')}."
        parts += ["## Bars", meant + here, bars_table(judged)]
    text = "\n\n".join(parts)
    columns_json = {
        name: {column: dict(zip(("value", "low", "high"), triple, strict=True)) for column, triple in row.items()}
        for name, row in values.items()
    }
    probes_json = {
        condition: {name: {**asdict(a), "sigmas": a.sigmas} for name, a in found.items()}
        for condition, found in probes.items()
    }
    content = {"about": about, "rows": columns_json, "probes": probes_json, "bars": [asdict(bar) for bar in judged]}
    (out / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    settings = "\n".join(f"- {key}: {value}" for key, value in about.items())
    (out / "results.md").write_text(f"# Evaluation\n\n{text}\n\n{NOTES}\n\n{settings}\n")
    return text


NOTES = """Brackets: 95 % bootstrap interval over pairs, each with all its sampling seeds. mIoU, CD: boxes found by the
detector against the requested ones; a frame without a detection counts as IoU 0 and CD 1; CD in frame diagonals. Colour
correlation, MSE (colours from -1 to 1), retrieval and flicker: what the requested boxes show against the subject image
or the next frame, weighted by the subject's coverage; retrieval among the subjects of the gallery. Background change:
mean absolute change from frame to frame outside the requested and the detected boxes, colours from 0 to 1. Shuffled
boxes: the real clips against another pair's boxes. Probes: first sampling seed; chance and sigma from all
permutations of the captions."""
