"""Where a token lies relative to its box, for reference attention with ``ref_position = "box"``.

Not in the paper. A token of the video and a token of the subject image that show the same part of the subject get the
same place: the video's box and the subject's extent on its canvas are both measured from the centre, in longest sides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..subject import SUBJECT_SIDE

CHANNELS = 16  # two axes x four frequencies x (sine, cosine)


def subject_frame(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """The subject's extent on a canvas of height x width (any unit), as :func:`box_frames` gives it: [1, 4]."""
    side = SUBJECT_SIDE * min(height, width)
    return torch.tensor([[0.5, 0.5, width / side, height / side]], device=device)


def box_frames(masks: Tensor) -> Tensor:
    """The coordinate frame of every box: [N, 1, H, W], 1 inside -> [N, 4] float32: centre x, y and scale x, y.

    A point (x, y) in 0..1 of the picture lies at ((x - centre x) * scale x, (y - centre y) * scale y): -0.5..0.5 along
    the box's longest side. An empty mask has scale 0.
    """
    height, width = masks.shape[2:]
    inside = masks[:, 0] > 0.5

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:  # bool [N, L] -> first and last + 1, in 0..L
        at = torch.arange(line.shape[1], device=line.device)
        return torch.where(line, at, line.shape[1]).amin(1), torch.where(line, at + 1, 0).amax(1)

    (x0, x1), (y0, y1) = ends(inside.any(1)), ends(inside.any(2))
    side = torch.maximum(x1 - x0, y1 - y0).clamp_min(1)
    visible = inside.flatten(1).any(1)
    frames = torch.stack([(x0 + x1) / (2 * width), (y0 + y1) / (2 * height), width / side, height / side], dim=1)
    return torch.where(visible[:, None], frames, 0.0)


def places(frames: Tensor, height: int, width: int) -> Tensor:
    """Fourier features of every token's place: frames [N, 4], tokens height x width -> [N, height * width, 16].

    All zero where a frame has no box. Tokens more than a longest side away count as that far.
    """
    y, x = (((torch.arange(n, device=frames.device) + 0.5) / n)[None] for n in (height, width))  # [1, h], [1, w]
    u = ((x - frames[:, :1]) * frames[:, 2:3]).clamp(-1, 1)[:, None, :].expand(-1, height, -1)  # [N, h, w]
    v = ((y - frames[:, 1:2]) * frames[:, 3:]).clamp(-1, 1)[:, :, None].expand(-1, -1, width)
    frequencies = torch.pi * 2.0 ** torch.arange(4, device=frames.device)
    angles = torch.stack([u, v], dim=-1)[..., None] * frequencies  # [N, h, w, 2, 4]
    features = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(3).flatten(1, 2)  # [N, h * w, 16]
    return features * (frames[:, 2] > 0)[:, None, None]
