"""Which of the paper's directions the measurement shares: a difference of two rows, or an order along the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .measure import Values, draws, interval, stack, statistic
from .rows import ROWS

Outcome = Literal["holds", "reversed", "not resolved", "not measured"]
Seeds = Mapping[int, Values]
"""The results of one row at one step, by seed."""
Curves = Mapping[str, Mapping[int, Seeds]]
"""Row -> step -> seeds."""


@dataclass(frozen=True)
class Direction:
    """The claim that `metric` is larger in row `higher` than in row `lower`."""

    claim: str
    source: str
    metric: str
    higher: str
    lower: str


@dataclass(frozen=True)
class Order:
    """The claim that along the training of `row`, `first` comes sooner than `then`.

    A metric's share of the way is its gain over step 0 in units of the gain that real clips (through the decoder)
    would be; compared are the means of the two shares over the checkpoints."""

    claim: str
    source: str
    row: str
    first: str
    then: str


@dataclass(frozen=True)
class Verdict:
    claim: str
    source: str
    measured: str
    outcome: Outcome
    difference: float | None = None
    low: float | None = None
    high: float | None = None


#: Fewer trainings than this (rows - 1 times seeds - 1) do not tell how much a training scatters.
LEAST_FREEDOM = 4
WEIGHTS = {row.name: row.weights_of or row.name for row in ROWS}

MASK, LOSS, MOTION, FIGURE, OURS = "Table 5-6, mask", "Table 5-6, loss", "Table 5-6, motion", "Figure 3", "our choice"

DIRECTIONS: tuple[Direction, ...] = (
    Direction("the blended mask raises control", MASK, "mIoU", "full", "mask-1"),
    Direction("a smaller lambda_M raises control", MASK, "mIoU", "mask-0", "full"),
    Direction("a binary mask controls more than none", MASK, "mIoU", "mask-0", "mask-1"),
    Direction("the blended mask raises identity", MASK, "colour", "full", "mask-1"),
    Direction("the blended mask raises identity", MASK, "margin", "full", "mask-1"),
    Direction("a smaller lambda_M costs background quality", MASK, "static", "mask-0", "full"),
    Direction("no motion encoder lowers control", MOTION, "mIoU", "full", "no-motion-encoder"),
    Direction("no motion encoder lowers identity", MOTION, "colour", "full", "no-motion-encoder"),
    Direction("no motion module lowers control", MOTION, "mIoU", "full", "no-motion-module"),
    Direction("the mask alone still gives rough control", MOTION, "mIoU", "no-motion-module", "subject-only"),
    Direction("no reweighted loss lowers identity", LOSS, "colour", "full", "loss-1"),
    Direction("no reweighted loss lowers identity", LOSS, "margin", "full", "loss-1"),
    Direction("no reweighted loss lowers control", LOSS, "mIoU", "full", "loss-1"),
    Direction("lambda_L 4 lowers control", LOSS, "mIoU", "full", "loss-4"),
    Direction("subject only has no control", "Table 3", "mIoU", "full", "subject-only"),
    Direction("motion only has no identity", "Table 4", "colour", "full", "motion-only"),
    Direction("motion only controls more than both together", "Tables 2, 4", "mIoU", "motion-only", "full"),
    Direction("naive joint training has less identity", FIGURE, "colour", "full", "naive"),
    Direction("naive joint training has less identity", FIGURE, "margin", "full", "naive"),
    Direction("naive joint training has less control", FIGURE, "mIoU", "full", "naive"),
    Direction("t = 0 for the subject gives more identity than the video's t", OURS, "colour", "full", "subject-at-t"),
    Direction("t = 0 for the subject gives more control than the video's t", OURS, "mIoU", "full", "subject-at-t"),
    Direction("hidden states give more identity than attention outputs", OURS, "margin", "full", "attention-output"),
    Direction("narrow heads give more identity than wide ones", OURS, "margin", "full", "wide-heads"),
    Direction("knowing places in the box gives more identity", OURS, "margin", "box-position", "full"),
    Direction("knowing places in the box gives more control", OURS, "mIoU", "box-position", "full"),
    Direction("own reference projections give more identity than shared ones", OURS, "colour", "full",
              "shared-projections"),
    Direction("the ControlNet gives more control than convolutions in its place", OURS, "mIoU", "full", "lite-motion"),
    Direction("dropping the subject in the unconditional branch gives more identity", OURS, "colour", "full",
              "uncond-subject"),
    Direction("keeping the boxes in the unconditional branch gives more control", OURS, "mIoU", "full", "uncond-none"),
)  # fmt: skip

ORDERS: tuple[Order, ...] = tuple(
    Order(f"{way}: motion is learned before appearance", FIGURE, row, "mIoU", identity)
    for way, row in (("naive", "naive"), ("full method", "full"))
    for identity in ("colour", "top5")
)


class Scatter:
    """How much two trainings of one row differ by their seed, estimated from all rows together.

    A row has two seeds or three, too few to tell. So the values of all trained rows and seeds are laid out as row +
    seed + rest, and the rests, scaled for the means they lost, are the pool that differences draw from.
    """

    def __init__(self, curves: Curves, last: int) -> None:
        sampled = {row.name for row in ROWS if row.weights_of}
        rows = [steps[last] for name, steps in curves.items() if name not in sampled and last in steps]
        self.seeds = sorted(max((set(row) for row in rows), key=len, default=set()))
        self.rows = [row for row in rows if set(row) >= set(self.seeds)]

    @property
    def freedom(self) -> int:
        return (len(self.rows) - 1) * (len(self.seeds) - 1)

    def pool(self, metric: str) -> np.ndarray:
        """The scaled rests of a metric, [rows * seeds]."""
        values = np.array([[statistic(metric, stack([row[seed]])) for seed in self.seeds] for row in self.rows])
        rests = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        return rests.ravel() * np.sqrt(rests.size / self.freedom)

    def draw(self, metric: str, seeds: int, times: int, number: int) -> np.ndarray:
        """Means of `seeds` rests, `times` of them; another `number`, other draws. Zeros where nothing is known."""
        if self.freedom < LEAST_FREEDOM:
            return np.zeros(times)
        return np.random.default_rng(number).choice(self.pool(metric), (times, seeds)).mean(1)


def verdicts(curves: Curves, real: Values, last: int) -> list[Verdict]:
    """Every direction and every order, held against the results.

    Args:
        curves: all results; rows at step `last` are compared with one another. Step 0 is the row "untrained".
        real: of real clips through the decoder, the end of a metric's way; [N] per value.
    """
    scatter = Scatter(curves, last)
    compared = [compare(direction, curves, last, scatter) for direction in DIRECTIONS]
    return compared + [compare_order(order, curves, real, scatter) for order in ORDERS]


def against_full(curves: Curves, last: int, metrics: Sequence[str]) -> dict[str, dict[str, Verdict]]:
    """Row -> metric -> how much more of it the row has than the full method; "holds": more, "reversed": less."""
    scatter = Scatter(curves, last)
    rows = [row.name for row in ROWS if row.name != "full" and last in curves.get(row.name, {})]
    return {
        row: {metric: compare(Direction("more", "", metric, row, "full"), curves, last, scatter) for metric in metrics}
        for row in rows
    }


def compare(direction: Direction, curves: Curves, last: int, scatter: Scatter) -> Verdict:
    """Bootstrap of the difference of two rows over the seeds that both have, with their pairs redrawn together."""
    measured = f"{direction.metric}: {direction.higher} > {direction.lower}"
    first, second = (curves.get(name, {}).get(last, {}) for name in (direction.higher, direction.lower))
    common = sorted(first.keys() & second.keys())
    if not common:
        return Verdict(direction.claim, direction.source, measured, "not measured")
    high, low = (stack([seeds[seed] for seed in common]) for seeds in (first, second))
    # Two ways of sampling from the same weights: no two trainings are compared, so seeds are redrawn like pairs.
    higher, lower = direction.higher, direction.lower
    same_weights = WEIGHTS.get(higher, higher) == WEIGHTS.get(lower, lower)
    resamples = draws(*high["mIoU"].shape, redraw_seeds=same_weights)
    drawn = np.array([
        statistic(direction.metric, high, *chosen) - statistic(direction.metric, low, *chosen) for chosen in resamples
    ])  # fmt: skip
    if not same_weights:
        # A row's draws are the same on either side, so that turning a question round turns its answer round.
        for sign, number in ((1, 1 + (higher > lower)), (-1, 1 + (lower > higher))):
            drawn += sign * scatter.draw(direction.metric, len(common), len(drawn), number)
    known = len(common) > 1 and (same_weights or scatter.freedom >= LEAST_FREEDOM)
    difference = statistic(direction.metric, high) - statistic(direction.metric, low)
    return judge(direction.claim, direction.source, measured, difference, drawn, known)


def compare_order(order: Order, curves: Curves, real: Values, scatter: Scatter) -> Verdict:
    """Bootstrap of the difference of the two metrics' mean shares of the way."""
    measured = f"{order.first} > {order.then}, {order.row}, mean share of the way over the checkpoints"
    steps = curves.get(order.row, {})
    start = curves.get("untrained", {}).get(0, {})
    common = sorted(set.intersection(*(set(seeds) for seeds in steps.values()))) if steps else []
    if not common or not start:
        return Verdict(order.claim, order.source, measured, "not measured")
    along = [stack([steps[step][seed] for seed in common]) for step in sorted(steps)]
    # One start and one end serve every seed: the base is the same.
    begin, end = (stack([values] * len(common)) for values in (next(iter(start.values())), real))
    chosen = draws(*begin["mIoU"].shape, redraw_seeds=False)

    def shares(metric: str, number: int) -> tuple[float, np.ndarray]:
        """The metric's share of the way, and its resamples."""

        def share(seeds: np.ndarray | None = None, pairs: np.ndarray | None = None) -> float:
            at_start, at_end = (statistic(metric, values, seeds, pairs) for values in (begin, end))
            gained = np.mean([statistic(metric, values, seeds, pairs) for values in along]) - at_start
            return float(gained) / (at_end - at_start) if at_end > at_start else 0.0

        way = statistic(metric, end) - statistic(metric, begin)
        noise = scatter.draw(metric, len(common), len(chosen), number)
        return share(), np.array([share(*one) for one in chosen]) + (noise / way if way > 0 else 0.0)

    (first, first_drawn), (then, then_drawn) = shares(order.first, 1), shares(order.then, 2)
    known = len(common) > 1 and scatter.freedom >= LEAST_FREEDOM
    return judge(order.claim, order.source, measured, first - then, first_drawn - then_drawn, known)


def judge(claim: str, source: str, measured: str, difference: float, drawn: np.ndarray, known: bool) -> Verdict:
    """ "holds" where the whole 95 % interval is above 0, "reversed" where it is below, else "not resolved".

    known: whether the scatter of the trainings is in `drawn`; if not, nothing is resolved."""
    low, high = interval(drawn)
    outcome: Outcome = "not resolved"
    if known:
        outcome = "holds" if low > 0 else "reversed" if high < 0 else outcome
    return Verdict(claim, source, measured, outcome, difference, low, high)
