"""Lag, trembling and size of smoothed box tracks, for the filters that were candidates of `dv2_core.boxes.smooth`.

Known motions with the noise of a segmenter (every edge trembles by 2 % of the box's side; one edge in twenty slips by
up to half of it) are smoothed and compared with the truth. The output is the table in that function's docstring.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, median_filter, uniform_filter1d
from scipy.signal import savgol_filter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dv2_core.boxes import BoxTrack, smooth  # noqa: E402

Array = NDArray[np.float64]
FRAMES, SEEDS, TREMBLE, SLIPS = 49, 20, 0.02, 0.05


def motions() -> Iterator[Array]:
    """Boxes [FRAMES, 4]: straight, eased, in a circle, thrown back twice, and growing threefold."""
    t = np.linspace(0, 1, FRAMES)
    eased, thrown = t * t * (3 - 2 * t), np.abs(3 * t % 2 - 1)
    yield boxes(0.2 + 0.6 * t, 0.3 + 0.3 * t, 0.2 + 0 * t, 0.3 + 0 * t)
    yield boxes(0.2 + 0.6 * eased, 0.3 + 0.3 * eased, 0.2 + 0 * t, 0.3 + 0 * t)
    yield boxes(0.5 + 0.25 * np.cos(3 * np.pi * t), 0.5 + 0.25 * np.sin(3 * np.pi * t), 0.2 + 0 * t, 0.3 + 0 * t)
    yield boxes(0.2 + 0.6 * thrown, 0.5 + 0 * t, 0.2 + 0 * t, 0.3 + 0 * t)
    yield boxes(0.4 + 0.1 * t, 0.5 + 0 * t, 0.15 * 3**t, 0.2 * 3**t)


def boxes(x: Array, y: Array, width: Array, height: Array) -> Array:
    return np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)


def sides(track: Array) -> Array:
    """[F, 4]: width, height, width, height."""
    return np.tile(track[:, 2:] - track[:, :2], 2)


def observe(truth: Array, rng: np.random.Generator) -> Array:
    """What a segmenter sees: trembling edges, and slips that cut a part off or take one in."""
    seen = truth + rng.normal(size=truth.shape) * TREMBLE * sides(truth)
    slips = rng.random(truth.shape) < SLIPS
    inwards = rng.uniform(-0.3, 0.5, truth.shape) * np.array([1, 1, -1, -1])
    return np.clip(seen + slips * inwards * sides(truth), 0, 1)


def middles(track: Array) -> Array:
    return (track[:, :2] + track[:, 2:]) / 2


def on_middle_and_size(filtered: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A filter of edges as one of the centre and the logarithm of the sides."""

    def apply(track: Array) -> Array:
        values = filtered(np.concatenate([middles(track), np.log(track[:, 2:] - track[:, :2])], 1))
        return boxes(values[:, 0], values[:, 1], np.exp(values[:, 2]), np.exp(values[:, 3]))

    return apply


def running(track: Array) -> Array:
    """Exponential mean, the live trackers' filter: it knows no later frame."""
    mean = track.copy()
    for t in range(1, len(track)):
        mean[t] = 0.4 * track[t] + 0.6 * mean[t - 1]
    return mean


def median(track: Array) -> Array:
    return median_filter(track, size=(5, 1), mode="nearest")


def gaussian(track: Array) -> Array:
    return gaussian_filter1d(track, 2.0, axis=0, mode="nearest")


def quadratic(track: Array) -> Array:
    return np.asarray(savgol_filter(track, 9, 2, axis=0, mode="interp"), np.float64)


FILTERS: dict[str, Callable[[Array], Array]] = {
    "as observed": lambda track: track,
    "exponential mean 0.4, edges": running,
    "mean of 7, edges": lambda track: uniform_filter1d(track, 7, axis=0, mode="nearest"),
    "Gaussian 2, edges": gaussian,
    "Savitzky-Golay 9": on_middle_and_size(quadratic),
    "median 5 + Gaussian 2": on_middle_and_size(lambda track: gaussian(median(track))),
    "median 5 + Savitzky-Golay 9, edges": lambda track: quadratic(median(track)),
    "smooth": lambda track: np.array(smooth(BoxTrack(tuple(map(tuple, track.tolist())))).boxes),
}


def overlap(a: Array, b: Array) -> Array:
    """[F]: IoU per frame."""
    shared = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0).prod(1)
    return shared / (sides(a)[:, :2].prod(1) + sides(b)[:, :2].prod(1) - shared)


def measure(filtered: Callable[[Array], Array]) -> list[float]:
    """Lag in frames, in the middle and over the last three; trembling and size in %; IoU, mean and of the worst frame.

    Lag is the error of the centre along the motion over the speed; trembling the second difference of the error of the
    edges, in box sides, root mean square; size the mean error of the sides.
    """
    lag, end, tremble, size, ious = [], [], [], [], []
    for truth in motions():
        speed = np.gradient(middles(truth), axis=0)
        for seed in range(SEEDS):
            found = filtered(observe(truth, np.random.default_rng(seed)))
            late = (middles(truth) - middles(found)) * speed
            lag.append((late[3:-3].sum(), (speed[3:-3] ** 2).sum()))
            end.append((late[-3:].sum(), (speed[-3:] ** 2).sum()))
            tremble.append((np.diff((found - truth) / sides(truth), 2, axis=0) ** 2).mean())
            size.append(np.log(sides(found) / sides(truth)).mean())
            ious.append(overlap(found, truth))
    lags = [late / speed for late, speed in (np.sum(lag, 0), np.sum(end, 0))]
    worst = np.mean([iou.min() for iou in ious])
    return [*lags, 100 * np.mean(tremble) ** 0.5, 100 * float(np.mean(size)), float(np.mean(ious)), float(worst)]


def main() -> None:
    print(f"{'filter':36}{'lag':>7}{'at end':>8}{'tremble':>9}{'size':>7}{'IoU':>7}{'worst':>7}")
    for name, filtered in FILTERS.items():
        lag, end, tremble, size, iou, worst = measure(filtered)
        print(f"{name:36}{lag:7.2f}{end:8.2f}{tremble:8.1f}%{size:6.1f}%{iou:7.3f}{worst:7.3f}")


if __name__ == "__main__":
    main()
