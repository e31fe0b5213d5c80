"""Grounding DINO: boxes of whatever a word names (arXiv 2303.05499), as in arXiv 2410.13830's data and metrics.

The network is the one of `transformers`; weights are a local folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..boxes import Box
from .folder import GROUNDING_DINO, LocalModel, Place, Progress, check_frames, library, load_network, stay

#: Score from which a box counts, as the authors' demonstration sets it.
THRESHOLD = 0.35

#: Frames per pass; each needs about a GB at the published models' 800 pixels (estimated).
BATCH = 4


@dataclass(frozen=True)
class Detection:
    """One box, fractions of the picture, with its score in 0..1."""

    box: Box
    score: float


class Detector(LocalModel):
    """Finds what a word names. Frames are scaled as the model's own preprocessor_config.json says."""

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        image_processor: Any,
        dtype: torch.dtype = torch.float32,
        place: Place = stay,
    ):
        super().__init__(network, dtype, place)
        self.tokenizer, self.image_processor = tokenizer, image_processor

    @classmethod
    def load(cls, folder: Path | str, dtype: torch.dtype = torch.float32, place: Place = stay) -> Detector:
        """The model of a local folder. Raises ValueError with what is missing or wrong, never downloads."""
        folder = Path(folder)
        network = load_network(GROUNDING_DINO, folder, "GroundingDinoConfig", "GroundingDinoForObjectDetection")
        tf = library(GROUNDING_DINO, "GroundingDinoImageProcessor")
        try:
            tokenizer = tf.BertTokenizerFast.from_pretrained(folder, local_files_only=True)
            image_processor = tf.GroundingDinoImageProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the library raises exceptions of many kinds
            raise ValueError(
                f"The words or the picture settings of the Grounding DINO model in {folder} cannot be read ({error}). "
                f"Get its files again, for example from {GROUNDING_DINO.published[0]}."
            ) from error
        return cls(network, tokenizer, image_processor, dtype, place)

    def detect(
        self,
        frames: Tensor,
        words: Sequence[str],
        threshold: float = THRESHOLD,
        batch: int = BATCH,
        progress: Progress | None = None,
    ) -> list[list[Detection]]:
        """Every box of what each frame's word names with a score of at least `threshold`, best first.

        frames: [F, H, W, 3], 0..1. words: one per frame, each of one or a few English words naming one thing.
        batch: frames per pass; shorter words are filled up in it, and the network does not look at what fills them.
        Raises ValueError for frames, words and thresholds that make no sense, and for another number of words.
        """
        frames = check_frames(frames)
        if not 0 <= threshold <= 1:
            raise ValueError(f"The threshold is {threshold}; it must be from 0 to 1, usually {THRESHOLD}.")
        if isinstance(words, str) or len(words) != len(frames):
            given = "one text" if isinstance(words, str) else f"{len(words)} words"
            raise ValueError(f"There are {len(frames)} pictures and {given}; give a list with one word per picture.")
        texts = {word: self._text(word) for word in words}
        found: list[list[Detection]] = []
        with self.running() as device:
            for start in range(0, len(frames), batch):
                part, named = frames[start : start + batch], words[start : start + batch]
                pictures = [(frame.clamp(0, 1) * 255).round().byte().cpu().numpy() for frame in part]
                pixels = self.image_processor(images=pictures, return_tensors="pt").to(device)
                tokens = self.tokenizer([texts[word] for word in named], padding=True, return_tensors="pt").to(device)
                out = self.network(**pixels, **tokens)
                scores = out.logits.float().sigmoid().amax(-1).cpu()  # [f, queries]: the best of all words
                boxes = _corners(out.pred_boxes.float()).cpu()  # [f, queries, 4]
                found += [_above(s, b, threshold) for s, b in zip(scores, boxes, strict=True)]
                if progress:
                    progress(len(found), len(frames))
        return found

    def find(self, image: Tensor, word: str, threshold: float = THRESHOLD, where: str = "the picture") -> Detection:
        """The best box of what `word` names in one picture [H, W, 3].

        Raises ValueError with the best score there was when none reaches the threshold; `where` names the picture.
        """
        found = self.detect(image[None], [word], 0.0)[0]
        best = found[0].score if found else 0.0
        if best < threshold or not found:
            raise ValueError(
                f"No {word.strip()!r} found in {where}: the best score is {best:.2f}, below the threshold of "
                f"{threshold:g}. Use another word for it, lower the threshold, or give a box or a point instead."
            )
        return found[0]

    def _text(self, word: str) -> str:
        """The prompt in the form the model was trained on: lower case, ended by a full stop."""
        name = " ".join(word.lower().split()).rstrip(". ")
        if not any(c.isalnum() for c in name):
            raise ValueError(f"The word is {word!r}; name the subject in one or a few English words, such as 'dog'.")
        if "." in name or "?" in name:
            raise ValueError(
                f"{word!r} names several things, since '.' and '?' separate names here; name one, such as 'dog'."
            )
        text = name + "."
        tokens = self.tokenizer(text)["input_ids"]
        if self.tokenizer.unk_token_id in tokens:
            raise ValueError(
                f"{word!r} has characters that the detector does not know; it knows English words, such as 'dog'."
            )
        limit = self.network.config.max_text_len
        if len(tokens) > limit:
            raise ValueError(
                f"The words {word[:40]!r}... are {len(tokens)} tokens long and the detector reads {limit}; use a few."
            )
        return text


def _corners(boxes: Tensor) -> Tensor:
    """[..., 4] (centre x, centre y, width, height) -> [..., 4] (x1, y1, x2, y2), cut to the picture 0..1."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1).clamp(0, 1)


def _above(scores: Tensor, boxes: Tensor, threshold: float) -> list[Detection]:
    """scores [Q], boxes [Q, 4] -> those of at least `threshold` with an area, best first."""
    kept = (scores >= threshold) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    scores, boxes = scores[kept], boxes[kept]
    order = scores.argsort(descending=True, stable=True)
    return [
        Detection((box[0], box[1], box[2], box[3]), score)
        for score, box in zip(scores[order].tolist(), boxes[order].tolist(), strict=True)
    ]
