"""How well a video keeps to the boxes that it was asked for, and which of several videos does best.

What the nodes Box Adherence and Best of N Seeds show; the numbers are the evaluation's own (`metrics`, `similarity`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..boxes import BoxPlan, BoxTrack
from ..boxes.formats import read_any
from ..boxes.track import is_number
from ..subject import extract_subject
from .metrics import (
    Array,
    Misses,
    centroid_distance,
    detection_rate,
    in_box_crops,
    iou,
    mean_centroid_distance,
    mean_iou,
    missed,
    pixel_similarity,
    subject_crop,
)
from .models import Dino
from .similarity import regions, subject_similarity

#: How much a video shows the subject in its boxes, 0..1: (frames [F, H, W, 3] in 0..1, boxes [F, 4]) -> similarity.
Similarity = Callable[[torch.Tensor, Array], float]


# --- boxes as numbers -------------------------------------------------------------------------------------------------


def requested_boxes(value: Any, width: int, height: int, length: int | None, track: str = "") -> Array:
    """Boxes in any form that `read_any` takes -> float64 [F, 4] in 0..1, NaN where the subject is hidden.

    track: id of the subject, "" for the first."""
    return array_of(read_any(value, width, height, length).track(track))


def detected_boxes(value: Any, width: int, height: int, length: int, track: str = "") -> Array:
    """What a detector found in `length` frames of width x height -> float64 [F, 4] in 0..1, NaN where it found nothing.

    value: as for `requested_boxes`, or a MASK [F, H, W], 1 on the subject. Of several boxes in a frame that carry a
    score the best counts. track: id of the subject where several are told apart.
    Raises ValueError for what is not exactly one of these, and for several boxes in a frame that cannot be told apart.
    """
    if _found_nothing(value, length):
        return np.full((length, 4), np.nan)
    plan = read_any(_best_scored(value), width, height, length)
    return array_of(plan.track(track if len(plan.tracks) > 1 else ""))


def array_of(track: BoxTrack) -> Array:
    """float64 [F, 4], NaN where the subject is hidden."""
    return np.where(np.array(track.visible)[:, None], np.array(track.boxes, np.float64), np.nan)


def track_of(boxes: Array) -> BoxTrack:
    """The inverse of `array_of`; what stands in a hidden frame is lost."""
    hidden = missed(boxes)
    kept = np.where(hidden[:, None], [0.0, 0.0, 1.0, 1.0], boxes)
    return BoxTrack(tuple(map(tuple, kept.tolist())), tuple((~hidden).tolist()))


def _found_nothing(value: Any, length: int) -> bool:
    """Whether this is one empty list, or one empty mask, per frame: a detector that found nothing anywhere."""
    if isinstance(value, torch.Tensor):
        return value.ndim == 3 and len(value) == length and not bool((value > 0.5).any())
    return isinstance(value, list) and len(value) == length and all(item == [] for item in value)


def _best_scored(value: Any) -> Any:
    """Frames x boxes with only the best of each frame's boxes, where all boxes have a score; else unchanged."""

    def scored(frame: Any) -> bool:
        return isinstance(frame, list) and all(isinstance(b, dict) and is_number(b.get("score")) for b in frame)

    if not isinstance(value, list) or not all(map(scored, value)):
        return value
    best = [max(frame, key=lambda box: box["score"]) if frame else None for frame in value]
    # Of one subject from here on: what tells a frame's boxes apart says nothing about the next frame's.
    return [[] if box is None else [{k: v for k, v in box.items() if k != "metadata"}] for box in best]


# --- one video --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adherence:
    """The boxes that were asked for and found in one video of width x height pixels, [F, 4] each.

    Raises ValueError where they are not of as many frames, and where no frame was asked for anything."""

    requested: Array
    detected: Array
    width: int
    height: int
    misses: Misses = "worst"

    def __post_init__(self) -> None:
        if self.requested.shape != self.detected.shape:
            raise ValueError(
                f"There are requested boxes for {len(self.requested)} frames and detected ones for "
                f"{len(self.detected)}; give both for the frames of the video."
            )
        if missed(self.requested).all():
            raise ValueError("No frame has a requested box, so there is nothing to hold the video against.")

    @property
    def iou(self) -> Array:
        """[F], 0 in a missed frame, NaN where nothing was asked for."""
        return iou(self.detected, self.requested)

    @property
    def distance(self) -> Array:
        """[F] between the centres, in frame diagonals: 1 in a missed frame, NaN where nothing was asked for."""
        return centroid_distance(self.detected, self.requested, self.width, self.height)

    @property
    def mIoU(self) -> float:
        return float(mean_iou(self.detected, self.requested, self.misses))

    @property
    def CD(self) -> float:
        return float(mean_centroid_distance(self.detected, self.requested, self.width, self.height, self.misses))

    @property
    def detection_rate(self) -> float:
        return float(detection_rate(self.detected, self.requested))

    def summary(self) -> str:
        asked = ~missed(self.requested)
        found = int((asked & ~missed(self.detected)).sum())
        return f"mIoU {self.mIoU:.3f}, centre distance {self.CD:.3f}, found in {found} of {int(asked.sum())} frames"

    def plan(self) -> BoxPlan:
        """The detected boxes, for sockets."""
        return BoxPlan((track_of(self.detected),), self.width, self.height)


