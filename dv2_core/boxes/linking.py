"""One subject's track out of several candidates per frame: what a detector finds, or the components of a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .curves import Point, centre
from .interpolate import check_point, from_visible
from .track import Box, BoxTrack, check_length, clip, is_number, show

#: Candidates of a frame that are looked at, best scores first; a subject that is none of these is not found.
MOST = 16

#: A candidate goes on from another if it is this many box sides away per frame at most, counted by the mean of both.
REACH = 2.0

#: Frames that a candidate waits for the next one. The best track so far waits for ever.
MEMORY = 32


def from_detections(frames: Sequence[Sequence[tuple[Sequence[float], float]]], point: Sequence[float] | None = None,
                    obj_id: str = "0", label: str = "") -> BoxTrack:  # fmt: skip
    """One track through per-frame (box, score) candidates of any detector, hidden where none of them fits.

    frames: for each frame its candidates, possibly none: a box, fractions of the canvas (cut to it), and a score
        above 0, the higher the surer.
    point: (x, y) in the subject, fractions, in the first frame with candidates: the track starts with the candidate
        around it, or else nearest to it. None: the track may start anywhere.

    Of all tracks the one with the largest sum of score * (1 + continuity) is taken, found by dynamic programming as
    action tubes are linked (Gkioxari and Malik, CVPR 2015). Continuity, 0..1, is the mean of the overlap (IoU) with
    the track's last box and the nearness to it; a candidate further than REACH cannot go on from it.

    Raises ValueError for frames without any candidate, a score that is not above 0, a bad box or point.
    """
    check_length(len(frames))
    boxes, scores, times = _candidates(frames)
    if len(boxes) == 0:
        raise ValueError(
            f"None of the {len(frames)} frames has a candidate box; look for another word, lower the detector's "
            "threshold, or check that the subject is in the video."
        )
    start = None
    if point is not None:
        start = _nearest(boxes[times == times[0]], check_point(point, "the subject's point"))
    best = scores.copy()  # of the best track that ends with this candidate
    before = np.full(len(boxes), -1)  # that track's candidate before this one
    if start is not None:
        best[:] = -np.inf
        best[start] = scores[start]
    for t in np.unique(times)[1:]:
        now = np.flatnonzero(times == t)
        recent = np.flatnonzero((times < t) & (times >= t - MEMORY))
        pool = np.union1d(recent, best[: now[0]].argmax())
        total = best[pool][:, None] + scores[now] * (1 + _continuity(boxes, times, pool, now))  # [P, N]
        choice = total.argmax(0)
        gained = total[choice, np.arange(len(now))]
        before[now] = np.where(gained > best[now], pool[choice], -1)
        best[now] = np.maximum(gained, best[now])
    found: dict[int, Box] = {}
    i = int(best.argmax())
    while i >= 0:
        x1, y1, x2, y2 = boxes[i].tolist()
        found[int(times[i])] = (x1, y1, x2, y2)
        i = int(before[i])
    return from_visible(found, len(frames), obj_id, label)


def _candidates(
    frames: Sequence[Sequence[tuple[Sequence[float], float]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Boxes [C, 4], scores [C] and frame numbers [C] of the MOST best candidates of every frame, in order of frames."""
    boxes, scores, times = [], [], []
    for t, candidates in enumerate(frames):
        for _, score in candidates:
            if not is_number(score) or not math.isfinite(score) or score <= 0:
                raise ValueError(f"A candidate of frame {t} has the score {show(score)}; give a number above 0.")
        for box, score in sorted(candidates, key=lambda candidate: -candidate[1])[:MOST]:
            try:
                boxes.append(clip([box])[0])
            except ValueError as error:
                raise ValueError(str(error).replace("frame 0", f"frame {t}", 1)) from None
            scores.append(float(score))
            times.append(t)
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64), np.array(times, np.int64)


def _nearest(boxes: NDArray[np.float64], point: Point) -> int:
    """The smallest box around the point, or else the one whose centre is nearest."""

    def rank(i: int) -> tuple[bool, float]:
        x1, y1, x2, y2 = boxes[i].tolist()
        outside = not (x1 <= point[0] <= x2 and y1 <= point[1] <= y2)
        return outside, math.dist(centre((x1, y1, x2, y2)), point) if outside else (x2 - x1) * (y2 - y1)

    return min(range(len(boxes)), key=rank)


def _continuity(boxes: NDArray[np.float64], times: NDArray[np.int64], pool: NDArray[np.int64],
                now: NDArray[np.int64]) -> NDArray[np.float64]:  # fmt: skip
    """[P, N]: how well each candidate of `now` goes on from each of `pool`, 0..1; -inf where it cannot."""
    a, b = boxes[pool][:, None], boxes[now][None]  # [P, 1, 4], [1, N, 4]
    a_side, b_side = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    shared = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(-1)
    overlap = shared / (a_side.prod(-1) + b_side.prod(-1) - shared)
    way = (b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]) / (a_side + b_side)  # in box sides
    share = np.sqrt((way**2).sum(-1)) / (REACH * (times[now] - times[pool][:, None]))
    return np.where(share <= 1, (overlap + 1 - share) / 2, -np.inf)
