"""The paper's similarity metrics as pure functions on embeddings (arXiv 2410.13830, evaluation).

| metric | function | embeddings |
| --- | --- | --- |
| CLIP-T | `text_similarity` | CLIP: whole frames, prompt |
| T. Cons. | `temporal_consistency` | CLIP: whole frames |
| CLIP-I, DINO-I | `subject_similarity` | CLIP or DINO: whole frames, subject images |
| R-CLIP, R-DINO | `subject_similarity` | CLIP or DINO: `regions` inside the target boxes, subject images |

All of them are means of cosines, as in the authors' earlier public code (VGen, metric/cal_metric_DreamVideo.py), which
has no region metrics. Embeddings need not have length 1. The networks are in `models`.
"""

from __future__ import annotations

import numpy as np

from ..boxes.track import pixel_edges
from .metrics import missed

Array = np.ndarray


def cosine(one: Array, other: Array) -> Array:
    """Cosine of embeddings [..., D] x [..., D] -> [...] in -1..1, float64.

    Raises ValueError for an embedding of zeros or with NaN, which has no direction."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    if not (lengths > 0).all() or not np.isfinite(lengths).all():
        raise ValueError(
            "An embedding is all zeros or not finite, so it has no direction to compare; check its network."
        )
    return (one * other).sum(-1) / lengths


def text_similarity(frames: Array, text: Array) -> float:
    """CLIP-T: mean cosine of the frames' embeddings [F, D] with the prompt's [D]."""
    return float(cosine(frames, text).mean())


def temporal_consistency(frames: Array) -> float:
    """T. Cons.: mean cosine of the embeddings [F, D] of frames that follow one another; NaN for one frame alone."""
    return float(cosine(frames[1:], frames[:-1]).mean()) if len(frames) > 1 else float("nan")


def subject_similarity(frames: Array, subjects: Array) -> float:
    """CLIP-I, DINO-I; of regions R-CLIP, R-DINO: mean cosine of [F, D] with each of the subject's images [S, D].

    NaN without frames, which happens where no frame has a target box."""
    return float(cosine(frames[:, None], subjects[None]).mean()) if len(frames) else float("nan")


def regions(frames: Array, boxes: Array) -> list[Array]:
    """What the frames [F, H, W, 3] show inside their target boxes [F, 4] (0..1): one picture [h, w, 3] per frame.

    The pixels are those that the box's mask covers, at least one. Frames whose box is NaN (hidden) give none."""
    height, width = frames.shape[1:3]
    found = []
    for frame, box in zip(frames, boxes, strict=True):
        if not missed(box):
            left, top, right, bottom = pixel_edges(tuple(box.tolist()), width, height)
            found.append(frame[top:bottom, left:right])
    return found
