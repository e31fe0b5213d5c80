"""One subject's track out of several candidates per frame: what a detector finds, or the pieces of a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .curves import centre
from .interpolate import check_point, from_visible
from .track import Box, BoxTrack, check_length, clip, is_number, show

#: A subject moves at most this many times its own size per frame; what lies further away is something else.
REACH = 1.0


def from_detections(frames: Sequence[Sequence[tuple[Sequence[float], float]]], point: Sequence[float] | None = None,
                    obj_id: str = "0", label: str = "") -> BoxTrack:  # fmt: skip
    """One track through per-frame (box, score) candidates of any detector, hidden where none of them fits.

    frames: for each frame its candidates, possibly none: a box, fractions of the canvas (cut to it), and a score
        above 0, the higher the surer.
    point: (x, y) in the subject, fractions, in the first frame that has candidates: the track starts with the
        smallest box around it, or else the nearest one. None: it starts with the highest score of all frames.

    From its start the track goes forwards and backwards, in every frame to the candidate that fits its last box best:
    the mean of their overlap (IoU) and nearness. A candidate further than REACH per frame since then does not fit, so
    a subject that is away is not replaced by another one. Scores count for the start only: a surer neighbour does not
    take the track over.

    Raises ValueError for frames without any candidate, a score that is not above 0, a bad box or point.
    """
    check_length(len(frames))
    candidates = [[_check(box, score, t) for box, score in frame] for t, frame in enumerate(frames)]
    seen = [t for t, found in enumerate(candidates) if found]
    if not seen:
        raise ValueError(
            f"None of the {len(frames)} frames has a candidate box; look for another word, lower the detector's "
            "threshold, or check that the subject is in the video."
        )
    if point is None:
        start = max(seen, key=lambda t: max(score for _, score in candidates[t]))
        first = max(candidates[start], key=lambda candidate: candidate[1])[0]
    else:
        start, place = seen[0], check_point(point, "the subject's point")
        first = min((box for box, _ in candidates[start]), key=lambda box: _distance(box, place))
    found = {start: first}
    for frames_on in (range(start + 1, len(frames)), range(start - 1, -1, -1)):
        last, box = start, first
        for t in frames_on:
            fits = [(_fit(box, other, abs(t - last)), other) for other, _ in candidates[t]]
            best = max(fits, key=lambda fit: fit[0], default=(0.0, box))
            if best[0] > 0:
                last, box = t, best[1]
                found[t] = box
    return from_visible(found, len(frames), obj_id, label)


def _check(box: Sequence[float], score: float, t: int) -> tuple[Box, float]:
    """A candidate of frame t, its box cut to the canvas."""
    if not is_number(score) or not math.isfinite(score) or score <= 0:
        raise ValueError(f"A candidate of frame {t} has the score {show(score)}; give a number above 0.")
    return clip([box], first=t)[0], float(score)


def _distance(box: Box, point: tuple[float, float]) -> tuple[bool, float]:
    """Sorts boxes around the point first, small ones before large ones, and the others by the way to their centre."""
    x1, y1, x2, y2 = box
    if x1 <= point[0] <= x2 and y1 <= point[1] <= y2:
        return False, (x2 - x1) * (y2 - y1)
    return True, math.dist(centre(box), point)


def _fit(a: Box, b: Box, frames: int) -> float:
    """How well b goes on from a after that many frames: 1 for the same box, 0 or less out of reach."""
    (ax, ay), (bx, by) = centre(a), centre(b)
    a_width, a_height, b_width, b_height = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    way = math.hypot((bx - ax) / (a_width + b_width) * 2, (by - ay) / (a_height + b_height) * 2)  # in mean sizes
    nearness = 1 - way / (REACH * frames)
    if nearness <= 0:
        return 0.0
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    return (shared / (a_width * a_height + b_width * b_height - shared) + nearness) / 2
