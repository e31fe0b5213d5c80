"""Where the held-out subjects of an evaluation come from: an atlas, the drawn subjects, or a folder of pictures."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ..drawn import drawn_subjects
from ..world.atlas import ALPHA_THRESHOLD, Atlas, Sprite, fit_sprite, plain_name

DRAWN = "drawn"
SUFFIXES = {".png", ".webp", ".tif", ".tiff"}


def load_subjects(given: str) -> Atlas:
    """ "drawn": the subjects that this package draws. Otherwise the atlas file, or the folder of pictures, at a path.

    Raises ValueError for a path that is neither, and for a picture without transparency."""
    if given == DRAWN:
        return picture_atlas((name, picture, "Apache-2.0") for name, picture in drawn_subjects().items())
    path = Path(given)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"{path} holds no picture; put PNG or WebP files with transparency into it.")
        return picture_atlas((file.stem, Image.open(file), "") for file in files)
    if path.is_file():
        return Atlas.load(path)
    raise ValueError(f"There is no atlas and no folder {path}; give one, or the word {DRAWN!r}.")


def picture_atlas(pictures: Iterable[tuple[str, Image.Image, str]]) -> Atlas:
    """(name, picture, licence) -> an atlas of held-out sprites in their own colours; digits are no part of a name."""
    pixels, sprites = [], []
    for name, picture, licence in pictures:
        rgba = np.asarray(picture.convert("RGBA"))
        if (rgba[..., 3] > ALPHA_THRESHOLD).all():
            raise ValueError(f"The picture {name!r} has no transparency; cut the subject out first.")
        words = plain_name("".join(letter if letter.isalpha() else " " for letter in name)) or "thing"
        pixels.append(fit_sprite(rgba))
        sprites.append(Sprite(words, words, "picture", licence, "test"))
    return Atlas(np.stack(pixels), sprites)
