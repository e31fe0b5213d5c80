"""The table of the ablation as Markdown, JSON and CSV, beside the paper's rows, and the verdicts."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .directions import Seeds, Verdict
from .measure import METRICS, Values, draws, interval, stack, statistic
from .rows import PAPER_COLUMNS, Row

#: How sure a value is: low and high end of the 95 % interval over pairs, then the value of every seed.
Cell = tuple[float, float, float, dict[int, float]]

#: The metrics in which every row is compared with the full method.
AGAINST = ("mIoU", "colour", "margin")
#: The paper's metrics of control and identity that stand beside them.
PAPERS = ("mIoU", "R-DINO")


@dataclass(frozen=True)
class Line:
    """One row with its numbers: metric -> (value, low, high, by seed)."""

    row: Row
    cells: dict[str, Cell]

    @property
    def seeds(self) -> list[int]:
        return list(self.cells["mIoU"][3])


def line(row: Row, seeds: Seeds) -> Line:
    """Value: mean over the seeds; interval: bootstrap over pairs, of that mean, for these trainings."""
    numbers = sorted(seeds)
    values = stack([seeds[seed] for seed in numbers])
    resamples = draws(*values["mIoU"].shape, redraw_seeds=False)
    cells: dict[str, Cell] = {}
    for name in METRICS:
        low, high = interval([statistic(name, values, *drawn) for drawn in resamples])
        by_seed = {seed: statistic(name, stack([seeds[seed]])) for seed in numbers}
        cells[name] = statistic(name, values), low, high, by_seed
    return Line(row, cells)


def reference_line(label: str, values: Values) -> Line:
    """A line of the real clips: no training, so no seeds."""
    return line(Row(label, label), {0: values})


def markdown(lines: Sequence[Line], references: Sequence[Line]) -> str:
    """Two tables: ours with intervals beside the paper's numbers, and every seed by itself."""
    header = ["row", "seeds", *(m.heading for m in METRICS.values()), "paper's table", *PAPER_COLUMNS]
    body = []
    for entry in (*lines, *references):
        cells = [text(name, *entry.cells[name][:3]) for name in METRICS]
        paper = entry.row.paper or (None,) * len(PAPER_COLUMNS)
        count = "-" if entry in references else str(len(entry.seeds))
        known = ["" if value is None else f"{value:.3f}" for value in paper]
        body.append([entry.row.label, count, *cells, entry.row.table, *known])
    by_seed = [["row", "seed", *(m.heading for m in METRICS.values())]]
    for entry in lines:
        for seed in entry.seeds:
            numbers = [f"{entry.cells[name][3][seed]:.{metric.digits}f}" for name, metric in METRICS.items()]
            by_seed.append([entry.row.label, str(seed), *numbers])
    return f"{grid([header, *body])}\n\n{grid(by_seed)}"


def against_table(lines: Sequence[Line], differences: Mapping[str, Mapping[str, Verdict]]) -> str:
    """The short table: each row beside what it has more than the full method, bold where that is resolved."""
    header = ["row", "seeds", *(cell for name in AGAINST for cell in (METRICS[name].heading, "minus full")),
              "top-1 / top-5", METRICS["static"].heading, *(f"paper's {name}" for name in PAPERS)]  # fmt: skip
    body = []
    for entry in lines:
        cells = []
        for name in AGAINST:
            verdict = differences.get(entry.row.name, {}).get(name)
            cells += [short(entry.cells[name][0]), "" if verdict is None else difference(verdict)]
        top1, top5 = (f"{100 * entry.cells[name][0]:.0f}" for name in ("top1", "top5"))
        static = f"{entry.cells['static'][0]:.4f}".lstrip("0")
        paper = dict(zip(PAPER_COLUMNS, entry.row.paper, strict=False))
        known = [short(value) if (value := paper.get(name)) is not None else "" for name in PAPERS]
        body.append([f"`{entry.row.name}`", str(len(entry.seeds)), *cells, f"{top1} / {top5} %", static, *known])
    return grid([header, *body])


def difference(verdict: Verdict) -> str:
    if verdict.difference is None or verdict.low is None or verdict.high is None:
        return ""
    value = short(verdict.difference, "+")
    value = f"**{value}**" if verdict.outcome in ("holds", "reversed") else value
    return f"{value} ({short(verdict.low, '+')} to {short(verdict.high, '+')})"


