"""The core's MASK: one subject as white pixels, one picture per frame."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..masks import from_masks
from ..plan import BoxPlan
from ..raster import rasterize
from ..track import check_canvas
from .bounding_box import only_track
from .common import check_frames, shown


def read(value: Any, width: int, height: int, length: int | None = None, fps: float = 8.0) -> BoxPlan:
    """MASK [F, H, W], 0..1 -> the tight boxes of one subject (`from_masks`), as fractions of the mask's own size.

    Raises ValueError, a sentence, for another shape, NaN, a mask that is empty in all frames, and another length.
    """
    check_canvas(width, height)
    if not isinstance(value, Tensor) or value.ndim != 3 or value.is_complex():
        raise ValueError(f"The mask is {shown(value)}; give a MASK, one picture per frame, [frames, height, width].")
    check_frames(value.shape[0], length, "masks")
    return BoxPlan((from_masks(value),), width, height, fps)


def write(plan: BoxPlan) -> Tensor:
    """One subject's masks [F, height, width] float32: 1 inside the box, 0 where it is hidden."""
    return rasterize(only_track(plan), plan.width, plan.height)
