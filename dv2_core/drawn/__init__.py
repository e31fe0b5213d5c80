"""Subjects drawn by this package's own code: the only pictures it ships, and a tiny atlas for tests."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def subject_names() -> tuple[str, ...]:
    """The names of all subjects, in the order of `drawn_subjects`."""
    from .subjects import SUBJECTS

    return tuple(subject.__name__ for subject in SUBJECTS)


def drawn_subjects() -> dict[str, Image]:
    """All subjects by name, in a fixed order: RGBA pictures of 256 x 256 with a clean alpha, the same on every call."""
    return {name: draw_subject(name) for name in subject_names()}


def draw_subject(name: str) -> Image:
    """One subject of `drawn_subjects`. Raises ValueError for a name that there is not."""
    if name not in subject_names():
        raise ValueError(f"There is no drawn subject {name!r}; choose from {', '.join(subject_names())}.")
    return _draw(name).copy()


@cache
def _draw(name: str) -> Image:
    from .brush import Brush
    from .subjects import SUBJECTS

    brush = Brush()
    SUBJECTS[subject_names().index(name)](brush)
    return brush.finish()
