"""The paper's Figure 3 in miniature: control and identity against training steps, naive and full."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .directions import Curves, Seeds
from .measure import METRICS, Values, stack, statistic

PANELS = ("mIoU", "colour", "top5")
STYLES = {"full": ("full method", "tab:blue"), "naive": ("naive joint training", "tab:orange")}


def plot(curves: Curves, references: Mapping[str, Values], path: Path) -> None:
    """One panel per metric: mean of the seeds, their spread as a band, each seed as a dot; dashed: real clips."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    start = curves.get("untrained", {}).get(0, {})
    for axes, metric in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for name, (label, colour) in STYLES.items():
            steps: Mapping[int, Seeds] = {**({0: start} if start else {}), **curves.get(name, {})}
            if not any(step for step in steps):
                continue
            by_seed = {step: [statistic(metric, stack([v])) for v in steps[step].values()] for step in sorted(steps)}
            at = list(by_seed)
            axes.plot(at, [sum(values) / len(values) for values in by_seed.values()], color=colour, label=label)
            low, high = [min(v) for v in by_seed.values()], [max(v) for v in by_seed.values()]
            axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
            for step, values in by_seed.items():
                axes.plot([step] * len(values), values, ".", color=colour)
        for name, values in references.items():
            axes.axhline(statistic(metric, stack([values])), color="grey", linestyle="--", linewidth=1)
            axes.annotate(name, (0.99, statistic(metric, stack([values]))), xycoords=("axes fraction", "data"),
                          ha="right", va="bottom", fontsize=7, color="grey")  # fmt: skip
        axes.set_title({"mIoU": "control: mIoU", "colour": "identity: colour correlation",
                        "top5": "identity: retrieval, top-5"}[metric])  # fmt: skip
        axes.set_xlabel("training steps")
        axes.set_ylabel(METRICS[metric].heading)
        axes.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.axes[0].legend(handles, labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
