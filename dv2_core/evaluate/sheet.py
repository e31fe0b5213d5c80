"""Contact sheets: subject | requested boxes | result frames, for the best, median and worst clips or for any."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .pairs import Pair, to_bytes

CELL = 128  # side of a picture on the sheet, pixels
GAP = 4
TITLE = 16  # height of a line of text
EACH = 4  # clips in each of the three sections
UNSELECTED = 12  # clips on the sheet of any
BOX_COLOUR = (230, 30, 30)


def sheet(pairs: Sequence[Pair], clips: Sequence[np.ndarray], quality: np.ndarray) -> Image.Image:
    """Best, median and worst clips (uint8 [F, H, W, 3], one per pair) by `quality` [N], larger = better."""
    order = np.argsort(-quality, kind="stable")
    shown = min(EACH, len(order))
    middle = (len(order) - shown) // 2
    sections = (("best", order[:shown]), ("median", order[middle : middle + shown]), ("worst", order[-shown:]))
    return draw_rows([(name, i) for name, members in sections for i in members], pairs, clips, quality)


def random_sheet(pairs: Sequence[Pair], clips: Sequence[np.ndarray], quality: np.ndarray) -> Image.Image:
    """Twelve clips that nobody selected: drawn once and for all, the same pairs for every model."""
    chosen = np.random.default_rng(0).permutation(len(pairs))[:UNSELECTED]
    return draw_rows([("random", i) for i in sorted(chosen)], pairs, clips, quality)


def draw_rows(
    rows: Sequence[tuple[str, int]], pairs: Sequence[Pair], clips: Sequence[np.ndarray], quality: np.ndarray
) -> Image.Image:
    """One row per (label, number of the pair): the subject, all requested boxes in one picture (dark = first frame,
    bright = last), and the frames with the requested box as a thin outline."""
    columns = 2 + len(clips[0])
    step = CELL + GAP + TITLE
    canvas = Image.new("RGB", (columns * (CELL + GAP) + GAP, len(rows) * step + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (label, i) in enumerate(rows):
        pair, top = pairs[i], row * step + GAP
        caption = f"{label}: pair {pair.number}, mIoU {quality[i]:.2f}, {pair.clip.caption}"
        draw.text((GAP, top), caption, fill="black")
        subject = to_bytes(pair.clip.subject[None])[0]
        cells = [enlarge(subject), trail(pair.boxes)]
        cells += [outlined(frame, box) for frame, box in zip(clips[i], pair.boxes, strict=True)]
        for column, cell in enumerate(cells):
            canvas.paste(cell, (GAP + column * (CELL + GAP), top + TITLE))
    return canvas


def enlarge(picture: np.ndarray) -> Image.Image:
    """uint8 [H, W, 3] -> a CELL x CELL picture that shows every pixel as it is."""
    return Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.NEAREST)


def outlined(picture: np.ndarray, box: np.ndarray) -> Image.Image:
    cell = enlarge(picture)
    ImageDraw.Draw(cell).rectangle(corners(box), outline=BOX_COLOUR)
    return cell


def trail(boxes: np.ndarray) -> Image.Image:
    cell = Image.new("RGB", (CELL, CELL), "white")
    draw = ImageDraw.Draw(cell)
    for frame, box in enumerate(boxes):
        share = (frame + 1) / len(boxes)
        draw.rectangle(corners(box), outline=tuple(int(channel * share) for channel in BOX_COLOUR))
    return cell


def corners(box: np.ndarray) -> tuple[int, int, int, int]:
    """Corner pixels (inclusive) of a box in 0..1 on a cell."""
    x0, y0, x1, y1 = (round(float(value) * CELL) for value in box)
    return x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)
