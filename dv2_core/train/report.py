"""The live report of one or several trainings: one self-contained HTML file that refreshes itself."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .log import Row, read_log

POINTS = 400  # of one curve: longer logs are averaged down to them
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } svg { width: 100%; height: auto }
img { max-width: 100%; image-rendering: pixelated; display: block; margin: .3rem 0 1rem }
pre { background: #f5f5f5; padding: 1rem }
"""


@dataclass(frozen=True)
class Progress:
    """What the folder of one training says."""

    name: str
    folder: Path
    rows: list[Row]
    config: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Progress:
        """Raises ValueError if the folder holds no log."""
        rows, config = read_log(folder / "log.jsonl"), folder / "config.json"
        if not rows:
            raise ValueError(f"{folder} holds no log.jsonl with rows; give the --out folder of a training.")
        return cls(folder.resolve().name, folder, rows, json.loads(config.read_text()) if config.exists() else {})

    def of(self, kind: str) -> list[Row]:
        return [row for row in self.rows if row["kind"] == kind]

    def curve(self, kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and finite values of one figure."""
        found = [(row["step"], row[key]) for row in self.of(kind) if np.isfinite(row.get(key, np.nan))]
        steps, values = np.array(found, dtype=float).reshape(-1, 2).T
        return steps, values


def write_report(folders: Sequence[Path], path: Path | None = None) -> Path:
    """Write the report of the trainings in ``folders``, compared where they are several.

    Args:
        path: the HTML file; by default ``report.html`` in the first folder.

    Raises ValueError if a folder holds no log.
    """
    runs = [Progress.read(folder) for folder in folders]
    path = path or folders[0] / "report.html"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page(runs), encoding="utf-8")
    os.replace(temporary, path)
    return path


def page(runs: Sequence[Progress]) -> str:
    title = html.escape(" / ".join(run.name for run in runs))
    samples = "".join(_samples(run) for run in runs)
    configs = "".join(
        f"<details><summary>Settings of {html.escape(run.name)}</summary>"
        f"<pre>{html.escape(json.dumps(run.config, indent=1))}</pre></details>"
        for run in runs
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="30">'
        f"<title>Training: {title}</title><style>{STYLE}</style></head><body><h1>Training: {title}</h1>"
        f"{_table(runs)}<h2>Curves</h2>{_svg(draw(runs))}{samples}<h2>Settings</h2>{configs}</body></html>"
    )


def draw(runs: Sequence[Progress]) -> Figure:
    """Six panels: training error, validation error, validation by timestep, rate, gradient, speed."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    _errors(panels[0], runs, "train", "Training error", smooth=True)
    _errors(panels[1], runs, "validation", "Validation error (averaged weights)", smooth=False)
    _by_timestep(panels[2], runs)
    simple = (("lr", "Learning rate", False), ("norm", "Gradient norm, before clipping", True),
              ("clips_per_second", "Clips per second", False))  # fmt: skip
    for axes, (key, title, logarithmic) in zip(panels[3:], simple, strict=True):
        for run, colour in zip(runs, _cycle(COLOURS), strict=False):
            axes.plot(*_thinned(*run.curve("train", key)), color=colour, label=run.name)
        axes.set_title(title)
        axes.set_yscale("log" if logarithmic else "linear")
        if not logarithmic:
            axes.set_ylim(bottom=0)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.set_xlabel("step")
        if len(axes.get_legend_handles_labels()[1]) > 1:
            axes.legend(fontsize=8)
    return figure


def _errors(axes: Axes, runs: Sequence[Progress], kind: str, title: str, smooth: bool) -> None:
    """Loss, error inside and outside of the boxes; colours tell these apart for one run, line styles for several."""
    for n, run in enumerate(runs):
        for colour, key, label in zip(COLOURS, ("loss", "inside", "outside"),
                                      ("loss (Eq. 6)", "in the boxes", "outside"), strict=False):  # fmt: skip
            steps, values = run.curve(kind, key)
            name = label if len(runs) == 1 else f"{run.name}: {label}"
            if smooth:
                axes.plot(*_thinned(steps, values), color=colour, alpha=0.2, linewidth=0.8)
                values = _smoothed(values)
            axes.plot(*_thinned(steps, values), ("-", "--", ":", "-.")[n % 4], color=colour, label=name,
                      marker=None if smooth else "o", markersize=3)  # fmt: skip
    axes.set_title(title)


def _by_timestep(axes: Axes, runs: Sequence[Progress]) -> None:
    for n, run in enumerate(runs):
        rows = run.of("validation")
        for colour, timestep in zip(COLOURS, rows[-1]["by_timestep"] if rows else (), strict=False):
            values = [row["by_timestep"][timestep]["mse"] for row in rows]
            axes.plot([row["step"] for row in rows], values, ("-", "--", ":", "-.")[n % 4], color=colour, marker="o",
                      markersize=3, label=f"t = {timestep}" if not n else None)  # fmt: skip
    axes.set_title("Validation error by timestep")


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Running mean over a twentieth of the curve."""
    width = max(1, len(values) // 20)
    sums = np.cumsum(np.insert(values, 0, 0.0))
    first = np.maximum(np.arange(1, len(values) + 1) - width, 0)
    last = np.arange(1, len(values) + 1)
    return (sums[last] - sums[first]) / (last - first)


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = np.array_split(np.arange(len(steps)), min(len(steps), POINTS)) if len(steps) else []
    return np.array([steps[part].mean() for part in parts]), np.array([values[part].mean() for part in parts])


def _cycle(values: Sequence[str]) -> Iterable[str]:
    while True:
        yield from values


def _table(runs: Sequence[Progress]) -> str:
    """The newest figures of every run."""
    names = ("step", "loss", "inside", "outside", "validation loss", "inside ", "outside ", "clips/s", "hours")
    lines = []
    for run in runs:
        train, held_out = (run.of(kind)[-1:] or [{}] for kind in ("train", "validation"))
        t, v = train[0], held_out[0]
        steps = f"{run.rows[-1]['step']} of {run.config.get('steps', '?')}"
        hours = t.get("seconds", 0.0) / 3600
        figures = [t.get("loss"), t.get("inside"), t.get("outside"), v.get("loss"), v.get("inside"), v.get("outside"),
                   t.get("clips_per_second"), hours]  # fmt: skip
        cells = [html.escape(run.name), steps, *("-" if f is None else f"{f:.4g}" for f in figures)]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("run", *names))
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _samples(run: Progress) -> str:
    """The newest three sample sheets, newest first."""
    parts = []
    for row in reversed(run.of("samples")[-3:]):
        file = run.folder / row["file"]
        if file.exists():
            data = base64.b64encode(file.read_bytes()).decode()
            parts.append(f'<p>Step {row["step"]}</p><img alt="samples" src="data:image/png;base64,{data}">')
    return f"<h2>Samples of {html.escape(run.name)}</h2>{''.join(parts)}" if parts else ""


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
