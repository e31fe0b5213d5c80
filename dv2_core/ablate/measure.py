"""Numbers of one row, seed and step: what is kept per pair, and the statistics over pairs and seeds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluate.detector import Detector
from ..evaluate.metrics import RESAMPLES, colour_correlation
from ..evaluate.pairs import Pair
from ..evaluate.scores import score

Array = np.ndarray
Draws = list[tuple[Array, Array]]  # of a bootstrap: numbers of the seeds and of the pairs that were drawn


@dataclass(frozen=True)
class Metric:
    """A column of the table: which values of a pair it is made of, and how.

    Attributes:
        of: value of one training from the values of its pairs [N] (colours: [N, 6]).
        digits: in print.
    """

    heading: str
    values: str
    of: Callable[[Array], float] = lambda values: float(np.nanmean(values))
    digits: int = 3


METRICS: dict[str, Metric] = {
    "mIoU": Metric("mIoU", "mIoU"),
    "CD": Metric("CD", "CD"),
    "colour": Metric("colour corr.", "colours", lambda colours: colour_correlation(colours[:, :3], colours[:, 3:])),
    "own": Metric("MSE own", "own"),
    "other": Metric("MSE other", "other"),
    "margin": Metric("other - own", "margin"),
    "top1": Metric("top-1", "top1", digits=2),
    "top5": Metric("top-5", "top5", digits=2),
    "static": Metric("background change", "static", digits=4),
}

Values = dict[str, Array]
"""Per pair: the names of :attr:`Metric.values` -> [N] (colours [N, 6])."""


def measure(clips: list[Array], pairs: list[Pair], detector: Detector,
            boxes_of: Callable[[int], Array] | None = None) -> Values:  # fmt: skip
    """One clip per pair (uint8 [F, H, W, 3]) -> its values; arguments as for ``evaluate.scores.score``."""
    scores = score(clips, pairs, detector, boxes_of)
    values = {name: np.asarray(getattr(scores, name), float) for name in
              ("mIoU", "CD", "misses", "own", "other", "top1", "top5", "colours", "static")}  # fmt: skip
    return {**values, "margin": values["other"] - values["own"]}


def save(path: Path, values: Values, about: Mapping[str, Any]) -> None:
    """Write a result whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {name: np.round(array, 6).tolist() for name, array in values.items()}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"about": about, "pairs": rounded}) + "\n")
    os.replace(temporary, path)


def load(path: Path) -> tuple[Values, dict[str, Any]]:
    """The values of a result and what was written about it."""
    content = json.loads(path.read_text())
    return {name: np.array(array) for name, array in content["pairs"].items()}, content["about"]


# --- statistics -------------------------------------------------------------------------------------------------------


def stack(results: list[Values]) -> Values:
    """The values of all seeds: [S, N] (colours [S, N, 6])."""
    return {name: np.stack([result[name] for result in results]) for name in results[0]}


def statistic(metric: str, values: Values, seeds: Array | None = None, pairs: Array | None = None) -> float:
    """Mean over seeds of the metric over pairs; `seeds` and `pairs` number those that count (left out: all, once)."""
    column = METRICS[metric]
    array = values[column.values]
    chosen = array if seeds is None else array[seeds]
    return float(np.mean([column.of(one if pairs is None else one[pairs]) for one in chosen]))


def draws(seeds: int, pairs: int, redraw_seeds: bool = True) -> Draws:
    """The resamples of a bootstrap over seeds and pairs: always the same, so that differences are paired."""
    rng = np.random.default_rng(0)
    every = np.arange(seeds)
    return [
        (rng.integers(seeds, size=seeds) if redraw_seeds else every, rng.integers(pairs, size=pairs))
        for _ in range(RESAMPLES)
    ]


def interval(drawn: list[float] | Array) -> tuple[float, float]:
    """The 95 % percentile interval."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
