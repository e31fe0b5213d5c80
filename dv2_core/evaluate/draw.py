"""Pictures of an evaluation: requested and detected boxes over the frames, values frame by frame, ranked videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..boxes import draw_boxes
from .adherence import Adherence, Candidate, to_bytes, track_of
from .metrics import Array, missed

SIDE = 256  # smaller frames are enlarged by whole pixels to at least this, so that thin lines tell boxes apart
CELL = 128  # height of a frame on the sheet of ranked videos
SHOWN = 6  # frames per video there
GAP, LINE = 4, 18  # between pictures, and the height of a line of text, pixels
CHART = (640, 300)
MARGIN = (46, 30, 14, 34)  # left, top, right, bottom of a chart
INK, GRID, BAND = (40, 40, 40), (220, 220, 220), (240, 225, 225)
BLUE, ORANGE = (30, 90, 200), (220, 120, 20)


def overlay(frames: torch.Tensor, requested: Array, detected: Array) -> torch.Tensor:
    """The frames [F, H, W, 3], small ones enlarged, with the requested boxes [F, 4] (the first of COLOURS, red) and the
    detected ones (the second, blue); NaN draws nothing."""
    scale = max(1, -(-SIDE // min(frames.shape[1:3])))
    frames = frames[..., :3].repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return draw_boxes(frames, (track_of(requested), track_of(detected)))


# --- values over time -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One value per frame, 0..1; NaN leaves a gap. colour: RGB in 0..255."""

    name: str
    values: Array
    colour: tuple[int, int, int]


def chart(title: str, lines: Sequence[Line], marked: Array, size: tuple[int, int] = CHART) -> Image.Image:
    """Values 0..1 over frames 0, 1, ...; `marked` (bool [F]) frames have a tinted ground."""
    font = ImageFont.load_default(size=13)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = MARGIN[0], MARGIN[1], size[0] - MARGIN[2], size[1] - MARGIN[3]
    length = len(marked)
    pitch = (right - left) / max(1, length)

    def x(frame: float) -> float:
        return left + (frame + 0.5) * pitch

    def y(value: float) -> float:
        return bottom - float(np.clip(value, 0, 1)) * (bottom - top)

    for frame in np.flatnonzero(marked).tolist():
        draw.rectangle((x(frame - 0.5), top, x(frame + 0.5), bottom), fill=BAND)
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        draw.line((left, y(value), right, y(value)), fill=GRID)
        draw.text((left - 6, y(value)), f"{value:g}", fill=INK, font=font, anchor="rm")
    step = max(1, -(-length // 16))
    for frame in range(0, length, step):
        draw.text((x(frame), bottom + 4), str(frame), fill=INK, font=font, anchor="ma")
    draw.text(((left + right) / 2, size[1] - 3), "frame", fill=INK, font=font, anchor="md")
    draw.text((left, 8), title, fill=INK, font=font)
    for line in lines:
        points = [(x(frame), y(value)) for frame, value in enumerate(line.values.tolist()) if not np.isnan(value)]
        if len(points) > 1:
            draw.line(points, fill=line.colour, width=2)
        for px, py in points:
            draw.ellipse((px - 3, py - 3, px + 3, py + 3), fill=line.colour)
    place = right
    for line in reversed(lines):
        draw.text((place, 8), line.name, fill=line.colour, font=font, anchor="ra")
        place -= draw.textlength(line.name, font=font) + 16
    return picture


def plot(adherence: Adherence) -> Image.Image:
    """IoU and distance of the centres frame by frame; frames in which nothing was found are tinted."""
    lines = (Line("IoU", adherence.iou, BLUE), Line("centre distance", adherence.distance, ORANGE))
    asked = ~missed(adherence.requested)
    return chart(adherence.summary(), lines, asked & missed(adherence.detected))


# --- several videos ---------------------------------------------------------------------------------------------------


def ranked_sheet(frames: torch.Tensor, candidates: Sequence[Candidate]) -> Image.Image:
    """One row per video, best first: SHOWN of its frames, evenly spaced, with requested and detected boxes.

    frames: [N F, H, W, 3] in 0..1, in the order that was ranked."""
    requested = candidates[0].adherence.requested
    length = len(requested)
    times = torch.linspace(0, length - 1, min(SHOWN, length)).round().long()
    width = round(CELL * frames.shape[2] / frames.shape[1])
    row = LINE + CELL + GAP
    picture = Image.new("RGB", (GAP + len(times) * (width + GAP), GAP + len(candidates) * row), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    for place, candidate in enumerate(candidates):
        top = GAP + place * row
        similar = "" if candidate.similarity is None else f", similarity {candidate.similarity:.2f}"
        text = f"video {candidate.number}: score {candidate.score:.2f}, mIoU {candidate.adherence.mIoU:.2f}{similar}"
        draw.text((GAP, top), text, fill=INK, font=font)
        own = frames[candidate.number * length : (candidate.number + 1) * length]
        for column, cell in enumerate(to_bytes(overlay(own, requested, candidate.adherence.detected)[times])):
            small = Image.fromarray(cell).resize((width, CELL), Image.Resampling.LANCZOS)
            picture.paste(small, (GAP + column * (width + GAP), top + LINE))
    return picture


def as_image(picture: Image.Image) -> torch.Tensor:
    """A picture as IMAGE float32 [1, H, W, 3] in 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)[None]