# --- several videos ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """One of several videos of the same request. number: from 0. similarity: in 0..1, None where nobody asked."""

    number: int
    adherence: Adherence
    similarity: float | None
    weight: float

    @property
    def score(self) -> float:
        """(1 - weight) mIoU + weight x similarity; mIoU alone without a similarity. A missed frame counts as 0."""
        miou = float(mean_iou(self.adherence.detected, self.adherence.requested))
        return miou if self.similarity is None else (1 - self.weight) * miou + self.weight * self.similarity


def count_videos(total: int, length: int) -> int:
    """How many videos of `length` frames `total` frames are. Raises ValueError where that is no whole number."""
    if total == 0 or total % length:
        raise ValueError(
            f"There are {total} frames, which is not a whole number of videos of {length} frames (the number of "
            f"requested boxes). Connect the videos one after the other, each of {length} frames."
        )
    return total // length


def rank(frames: torch.Tensor, requested: Array, detected: Array, similarity: Similarity | None = None,
         weight: float = 0.5) -> list[Candidate]:  # fmt: skip
    """Several videos of the same request, best first; of equals the earlier one.

    frames: [N F, H, W, 3] in 0..1, one video after the other. requested: [F, 4]. detected: [N F, 4].
    weight: of the similarity in the score, 0..1.
    Raises ValueError as `count_videos` does."""
    length = len(requested)
    height, width = frames.shape[1:3]
    candidates = []
    for number in range(count_videos(len(frames), length)):
        own = slice(number * length, (number + 1) * length)
        adherence = Adherence(requested, detected[own], width, height)
        similar = similarity(frames[own], requested) if similarity else None
        candidates.append(Candidate(number, adherence, similar, weight))
    return sorted(candidates, key=lambda candidate: -candidate.score)


def ranking(candidates: Sequence[Candidate]) -> str:
    """One line per candidate, best first."""
    lines = []
    for place, candidate in enumerate(candidates, 1):
        similar = "" if candidate.similarity is None else f", similarity {candidate.similarity:.3f}"
        lines.append(
            f"{place}. video {candidate.number}: score {candidate.score:.3f} ({candidate.adherence.summary()}{similar})"
        )
    return "\n".join(lines)


def by_pixels(image: torch.Tensor, mask: torch.Tensor | None) -> Similarity:
    """`pixel_similarity` of what the boxes show on average.

    image: the subject [H, W, 3 or 4] in 0..1, cut out as `extract_subject` does it. Needs no network, and knows the
    subject in one pose only."""
    colour, alpha = extract_subject(image, mask)
    subject = subject_crop(colour.permute(2, 0, 1), alpha)

    def similar(frames: torch.Tensor, boxes: Array) -> float:
        asked = ~missed(boxes)
        crops = in_box_crops(frames[torch.from_numpy(asked)].permute(0, 3, 1, 2), boxes[asked])
        return pixel_similarity(crops.mean(0), subject)

    return similar


def by_dino(image: torch.Tensor, dino: Dino) -> Similarity:
    """R-DINO, negative values as 0: cosine of what the boxes show with the subject's picture [H, W, 3] in 0..1."""
    subject = dino.pictures([to_bytes(image)])

    def similar(frames: torch.Tensor, boxes: Array) -> float:
        return max(0.0, subject_similarity(dino.pictures(regions(to_bytes(frames), boxes)), subject))

    return similar


def to_bytes(pictures: torch.Tensor) -> Array:
    """float [..., 3 or more] in 0..1 -> uint8 [..., 3]."""
    return (pictures[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
