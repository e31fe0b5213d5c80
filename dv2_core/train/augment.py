"""The subject image of a training clip: one of its frames, cut out by its mask, changed, on white.

The paper takes a random frame and no changes; its stated weakness is a copied look where the pose should change, for
which changes of the subject image are the suggested cure (arXiv 2410.13830, limitations).
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from ..subject import SUBJECT_SIDE, place_on_canvas
from .data_config import AugmentConfig

ANGLE = 15.0  # degrees, either way
FILL = (0.60, 0.95)  # longest side in shorter sides of the canvas
COLOUR = 0.15  # change of brightness, contrast, saturation, either way
CROP = 0.25  # most that is cut off, in sides of the subject

#: A cut-out with a shorter longest side shows too little to learn an appearance from, in pixels of the video.
SMALLEST = 16


def large_enough(mask: np.ndarray) -> bool:
    """Whether the subject of a mask [H, W] is at least SMALLEST pixels wide or high."""
    return max(np.ptp(np.flatnonzero(mask.any(axis))) + 1 if mask.any() else 0 for axis in (0, 1)) >= SMALLEST


def subject_picture(
    pixels: np.ndarray, mask: np.ndarray, size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> Tensor:
    """The subject on a white canvas: [3, height, width] in 0..1.

    pixels: [H, W, 3] uint8; mask: [H, W] bool, not empty; size: (width, height) of the canvas. The same generator
    state gives the same picture, and a chance that is changed leaves the other changes as they were.
    """
    chance = rng.uniform(size=5)
    side, cut, angle, fill = int(rng.integers(4)), rng.uniform(0, CROP), rng.uniform(-ANGLE, ANGLE), rng.uniform(*FILL)
    colour = rng.uniform(1 - COLOUR, 1 + COLOUR, 3)

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    rgba = np.dstack([pixels[window], mask[window].astype(np.uint8) * 255])  # [h, w, 4]
    if chance[0] < config.crop:
        # Seen from side 0 (top), 1, 2, 3 by turning, so that one cut serves all.
        turned = np.rot90(rgba, side)
        rest = turned[round(cut * turned.shape[0]) :]
        rgba = np.rot90(rest if rest[..., 3].any() else turned, -side)
    if chance[1] < config.mirror:
        rgba = rgba[:, ::-1]
    picture = Image.fromarray(np.ascontiguousarray(rgba), "RGBA")
    if chance[2] < config.colour:
        solid, alpha = picture.convert("RGB"), picture.getchannel("A")
        for enhance, factor in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), colour, strict=True
        ):
            solid = enhance(solid).enhance(float(factor))
        picture = Image.merge("RGBA", (*solid.split(), alpha))
    if chance[3] < config.rotate:
        # Premultiplied, so that hidden colours do not bleed into the edge.
        picture = picture.convert("RGBa").rotate(angle, Image.Resampling.BICUBIC, expand=True).convert("RGBA")
    layers = torch.from_numpy(np.array(picture)).float() / 255  # [h, w, 4]
    placed = place_on_canvas(layers[..., :3], layers[..., 3], *size, fill if chance[4] < config.scale else SUBJECT_SIDE)
    return placed[0].permute(2, 0, 1).contiguous()
