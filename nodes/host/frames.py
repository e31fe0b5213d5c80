"""Pictures that a node draws on, whatever is connected."""

from __future__ import annotations

import torch

GREY = 0.12  # of a canvas without a picture: dark, so that the boxes' colours stand out
SIDE = 256  # a smaller empty canvas is enlarged by whole pixels to at least this, so that numbers can be read


def under_boxes(background: torch.Tensor | None, length: int, width: int, height: int) -> torch.Tensor:
    """IMAGE [length, H, W, 3] to draw boxes on.

    background: [F, H, W, 3 or 4] of any size; with another number of frames than `length`, the frames nearest in time,
        first on first and last on last. None: an empty canvas of width x height, enlarged.
    """
    if background is None:
        scale = max(1, -(-SIDE // min(width, height)))
        return torch.full((length, height * scale, width * scale, 3), GREY)
    if background.ndim != 4 or 0 in background.shape or background.shape[-1] not in (3, 4):
        raise ValueError(f"The background has shape {list(background.shape)}; connect a picture or a video's frames.")
    if len(background) != length:
        background = background[torch.linspace(0, len(background) - 1, length).round().long()]
    return background[..., :3]
