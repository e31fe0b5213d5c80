"""Clips of the mini-world: one sprite moves along a path over a still background, with exact boxes and a caption.

Every clip is a pure function of (seed, split, index), so a resumed training needs no generator state.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from ..subject import SUBJECT_SIDE
from .atlas import ALPHA_THRESHOLD, FIXED_COLOURS, Atlas
from .colour import colour_word, hsv_to_rgb, rotate_hue

BACKGROUNDS = ("plain", "gradient", "striped", "checkered", "cloudy")
DIRECTIONS = ("left", "right", "up", "down", "still")
SPLITS = ("train", "test")
STILL = 6 / 64  # a shorter way from the first to the last box, in frame sides, counts as standing still


@dataclass
class Clip:
    """One training example. R is the frame side, F the number of frames; pictures are RGB in 0..1."""

    frames: torch.Tensor  # [F, 3, R, R] float32
    masks: torch.Tensor  # [F, R, R] float32, 1 inside the box
    boxes: torch.Tensor  # [F, 4] float32, normalised x0 y0 x1 y1
    alpha: torch.Tensor  # [F, R, R] bool, the subject's own pixels; their tight rectangle is the box
    subject: torch.Tensor  # [3, R, R] float32, the subject on white, facing as in the video
    subject_alpha: torch.Tensor  # [R, R] bool
    caption: str
    concept: str  # the concept's name
    direction: str  # one of DIRECTIONS
    background: str  # one of BACKGROUNDS
    colour: str  # one of colour.COLOURS, or "" where the caption names none


# --- compositing ------------------------------------------------------------------------------------------------------


def resize_sprite(sprite_rgba: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[4, h, w] straight alpha -> [4, height, width] with *premultiplied* colour, antialiased."""
    premultiplied = torch.cat([sprite_rgba[:3] * sprite_rgba[3:], sprite_rgba[3:]])
    return F.interpolate(premultiplied[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)


def render_clip(
    sprite_rgba: torch.Tensor, boxes_px: np.ndarray, background: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Paste a sprite into one integer rectangle per frame.

    sprite_rgba [4, h, w] in 0..1 with straight alpha, cropped to its subject; boxes_px [F, 4] integer x0 y0 x1 y1
    (exclusive ends) inside the frame; background [3, H, W]. Returns frames [F, 3, H, W] and alpha [F, H, W] bool.
    Raises ValueError for a box that is empty or leaves the frame."""
    height, width = background.shape[1:]
    frames = background[None].repeat(len(boxes_px), 1, 1, 1)
    alpha = torch.zeros(len(boxes_px), height, width, dtype=torch.bool)
    resized: dict[tuple[int, int], torch.Tensor] = {}
    for frame, (x0, y0, x1, y1) in enumerate(np.asarray(boxes_px).tolist()):
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ValueError(
                f"Frame {frame} has the box ({x0}, {y0}, {x1}, {y1}), which is empty or leaves the {width}x{height} "
                "frame; give x0 < x1 and y0 < y1 inside it."
            )
        size = (y1 - y0, x1 - x0)
        if size not in resized:
            resized[size] = resize_sprite(sprite_rgba, *size)
        patch = resized[size]
        target = frames[frame, :, y0:y1, x0:x1]
        target.mul_(1 - patch[3]).add_(patch[:3])
        alpha[frame, y0:y1, x0:x1] = patch[3] > ALPHA_THRESHOLD / 255
    return frames, alpha


def tight_boxes(alpha: torch.Tensor) -> np.ndarray:
    """The tight rectangle of every mask: bool [F, H, W] -> int [F, 4] x0 y0 x1 y1 (exclusive ends).

    Raises ValueError if a mask is empty."""
    columns, rows = alpha.any(1).numpy(), alpha.any(2).numpy()  # [F, W], [F, H]
    if not columns.any(1).all():
        raise ValueError("A frame shows no pixel of the subject, so it has no box; use larger boxes.")
    x0, y0 = columns.argmax(1), rows.argmax(1)
    x1, y1 = columns.shape[1] - columns[:, ::-1].argmax(1), rows.shape[1] - rows[:, ::-1].argmax(1)
    return np.stack([x0, y0, x1, y1], 1)


def render_subject(sprite_rgba: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The subject image: the sprite amid a white square -> [3, size, size] and its bool mask [size, size]."""
    height, width = fit(sprite_rgba, SUBJECT_SIDE * size)
    x0, y0 = (size - width) // 2, (size - height) // 2
    frames, alpha = render_clip(sprite_rgba, np.array([[x0, y0, x0 + width, y0 + height]]), torch.ones(3, size, size))
    return frames[0], alpha[0]


def fit(sprite_rgba: torch.Tensor, longest: float) -> tuple[int, int]:
    """Integer (height, width) of the sprite with its longest side scaled to `longest` pixels."""
    height, width = sprite_rgba.shape[1:]
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


# --- random parts -----------------------------------------------------------------------------------------------------


def random_colour(rng: np.random.Generator) -> torch.Tensor:
    """An RGB colour [3], uniform in HSV."""
    hue, saturation, value = rng.uniform(0, 6), rng.uniform(0, 1), rng.uniform(0.15, 1)
    return torch.from_numpy(hsv_to_rgb(*(np.array(part, np.float32) for part in (hue, saturation, value))))


def random_background(rng: np.random.Generator, kind: str, size: int) -> torch.Tensor:
    """A still background [3, size, size] of one of the kinds in BACKGROUNDS."""
    first, second = random_colour(rng)[:, None, None], random_colour(rng)[:, None, None]
    if kind == "plain":
        return first.expand(3, size, size)
    axis = torch.linspace(0, 1, size)
    if kind == "checkered":
        cells, shift = int(rng.integers(3, 7)), rng.uniform(0, 1, 2)
        rows, columns = ((axis * cells + float(offset)).floor() for offset in shift)
        blend = (rows[:, None] + columns[None]) % 2
    elif kind == "cloudy":
        grid = torch.from_numpy(rng.standard_normal((1, 1, 6, 6)).astype(np.float32))
        blend = (0.5 + 0.35 * F.interpolate(grid, (size, size), mode="bicubic")[0, 0]).clamp(0, 1)
    else:
        angle = rng.uniform(0, 2 * math.pi)
        along = axis[None] * math.cos(angle) + axis[:, None] * math.sin(angle)  # [size, size]
        if kind == "gradient":
            blend = (along - along.min()) / (along.max() - along.min())
        else:  # striped
            blend = (along * float(rng.integers(2, 7)) + rng.uniform(0, 1)).mul(2).floor() % 2
    return first + (second - first) * blend


def random_path(rng: np.random.Generator, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Box centres [F, 2] (x, y) and longest sides [F], both in frame sides; centres may still need clamping."""
    time = np.linspace(0, 1, num_frames)[:, None]  # [F, 1]
    start, end, bend = rng.uniform(0.15, 0.85, (3, 2))
    kind = rng.choice(4, p=[0.45, 0.30, 0.20, 0.05])
    if kind == 0:  # line
        centres = start + (end - start) * time
    elif kind == 1:  # quadratic curve
        centres = (1 - time) ** 2 * start + 2 * time * (1 - time) * bend + time**2 * end
    elif kind == 2:  # bounce: hops above a ground line
        hops, height = rng.integers(1, 4), rng.uniform(0.2, 0.6)
        x = start[0] + (end[0] - start[0]) * time[:, 0]
        centres = np.stack([x, 0.85 - height * np.abs(np.sin(math.pi * hops * time[:, 0]))], 1)
    else:  # still
        centres = np.repeat(start[None], num_frames, 0)
    first, last = rng.uniform(0.28, 0.62, 2)
    if rng.uniform() < 0.4:
        last = first
    return centres, first + (last - first) * time[:, 0]


def place(sprite_rgba: torch.Tensor, centres: np.ndarray, sides: np.ndarray, size: int) -> np.ndarray:
    """Integer boxes [F, 4] around `centres`, moved so that the whole sprite stays in the frame."""
    boxes = []
    for centre, side in zip(centres * size, sides * size, strict=True):
        height, width = (max(side_px, round(size / 10)) for side_px in fit(sprite_rgba, side))
        x0 = min(max(round(centre[0] - width / 2), 0), size - width)
        y0 = min(max(round(centre[1] - height / 2), 0), size - height)
        boxes.append((x0, y0, x0 + width, y0 + height))
    return np.array(boxes)


def direction_of(boxes: np.ndarray) -> str:
    """The word for the way from the first to the last box centre; boxes [F, 4] normalised."""
    dx, dy = (boxes[-1, :2] + boxes[-1, 2:] - boxes[0, :2] - boxes[0, 2:]) / 2
    if math.hypot(dx, dy) < STILL:
        return "still"
    if abs(dx) >= abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def caption_of(name: str, direction: str, background: str, colour: str) -> str:
    """ "a red lobster moving left on a striped background"; without a colour word where `colour` is empty."""
    subject = f"{colour} {name}" if colour else name
    motion = "standing still" if direction == "still" else f"moving {direction}"
    return f"a {subject} {motion} on a {background} background"


# --- the data set -----------------------------------------------------------------------------------------------------


class World(Dataset[dict]):
    """An endless data set of `Clip`s as dicts; item i depends on (seed, split, i) alone."""

    def __init__(
        self,
        atlas: Atlas,
        split: str = "train",
        size: int = 64,
        num_frames: int = 8,
        seed: int = 0,
        length: int = 10_000_000,
    ):
        if split not in SPLITS:
            raise ValueError(f"The split is {split!r}; choose one of {SPLITS}.")
        if size < 16 or num_frames < 1:
            raise ValueError(f"A clip needs size >= 16 and at least one frame; it was given {size} and {num_frames}.")
        self.atlas, self.split, self.size, self.num_frames = atlas, split, size, num_frames
        self.seed, self.length = seed, length
        self.sprites = atlas.indices(split)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return vars(self.clip(index))

    def clip(self, index: int) -> Clip:
        """Clip `index`. Raises IndexError outside 0..length-1."""
        if not 0 <= index < self.length:
            raise IndexError(f"Clip {index} was asked for, but the world has the clips 0..{self.length - 1}.")
        # A counter-based generator: no state to save, and neighbouring indices are independent.
        key = [self.seed, SPLITS.index(self.split)]
        rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, index, 0]))

        position = self.sprites[int(rng.integers(len(self.sprites)))]
        turn, rotated, mirrored, _, named = rng.uniform(size=5)
        sprite = self.atlas.crop(position)  # [4, h, w]
        if rotated < 0.6 and self.atlas.sprites[position].style not in FIXED_COLOURS:
            sprite = torch.from_numpy(rotate_hue(sprite.numpy(), turn))
        kind = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
        background = random_background(rng, kind, self.size)
        moving = sprite.flip(2) if mirrored < 0.5 else sprite
        boxes = place(moving, *random_path(rng, self.num_frames), self.size)
        frames, alpha = render_clip(moving, boxes, background)
        boxes = tight_boxes(alpha)  # thin tips may fade in the resize: the box is what can be seen
        subject, subject_alpha = render_subject(moving, self.size)

        masks = torch.zeros(self.num_frames, self.size, self.size)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True):
            mask[y0:y1, x0:x1] = 1
        normalised = (boxes / self.size).astype(np.float32)
        name, direction = self.atlas.sprites[position].name, direction_of(normalised)
        colour = colour_word(sprite.numpy()) if named < 0.5 else ""
        return Clip(
            frames=frames,
            masks=masks,
            boxes=torch.from_numpy(normalised),
            alpha=alpha,
            subject=subject,
            subject_alpha=subject_alpha,
            caption=caption_of(name, direction, kind, colour),
            concept=name,
            direction=direction,
            background=kind,
            colour=colour,
        )
