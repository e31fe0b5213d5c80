"""Subjects drawn by this package's own code: the only pictures it ships, and a tiny atlas for tests."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def drawn_subjects() -> dict[str, Image]:
    """All subjects by name, in a fixed order: RGBA pictures of 256 x 256 with a clean alpha, the same on every call."""
    return {name: picture.copy() for name, picture in _draw().items()}


@cache
def _draw() -> dict[str, Image]:
    from .brush import Brush
    from .subjects import SUBJECTS

    pictures: dict[str, Image] = {}
    for subject in SUBJECTS:
        brush = Brush()
        subject(brush)
        pictures[subject.__name__] = brush.finish()
    return pictures
