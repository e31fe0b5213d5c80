"""From the frames of one row of the table to its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .detector import Detector
from .metrics import (
    background_change,
    bootstrap_interval,
    colour_correlation,
    covered,
    flicker,
    in_box_colour,
    in_box_crops,
    mean_centroid_distance,
    mean_iou,
    missed,
    subject_crop,
    subject_distances,
    subject_retrieval,
)
from .pairs import Pair, galleries, to_frames

#: Column -> heading of the printed table.
COLUMNS = {
    "mIoU": "mIoU",
    "CD": "CD",
    "misses": "misses",
    "colour": "colour corr.",
    "own": "MSE own",
    "other": "MSE other",
    "top1": "top-1",
    "top5": "top-5",
    "static": "background change",
    "flicker": "flicker",
}

#: A value and its 95 % interval: (value, low, high).
Estimate = tuple[float, float, float]


@dataclass(frozen=True)
class Scores:
    """The measures of N clips, clip by clip, in the order of the pairs."""

    detected: np.ndarray  # [N, F, 4], NaN where nothing was found
    mIoU: np.ndarray  # [N]
    CD: np.ndarray  # [N]
    misses: np.ndarray  # [N] share of frames without a detection
    own: np.ndarray  # [N] in-box MSE to the own subject, to the others of the gallery, and how the own one ranks
    other: np.ndarray
    top1: np.ndarray
    top5: np.ndarray
    colours: np.ndarray  # [N, 6] RGB in the boxes, RGB of the subject
    static: np.ndarray  # [N] change of the background from frame to frame; NaN where none is ever seen
    flicker: np.ndarray  # [N] change inside the boxes from frame to frame


def columns(seeds: Sequence[Scores]) -> dict[str, Estimate]:
    """Every column's mean over the sampling seeds, with the 95 % bootstrap interval over pairs.

    A pair is redrawn with the clips of all its seeds, so more seeds never pass for more pairs."""
    table = {}
    for name in COLUMNS:
        field, statistic = ("colours", correlation) if name == "colour" else (name, mean)
        values = np.stack([getattr(scores, field) for scores in seeds], 1)  # [N, S], colours [N, S, 6]
        table[name] = (statistic(values), *bootstrap_interval(values, seed=0, statistic=statistic))
    return table


def mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))


def correlation(colours: np.ndarray) -> float:
    """Of every seed by itself, then their mean: [N, S, 6] -> -1..1."""
    return float(np.mean([colour_correlation(seed[:, :3], seed[:, 3:]) for seed in colours.swapaxes(0, 1)]))


def score(
    clips: list[np.ndarray], pairs: list[Pair], detector: Detector, boxes_of: Callable[[int], np.ndarray] | None = None
) -> Scores:
    """Measure one clip per pair (uint8 [F, H, W, 3]) against the pair's boxes and subject.

    boxes_of: the boxes [F, 4] that pair number i is held against, where they are not the pair's own."""
    boxes_of = boxes_of or (lambda number: pairs[number].boxes)
    target = np.stack([boxes_of(pair.number) for pair in pairs])  # [N, F, 4]
    frames = [to_frames(clip) for clip in clips]
    detected = np.stack([detector.boxes(clip) for clip in frames])
    crops = [in_box_crops(clip, boxes) for clip, boxes in zip(frames, target, strict=True)]
    shown = [clip.mean(0) for clip in crops]
    subjects = [subject_crop(pair.clip.subject, pair.clip.subject_alpha) for pair in pairs]
    own, other, top1, top5 = [], [], [], []
    for gallery in galleries(pairs):
        distances = subject_distances([shown[i] for i in gallery], [subjects[i] for i in gallery])
        own.append(np.diagonal(distances))
        other.append((distances.sum(1) - np.diagonal(distances)) / max(len(distances) - 1, 1))
        first, five = subject_retrieval(distances)
        top1.append(first)
        top5.append(five)
    colours = [
        np.concatenate([in_box_colour(crop, subject), subject.mean_colour])
        for crop, subject in zip(shown, subjects, strict=True)
    ]
    static = []
    for clip, found, boxes in zip(frames, detected, target, strict=True):
        height, width = clip.shape[-2:]
        static.append(background_change(clip, covered(found, height, width) | covered(boxes, height, width)))
    return Scores(
        detected=detected,
        mIoU=mean_iou(detected, target),
        CD=mean_centroid_distance(detected, target),
        misses=missed(detected).mean(-1),
        own=np.concatenate(own),
        other=np.concatenate(other),
        top1=np.concatenate(top1).astype(float),
        top5=np.concatenate(top5).astype(float),
        colours=np.stack(colours),
        static=np.array(static),
        flicker=np.array([flicker(clip, subject) for clip, subject in zip(crops, subjects, strict=True)]),
    )


def shuffled(pairs: list[Pair]) -> Callable[[int], np.ndarray]:
    """Boxes of another pair: those of the next one, and for the last those of the first."""
    return lambda number: pairs[(number + 1) % len(pairs)].boxes
