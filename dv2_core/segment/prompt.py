"""Where the subject is in one picture, as a box and points: what a segmenter is asked with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..boxes import Box
from ..boxes.track import check_box, is_number, show

Point = tuple[float, float]

FORMS = (
    "a point [x, y], a box [x1, y1, x2, y2], several points [[x, y], ...], or "
    '{"box": [x1, y1, x2, y2], "points": [[x, y], ...], "outside": [[x, y], ...]}'
)


@dataclass(frozen=True)
class Prompt:
    """A box around the subject, points on it, points beside it; fractions of the picture.

    Raises ValueError when there is neither a box nor a point on the subject, and for what lies outside the picture.
    """

    box: Box | None = None
    points: tuple[Point, ...] = ()
    outside: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        if self.box is None and not self.points:
            raise ValueError("Neither a box nor a point says where the subject is; give one of them.")
        if self.box is not None:
            object.__setattr__(self, "box", check_box(self.box, "the subject"))
        for x, y in (*self.points, *self.outside):
            if not (0 <= x <= 1 and 0 <= y <= 1):
                raise ValueError(f"The point {show([x, y])} lies outside the picture 0..1; points are fractions of it.")


def parse_prompt(text: str, width: int, height: int) -> Prompt:
    """A prompt from JSON in pixels of a width x height picture, in one of the FORMS.

    Raises ValueError with a sentence for other text, and for boxes and points that leave the picture.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{show(text)} is not valid JSON ({str(error)[:80]}). Accepted: {FORMS}.") from error
    if not isinstance(value, dict):
        flat = isinstance(value, list) and len(value) in (2, 4) and all(map(is_number, value))
        value = {"points": value} if not flat else {"points": [value]} if len(value) == 2 else {"box": value}
    unknown = sorted(set(value) - {"box", "points", "outside"})
    if unknown:
        raise ValueError(f"{show(text)} has the unknown entry {unknown[0]!r}. Accepted: {FORMS}.")
    box = value.get("box")
    return Prompt(
        None if box is None else _box(box, width, height),
        _points(value.get("points", []), width, height),
        _points(value.get("outside", []), width, height),
    )


def parse_point(text: str, width: int, height: int) -> Point:
    """One point, fractions, from JSON [x, y] in pixels of a width x height picture.

    Raises ValueError as `parse_prompt` does, and for any other of its FORMS.
    """
    prompt = parse_prompt(text, width, height)
    if prompt.box is not None or prompt.outside or len(prompt.points) != 1:
        raise ValueError(f"{show(text)} is not one point; give [x, y] in pixels.")
    return prompt.points[0]


def _box(value: Any, width: int, height: int) -> Box:
    x1, y1, x2, y2 = _numbers(value, 4, "box")
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(
            f"The box {show(value)} does not lie in the picture of {width}x{height} pixels; order it as "
            f"[x1, y1, x2, y2] with 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}."
        )
    return x1 / width, y1 / height, x2 / width, y2 / height


def _points(value: Any, width: int, height: int) -> tuple[Point, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{show(value)} is no list of points. Accepted: {FORMS}.")
    points = []
    for entry in value:
        x, y = _numbers(entry, 2, "point")
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"The point {show(entry)} lies outside the picture of {width}x{height} pixels; move it.")
        points.append((x / width, y / height))
    return tuple(points)


def _numbers(value: Any, count: int, name: str) -> Sequence[float]:
    if not isinstance(value, list) or len(value) != count or not all(map(is_number, value)):
        raise ValueError(f"{show(value)} is no {name} of {count} numbers. Accepted: {FORMS}.")
    try:
        return [float(v) for v in value]
    except OverflowError as error:
        raise ValueError(f"{show(value)} is too large for a position. Accepted: {FORMS}.") from error
