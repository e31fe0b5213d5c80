"""Boxes and masks of clips: pixels, fractions, overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import rle
from ..boxes import Box, from_masks
from ..manifest import PixelBox
from .clip import Clip, Rle


def first_box(clip: Clip) -> tuple[PixelBox, int]:
    """The subject's first known box and its frame, counted from the video's start. ValueError if there is none."""
    if clip.start:
        return clip.start, clip.first if clip.ref_frame is None else clip.ref_frame
    for n, number in enumerate(range(*clip.span)):
        box = clip.boxes[n] if clip.boxes else box_of(clip.masks[n]) if clip.masks else None
        if box:
            return box, number
    raise ValueError("the subject is in none of the frames")


def box_of(mask: Rle | None) -> PixelBox | None:
    """The tight box around a mask that is not empty."""
    if mask is None:
        return None
    height, width = mask["size"]
    pixels = torch.from_numpy(np.ascontiguousarray(rle.decode(mask)))[None].float()
    return in_pixels(from_masks(pixels).boxes[0], width, height)


def enlarged(masks: Tensor, clip: Clip) -> np.ndarray:
    """Masks bool [F, h, w] in the size of the video."""
    size = (clip.height, clip.width)
    if tuple(masks.shape[1:]) == size:
        return masks.numpy()
    grown = (F.interpolate(mask[None, None].float(), size, mode="bilinear")[0, 0] > 0.5 for mask in masks)
    return np.stack([mask.numpy() for mask in grown])


def in_pixels(box: Box, width: int, height: int) -> PixelBox:
    """Fractions -> pixels of the frame, to a hundredth."""
    x1, y1, x2, y2 = box
    return round(x1 * width, 2), round(y1 * height, 2), round(x2 * width, 2), round(y2 * height, 2)


def in_fractions(box: PixelBox, clip: Clip) -> Box:
    """Pixels -> fractions of the frame, cut to it."""
    x1, y1, x2, y2 = box
    w, h = clip.width, clip.height
    return max(0.0, x1 / w), max(0.0, y1 / h), min(1.0, x2 / w), min(1.0, y2 / h)


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Overlap of two boxes: intersection over union, 0..1."""
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
