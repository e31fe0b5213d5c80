"""What the boxes of a training were like, for the adapter's file: boxes far from it are warned of before sampling."""

from __future__ import annotations

import numpy as np

from ..boxes import from_masks
from ..boxes.preflight import areas, speeds
from .data import Data

#: Clips that are looked at; percentiles of so many are sure enough for a warning.
CLIPS = 128


def box_range(data: Data, num_frames: int, clips: int = CLIPS) -> dict[str, float | list[float]]:
    """Of the first clips of the training, left to the data's own order.

    Returns:
        {"fastest": 99th percentile of the speeds in canvas heights per frame, "area": [1st, 99th percentile of the
        boxes' share of the canvas]}; no frame's rarity sets the range. Empty if no clip shows its subject.
    """
    fast: list[float] = []
    large: list[float] = []
    seen = step = 0
    while seen < clips:
        masks = data.batch(step).masks.cpu()  # [B * F, 1, H, W]
        for clip in masks[:, 0].unflatten(0, (-1, num_frames)):
            if bool((clip > 0.5).any()):
                track = from_masks(clip)
                fast += speeds(track, clip.shape[2] / clip.shape[1]).values()
                large += areas(track).values()
        seen, step = seen + len(masks) // num_frames, step + 1
    if not large:
        return {}
    smallest, largest = np.percentile(large, (1, 99))
    fastest = float(np.percentile(fast, 99)) if fast else 0.0
    return {"fastest": round(fastest, 4), "area": [round(float(smallest), 4), round(float(largest), 4)]}
