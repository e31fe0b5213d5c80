"""Mask folders as DAVIS, YouTube-VOS and SAM 2 keep them: a PNG per frame whose colour numbers are the subjects.

Facts: davis-2017 `Annotations/480p/NAME/00000.png`: palette pictures, 0 is the background, 1, 2, ... are the subjects,
255 marks pixels that nobody judged. DAVIS 2016 and many tools write one subject as white on black instead.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..plan import BoxPlan
from ..track import Box, check_canvas, pixel_edges
from .common import Sightings, check_frames
from .folder import check_file, frame_files, new_folder

#: Most bytes of one file, pixels of one picture, and pixels of all pictures (2,000 frames of full HD).
MAX_BYTES, MAX_PIXELS, MAX_TOTAL = 64_000_000, 8192 * 8192, 4_200_000_000

#: The colour of pixels that belong to nobody, and the white of a picture in black and white.
VOID = WHITE = 255


def read(value: Path, width: int, height: int, length: int | None = None, fps: float = 8.0) -> BoxPlan:
    """A folder of 00000.png, 00001.png, ... -> the tight boxes of its subjects, fractions of the pictures' size.

    Palette pictures: each colour but 0 and 255 is a subject, named after its number. Grey pictures: 0 and 255 only, one
    subject "1". Raises ValueError, a sentence, for anything else, gaps in the numbers, pictures of different sizes, and
    files over the limits above.
    """
    check_canvas(width, height)
    files = frame_files(value, ".png")
    check_frames(len(files), length, "mask pictures")
    sightings, size = Sightings(), None
    for t, file in enumerate(files):
        colours = _read_picture(check_file(file, MAX_BYTES), size, len(files))
        size = (colours.shape[0], colours.shape[1])
        for number, box in _boxes(colours):
            sightings.add(str(number), t, box)
    return sightings.plan(len(files), width, height, fps)


def own_size(folder: Path) -> tuple[int, int]:
    """The (width, height) of the first picture. Raises ValueError as `read` does."""
    height, width = _read_picture(check_file(frame_files(folder, ".png")[0], MAX_BYTES), None, 1).shape
    return width, height


def write(plan: BoxPlan, folder: Path | None) -> Path:
    """The boxes as palette pictures in a new folder; the folder.

    A subject's colour is its id where all ids are different numbers from 1 to 254, else its position from 1 on. Where
    boxes overlap, the later subject covers the earlier one.
    """
    if len(plan.tracks) > 254:
        raise ValueError(f"There are {len(plan.tracks)} subjects; a palette picture has colours for 254 of them.")
    folder = new_folder(folder)
    ids = [track.obj_id for track in plan.tracks]
    numbers = [int(name) if name.isascii() and name.isdigit() and len(name) < 4 else 0 for name in ids]
    if not all(0 < n < VOID for n in numbers) or len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(ids) + 1))
    palette = _palette()
    edges = [[pixel_edges(box, plan.width, plan.height) for box in track.boxes] for track in plan.tracks]
    for t in range(plan.length):
        colours = np.zeros((plan.height, plan.width), np.uint8)
        for track, number, boxes in zip(plan.tracks, numbers, edges, strict=True):
            if track.visible[t]:
                left, top, right, bottom = boxes[t]
                colours[top:bottom, left:right] = number
        picture = Image.fromarray(colours)
        picture.putpalette(palette)
        picture.save(folder / f"{t:05d}.png", compress_level=1)  # flat colour is small at any level; 1 is the fastest
    return folder


def _read_picture(file: Path, size: tuple[int, int] | None, count: int) -> np.ndarray:
    """[height, width] uint8, the number of each pixel's subject, 0 for none."""
    where = f"{file.parent.name}/{file.name}"
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            found = (picture.height, picture.width)
            fits = found[0] * found[1] <= min(MAX_PIXELS, MAX_TOTAL // count)
            size = size or found
            colours = np.asarray(picture) if fits and size == found else None
            mode = picture.mode
    except Exception as error:  # a damaged PNG makes Pillow raise whatever its parts do
        raise ValueError(f"{where} is no readable PNG ({type(error).__name__}); write it again.") from None
    if not fits:
        raise ValueError(f"{where} has {found[1]}x{found[0]} pixels, too many for {count} frames; write them smaller.")
    if colours is None:
        raise ValueError(
            f"{where} has {found[1]}x{found[0]} pixels and the frames before it have {size[1]}x{size[0]}; write all in "
            "one size."
        )
    if mode == "P":
        return colours
    white = colours.astype(np.uint8) * WHITE if mode == "1" else colours
    if mode == "RGB" and (colours == colours[..., :1]).all():
        white = colours[..., 0]
    if white.ndim != 2 or mode not in ("1", "L", "RGB") or ((white != 0) & (white != WHITE)).any():
        raise ValueError(
            f"{where} (mode {mode}) is neither a palette picture nor black and white; give palette pictures whose "
            "colour numbers are the subjects, or one subject as white (255) on black (0)."
        )
    return (white == WHITE).astype(np.uint8)


def _boxes(colours: np.ndarray) -> list[tuple[int, Box]]:
    """(number, tight box) of every subject in a picture."""
    height, width = colours.shape
    found = []
    counts = Image.fromarray(colours).histogram()
    for number in (n for n in range(1, VOID) if counts[n]):
        inside = colours == number
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
        found.append((number, tuple(map(float, box))))
    return found


def _palette() -> list[int]:
    """Black, then colours far apart in hue: bit by bit, the lowest bits of a number are the highest of its colour."""
    colours = []
    for number in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
        colours += channels
    return colours
