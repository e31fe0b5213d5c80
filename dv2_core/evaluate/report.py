"""The table of the evaluation as text, Markdown and JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .scores import COLUMNS, Scores

SHARES = ("misses", "top1", "top5")  # printed in percent


def table(rows: Mapping[str, Scores]) -> str:
    """A Markdown table: one row per condition, value and 95 % interval per column."""
    header = ["condition", *COLUMNS.values()]
    lines = [header, ["---"] * len(header)]
    for name, scores in rows.items():
        columns = scores.columns()
        lines.append([name, *(cell(column, *columns[column]) for column in COLUMNS)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines[1] = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def cell(column: str, value: float, low: float, high: float) -> str:
    if column in SHARES:
        return f"{100 * value:.0f} % ({100 * low:.0f}..{100 * high:.0f})"
    return f"{value:.3f} ({low:.3f}..{high:.3f})"


def write(out: Path, rows: Mapping[str, Scores], about: dict[str, Any]) -> str:
    """Write results.json and results.md into `out`; returns the Markdown table.

    about: the settings and files behind the numbers, written beside them."""
    text = table(rows)
    values = {
        name: {
            column: dict(zip(("value", "low", "high"), triple, strict=True))
            for column, triple in scores.columns().items()
        }
        for name, scores in rows.items()
    }
    (out / "results.json").write_text(json.dumps({"about": about, "rows": values}, indent=1) + "\n")
    settings = "\n".join(f"- {key}: {value}" for key, value in about.items())
    (out / "results.md").write_text(f"# Evaluation\n\n{text}\n\n{NOTES}\n\n{settings}\n")
    return text


NOTES = """Held-out concepts. Brackets: 95 % bootstrap interval over clips. mIoU, CD: boxes found by the detector
against the requested ones; a frame without a detection counts as IoU 0 and CD 1; CD in frame diagonals. Colour
correlation, MSE (colours from -1 to 1) and retrieval: what the requested boxes show against the subject image,
weighted by its coverage, the better of plain and mirrored; retrieval among the subjects of the gallery. Shuffled
boxes: the real clips against another pair's boxes."""
