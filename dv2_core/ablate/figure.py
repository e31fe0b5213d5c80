"""The paper's Figure 3 in miniature: control and identity against training steps, naive and full."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .directions import Curves, Seeds
from .measure import METRICS, Values, stack, statistic

PANELS = {
    "mIoU": "control: mIoU",
    "colour": "identity: colour correlation",
    "top5": "identity: retrieval, top-5",
}
STYLES = {
    "full": ("full method", "tab:blue"),
    "naive": ("naive joint training", "tab:orange"),
    "box-position": ("full method and places in the box", "tab:green"),
}


def plot(curves: Curves, real: Values, shuffled: Values, path: Path) -> None:
    """One panel per metric: a line through the mean of the seeds, a band for their spread, each seed as a dot.

    Args:
        curves: row -> step -> seeds; step 0 is the row "untrained".
        real: of real clips through the decoder, the ceiling. shuffled: against other pairs' boxes, the floor of mIoU.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    start = curves.get("untrained", {}).get(0, {})
    for axes, (metric, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for name, (label, colour) in STYLES.items():
            measured = curves.get(name, {})
            if not measured:
                continue
            steps: Mapping[int, Seeds] = {0: start, **measured} if start else measured
            by_seed = {step: [statistic(metric, stack([v])) for v in steps[step].values()] for step in sorted(steps)}
            means = [sum(values) / len(values) for values in by_seed.values()]
            low, high = [min(v) for v in by_seed.values()], [max(v) for v in by_seed.values()]
            axes.plot(list(by_seed), means, color=colour, label=label)
            axes.fill_between(list(by_seed), low, high, color=colour, alpha=0.2, linewidth=0)
            for step, values in by_seed.items():
                axes.plot([step] * len(values), values, ".", color=colour)
        ceiling = statistic(metric, stack([real]))
        axes.axhline(ceiling, color="grey", linestyle="--", linewidth=1, label="real clips through the decoder")
        if metric == "mIoU":
            floor = statistic(metric, stack([shuffled]))
            axes.axhline(floor, color="grey", linestyle=":", linewidth=1, label="real clips, other pairs' boxes")
        axes.set_title(title)
        axes.set_xlabel("training steps")
        axes.set_ylabel(METRICS[metric].heading)
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
