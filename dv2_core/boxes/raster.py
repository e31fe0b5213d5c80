"""Box tracks as pixels: binary masks for the model, outlines for people."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .track import BoxTrack, check_canvas, pixel_edges

#: Outline colours by position of the track; far apart in hue and readable on dark and light frames.
COLOURS = (
    (1.00, 0.25, 0.20),
    (0.10, 0.65, 1.00),
    (0.20, 0.85, 0.30),
    (1.00, 0.75, 0.00),
    (0.85, 0.30, 1.00),
    (0.00, 0.85, 0.80),
)

#: Digits 0..9 in 3 x 5 pixels, one row of three bits per octal digit.
DIGITS = (0o75557, 0o26227, 0o71747, 0o71717, 0o55711, 0o74717, 0o74757, 0o71111, 0o75757, 0o75717)


def rasterize(track: BoxTrack, width: int, height: int) -> Tensor:
    """Masks [F, height, width] float32: 1 where a pixel's centre is inside the frame's box, 0 outside.

    A visible box covers at least one pixel, however thin; a hidden frame is all 0. This is M of the paper.
    Raises ValueError for a canvas without pixels.
    """
    check_canvas(width, height)
    edges = [pixel_edges(box, width, height) for box in track.boxes]
    return _fill_edges(edges, track.visible, width, height, torch.device("cpu")).float()


def draw_boxes(frames: Tensor, tracks: BoxTrack | Sequence[BoxTrack], numbers: bool = False) -> Tensor:
    """Outlines of the boxes over a copy of the frames, for looking at.

    frames: [F, H, W, 3], 0..1. tracks: one or several tracks of F frames each, coloured in the order of COLOURS;
        hidden frames get no outline. Lines lie inside the box: 1 pixel wide, 2 from a shorter side of 256 pixels on.
    numbers: also write each frame's number into the upper left corner of its boxes.

    Raises ValueError for frames of another shape and for a track of another length.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"The frames have shape {list(frames.shape)}; give an RGB video [frames, height, width, 3].")
    length, height, width, _ = frames.shape
    line = 2 if min(height, width) >= 256 else 1
    drawn = frames.clone()
    for i, track in enumerate([tracks] if isinstance(tracks, BoxTrack) else tracks):
        if track.length != length:
            raise ValueError(
                f"Box track {i} has {track.length} frames and the video {length}; resample the boxes to {length}."
            )
        colour = torch.tensor(COLOURS[i % len(COLOURS)], dtype=drawn.dtype, device=drawn.device)
        edges = [pixel_edges(box, width, height) for box in track.boxes]
        inner = [(left + line, top + line, right - line, bottom - line) for left, top, right, bottom in edges]
        outline = _fill_edges(edges, track.visible, width, height, drawn.device)  # [F, H, W]
        outline &= ~_fill_edges(inner, track.visible, width, height, drawn.device)
        drawn = torch.where(outline[..., None], colour, drawn)
        if numbers:
            for t in range(length):
                if track.visible[t]:
                    _write_number(drawn[t], t, edges[t][0], edges[t][1], line, colour)
    return drawn


def _fill_edges(
    edges: Sequence[tuple[int, int, int, int]],
    visible: Sequence[bool],
    width: int,
    height: int,
    device: torch.device,
) -> Tensor:
    """[F, H, W] bool: inside left <= x < right, top <= y < bottom of each visible frame."""
    left, top, right, bottom = torch.tensor(edges, device=device)[:, None].unbind(-1)  # 4 x [F, 1]
    x, y = torch.arange(width, device=device), torch.arange(height, device=device)
    columns = (x >= left) & (x < right)  # [F, W]
    rows = (y >= top) & (y < bottom)  # [F, H]
    rows &= torch.tensor(visible, device=device)[:, None]
    return rows[:, :, None] & columns[:, None, :]


def _write_number(frame: Tensor, number: int, left: int, top: int, scale: int, colour: Tensor) -> None:
    """Writes `number` in white on a plate of `colour` into frame [H, W, 3]; cut off where the frame ends."""
    rows = [[0] * (4 * len(str(number)) + 1) for _ in range(7)]
    for i, digit in enumerate(str(number)):
        for y in range(5):
            bits = DIGITS[int(digit)] >> 3 * (4 - y) & 7
            for x in range(3):
                rows[y + 1][4 * i + 1 + x] = bits >> (2 - x) & 1
    plate = torch.tensor(rows, dtype=torch.bool, device=frame.device)
    plate = plate.repeat_interleave(scale, 0).repeat_interleave(scale, 1)  # [7s, (4n+1)s]
    patch = frame[top : top + plate.shape[0], left : left + plate.shape[1]]
    ink = plate[: patch.shape[0], : patch.shape[1], None]
    patch.copy_(torch.where(ink, torch.ones_like(colour), colour))
