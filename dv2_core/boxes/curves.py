"""Lines through points (u, x, y), as functions of u: a time, a way, in whatever unit; u ascends from point to point."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from .track import Box

Point = tuple[float, float]
TimedPoint = tuple[float, float, float]


def centre(box: Box) -> Point:
    """The middle of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def polyline(points: Sequence[TimedPoint]) -> Callable[[float], Point]:
    """Straight between the points; held before the first and after the last."""

    def between(k: int, part: float) -> Point:
        (_, x0, y0), (_, x1, y1) = points[k], points[k + 1]
        return x0 + (x1 - x0) * part, y0 + (y1 - y0) * part

    return _through(points, between)


def catmull_rom(points: Sequence[TimedPoint]) -> Callable[[float], Point]:
    """A smooth curve through at least two points, u strictly ascending; held before the first and after the last.

    Cubic Hermite pieces with the Catmull-Rom tangents m_k = (p_{k+1} - p_{k-1}) / (u_{k+1} - u_{k-1}), one-sided at
    the ends.
    """
    last = len(points) - 1
    slopes = [_slope(points[max(k - 1, 0)], points[min(k + 1, last)]) for k in range(last + 1)]

    def between(k: int, part: float) -> Point:
        span = points[k + 1][0] - points[k][0]
        h01 = part * part * (3 - 2 * part)
        h10, h11 = part * (1 - part) * (1 - part) * span, part * part * (part - 1) * span
        corners = zip(points[k][1:], points[k + 1][1:], slopes[k], slopes[k + 1], strict=True)
        x, y = (p + (q - p) * h01 + m * h10 + n * h11 for p, q, m, n in corners)
        return x, y

    return _through(points, between)


def _through(points: Sequence[TimedPoint], between: Callable[[int, float], Point]) -> Callable[[float], Point]:
    """u -> between(k, part): the share `part` of the way from point k to the next; held at the ends."""
    starts = [point[0] for point in points]

    def at(u: float) -> Point:
        k = bisect_right(starts, u) - 1
        if k < 0 or k == len(points) - 1:
            return points[max(k, 0)][1:]
        return between(k, (u - starts[k]) / (starts[k + 1] - starts[k]))

    return at


def _slope(a: TimedPoint, b: TimedPoint) -> Point:
    return (b[1] - a[1]) / (b[0] - a[0]), (b[2] - a[2]) / (b[0] - a[0])
