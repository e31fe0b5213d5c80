"""Which of the paper's directions the measurement shares: a difference of two rows, or an order along the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .measure import Draws, Values, draws, interval, stack, statistic

Outcome = Literal["holds", "reversed", "not resolved", "not measured"]
Seeds = Mapping[int, Values]
"""The results of one row at one step, by seed."""
Difference = Callable[[np.ndarray | None, np.ndarray | None], float]
"""Of the numbers of the drawn seeds and pairs (None: all, once)."""
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
    Direction("attention outputs as features give more identity than hidden states", OURS, "colour", "full",
              "hidden-features"),
    Direction("knowing places in the box gives more identity", OURS, "margin", "box-position", "full"),
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


def verdicts(curves: Curves, real: Values, last: int) -> list[Verdict]:
    """Every direction and every order, held against the results.

    Args:
        curves: all results; rows at step `last` are compared with one another. Step 0 is the row "untrained".
        real: of real clips through the decoder, the end of a metric's way; [N] per value.
    """
    compared = [compare(direction, curves, last) for direction in DIRECTIONS]
    return compared + [compare_order(order, curves, real) for order in ORDERS]


def compare(direction: Direction, curves: Curves, last: int) -> Verdict:
    """Paired bootstrap of the difference of two rows over the seeds that both have, and over their pairs."""
    measured = f"{direction.metric}: {direction.higher} > {direction.lower}"
    first, second = (curves.get(name, {}).get(last, {}) for name in (direction.higher, direction.lower))
    common = sorted(first.keys() & second.keys())
    if not common:
        return Verdict(direction.claim, direction.source, measured, "not measured")
    high, low = (stack([seeds[seed] for seed in common]) for seeds in (first, second))

    def difference(seeds: np.ndarray | None, pairs: np.ndarray | None) -> float:
        high_value, low_value = (statistic(direction.metric, values, seeds, pairs) for values in (high, low))
        return high_value - low_value

    return judge(direction.claim, direction.source, measured, difference, bootstrap_of(high))


def compare_order(order: Order, curves: Curves, real: Values) -> Verdict:
    """Paired bootstrap of the difference of the two metrics' mean shares of the way."""
    measured = f"{order.first} > {order.then}, {order.row}, mean share of the way over the checkpoints"
    steps = curves.get(order.row, {})
    start = curves.get("untrained", {}).get(0, {})
    common = sorted(set.intersection(*(set(seeds) for seeds in steps.values()))) if steps else []
    if not common or not start:
        return Verdict(order.claim, order.source, measured, "not measured")
    along = [stack([steps[step][seed] for seed in common]) for step in sorted(steps)]
    # One start and one end serve every seed: the base is the same.
    begin, end = (stack([values] * len(common)) for values in (next(iter(start.values())), real))

    def share(metric: str, seeds: np.ndarray | None, pairs: np.ndarray | None) -> float:
        at_start, at_end = (statistic(metric, values, seeds, pairs) for values in (begin, end))
        gained = np.mean([statistic(metric, values, seeds, pairs) for values in along]) - at_start
        return float(gained) / (at_end - at_start) if at_end > at_start else 0.0

    def difference(seeds: np.ndarray | None, pairs: np.ndarray | None) -> float:
        return share(order.first, seeds, pairs) - share(order.then, seeds, pairs)

    return judge(order.claim, order.source, measured, difference, bootstrap_of(begin))


def bootstrap_of(values: Values) -> Draws:
    return draws(*values["mIoU"].shape)


def judge(claim: str, source: str, measured: str, difference: Difference, resamples: Draws) -> Verdict:
    """ "holds" where the whole 95 % interval is above 0, "reversed" where it is below, else "not resolved"."""
    low, high = interval([difference(seeds, pairs) for seeds, pairs in resamples])
    outcome: Outcome = "holds" if low > 0 else "reversed" if high < 0 else "not resolved"
    return Verdict(claim, source, measured, outcome, difference(None, None), low, high)
