"""Networks that measure a result: what finds the subject in the frames, and DINO, which compares it with its picture.

DINO models are folders as `transformers` writes them, in `models/dino/NAME`; see `segment_models` for the rest.
"""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...dv2_core.evaluate.detector import Detector as MiniatureDetector
from ...dv2_core.evaluate.models import DINO, Dino, Finder, WordFinder
from ...dv2_core.segment import GROUNDING_DINO
from . import segment_models

#: The small detector that lies beside the included miniature and knows its drawn world.
MINIATURE = "miniature"

folder_paths.add_model_folder_path(DINO.folder, str(Path(folder_paths.models_dir) / DINO.folder), is_default=True)


def finder_choices() -> list[str]:
    return [*segment_models.choices(GROUNDING_DINO), MINIATURE]


def check_finder(name: str, word: str | None) -> None:
    """Raises ValueError, a sentence, where the detector is not there or has no word. word: None where not known yet."""
    if name == MINIATURE:
        return
    try:
        segment_models.folder_of(GROUNDING_DINO, name)
    except ValueError as error:
        raise ValueError(
            f"{error} Or connect the boxes or masks of another detector; for videos of the included miniature choose "
            f"{MINIATURE!r}."
        ) from error
    if word is not None and not word.strip():
        raise ValueError("The detector needs a word for the subject; type it into `word`, such as 'dog'.")


def finder(name: str, word: str, threshold: float) -> Finder:
    """The chosen detector, for one word, with its progress on the node. Raises ValueError as `check_finder` does."""
    check_finder(name, word)
    if name == MINIATURE:
        return MiniatureDetector.load()
    return WordFinder(segment_models.detector(name), word, threshold, segment_models.progress())


def dino_choices() -> list[str]:
    return list(segment_models.models(DINO))


def dino(name: str) -> Dino:
    folder = segment_models.folder_of(DINO, name)
    return Dino.load(folder, segment_models.precision(), segment_models.on_comfys_device)