def short(value: float, sign: str = "") -> str:
    """Three digits without a zero before the point."""
    return f"{value:{sign}.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:{sign}.3f}"


def text(metric: str, value: float, low: float, high: float) -> str:
    digits = METRICS[metric].digits
    return f"{value:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    rows = [["the paper's direction", "where", "measured as", "outcome", "difference (95 %)"]]
    for verdict in verdicts:
        shown = (
            "" if verdict.difference is None else f"{verdict.difference:+.4f} ({verdict.low:+.4f}..{verdict.high:+.4f})"
        )
        rows.append([verdict.claim, verdict.source, verdict.measured, verdict.outcome, shown])
    return grid(rows)


def grid(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write(
    out: Path,
    lines: Sequence[Line],
    references: Sequence[Line],
    verdicts: Sequence[Verdict],
    differences: Mapping[str, Mapping[str, Verdict]],
    about: Mapping[str, Any],
) -> str:
    """Write table.md, table.json and table.csv into `out`; returns the Markdown."""
    page = (
        f"# Ablations in miniature\n\n{against_table(lines, differences)}\n\n{AGAINST_NOTES}\n\n## Beside the paper\n\n"
        f"{markdown(lines, references)}\n\n{NOTES}\n\n## The paper's directions\n\n"
        f"{verdict_table(verdicts)}\n\n{VERDICT_NOTES}\n\n## Settings\n\n"
        f"{chr(10).join(f'- {key}: {value}' for key, value in about.items())}\n"
    )
    (out / "table.md").write_text(page)
    content = {
        "about": about,
        "rows": [as_json(entry) for entry in lines],
        "references": [as_json(entry) for entry in references],
        "directions": [asdict(verdict) for verdict in verdicts],
    }
    (out / "table.json").write_text(json.dumps(content, indent=1) + "\n")
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        ends = ("", "_low", "_high")
        columns = [name + end for name in METRICS for end in ends]
        writer.writerow(["row", "seeds", *columns, *(f"paper_{name}" for name in PAPER_COLUMNS)])
        for entry in (*lines, *references):
            numbers = [f"{entry.cells[name][n]:.6f}" for name in METRICS for n in range(len(ends))]
            paper = entry.row.paper or (None,) * len(PAPER_COLUMNS)
            writer.writerow([entry.row.name, len(entry.seeds), *numbers, *paper])
    return page


def as_json(entry: Line) -> dict[str, Any]:
    cells = {
        name: {"value": value, "low": low, "high": high, "seeds": by_seed}
        for name, (value, low, high, by_seed) in entry.cells.items()
    }
    paper = dict(zip(PAPER_COLUMNS, entry.row.paper, strict=True)) if entry.row.paper else {}
    return {"row": entry.row.name, "label": entry.row.label, "changes": dict(entry.row.changes),
            "table": entry.row.table, "paper": paper, "metrics": cells}  # fmt: skip


AGAINST_NOTES = """Values: mean over the seeds. "minus full": difference from the full method over the seeds that both
have, with its 95 % interval (bootstrap over pairs, redrawn together, plus the scatter of trainings by their seed).
Bold: the whole interval lies on one side of 0, and enough trainings are there to know that scatter. The paper's columns
are from other data and other networks: compare directions, never values."""

NOTES = """Values: mean over the seeds. Brackets: 95 % bootstrap interval over the validation pairs, for these
trainings; how much another training differs shows in the second table. mIoU, CD, colour correlation, MSE and retrieval
(among the subjects of all pairs) as in docs/evaluation.md; other - own: how much nearer the result is to its own
subject; background change: what moves from frame to frame outside the
boxes (0: still, as the world's backgrounds are). The paper's
columns are other metrics on other data: compare directions, never values."""

VERDICT_NOTES = """Difference of the two rows, over their common seeds. Interval: bootstrap over pairs, redrawn together
for both rows, plus the scatter of trainings by their seed, drawn from all rows together. "holds" and "reversed": the
whole interval lies on one side of 0; with one seed, or with too few rows to know that scatter, nothing is resolved.
With this many questions at 95 %, about one of twenty is settled by chance alone."""
