"""The frames of a video on one picture."""

import math
from collections.abc import Sequence

from PIL import Image

COLUMNS = 8
CELL = 256  # longest side of a frame on the sheet, pixels
GAP = 6


def contact_sheet(frames: Sequence[Image.Image]) -> Image.Image:
    """Frames side by side, left to right, ``COLUMNS`` in a row, all of the first one's size.

    Small frames are enlarged by whole pixels, so that what the model drew is seen as it is; large ones are reduced.
    """
    width, height = frames[0].size
    if max(width, height) <= CELL:
        factor = CELL // max(width, height)
        cell, method = (width * factor, height * factor), Image.Resampling.NEAREST
    else:
        scale = CELL / max(width, height)
        cell, method = (max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS
    columns = min(COLUMNS, len(frames))
    rows = math.ceil(len(frames) / columns)
    sheet = Image.new("RGB", (columns * (cell[0] + GAP) + GAP, rows * (cell[1] + GAP) + GAP), "white")
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        sheet.paste(frame.resize(cell, method), (GAP + column * (cell[0] + GAP), GAP + row * (cell[1] + GAP)))
    return sheet
