"""The metrics of the evaluation table, as pure functions.

Boxes are x0 y0 x1 y1 in 0..1, [..., 4]; a *detected* box may be a row of NaN: nothing was found in that frame.
Pictures are RGB in 0..1, [3, H, W]. Definitions follow the paper's evaluation (mIoU, CD, and the "regions inside the
target boxes" of its R- metrics) with download-free subject features in the place of CLIP and DINO; no value here
compares to a published one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

CROP = 12  # side of the in-box crops that are compared with the subject, in pixels
GALLERY = 48  # subjects that a clip's own subject is told apart from
RESAMPLES = 2000
CONSTANT = 1e-4  # a colour that varies less is constant: pictures have 255 levels

Array = np.ndarray


# --- where ------------------------------------------------------------------------------------------------------------


def missed(detected: Array) -> Array:
    """Bool [...]: True where nothing was detected."""
    return np.asarray(np.isnan(detected).any(-1))


def iou(detected: Array, target: Array) -> Array:
    """Intersection over union of boxes, [..., 4] x [..., 4] -> [...] in 0..1. A missed frame has 0."""
    low, high = np.maximum(detected[..., :2], target[..., :2]), np.minimum(detected[..., 2:], target[..., 2:])
    intersection = np.prod(np.maximum(high - low, 0), -1)
    areas = np.prod(detected[..., 2:] - detected[..., :2], -1) + np.prod(target[..., 2:] - target[..., :2], -1)
    return np.where(missed(detected), 0.0, intersection / (areas - intersection))


def mean_iou(detected: Array, target: Array) -> Array:
    """mIoU of every clip: mean of `iou` over its frames, [..., F, 4] -> [...]; misses count as 0 (our convention)."""
    return iou(detected, target).mean(-1)


def centroid_distance(detected: Array, target: Array, width: int = 1, height: int = 1) -> Array:
    """CD: distance of the box centres divided by the frame's diagonal, [..., 4] -> [...] in 0..1. A miss has 1.

    The paper says "normalised" only; the diagonal and the miss are our convention. width and height: the frame's
    sides in any unit (left out: a square frame)."""
    apart = (detected[..., :2] + detected[..., 2:] - target[..., :2] - target[..., 2:]) / 2 * (width, height)
    return np.where(missed(detected), 1.0, np.hypot(apart[..., 0], apart[..., 1]) / np.hypot(width, height))


# --- what -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SubjectCrop:
    """A subject as the comparisons see it: colour [3, CROP, CROP] and weight [CROP, CROP], its coverage in 0..1."""

    colour: torch.Tensor
    weight: torch.Tensor

    @property
    def mean_colour(self) -> Array:
        """RGB [3], weighted by coverage."""
        return weighted_mean(self.colour, self.weight)


def subject_crop(image: torch.Tensor, alpha: torch.Tensor) -> SubjectCrop:
    """The tight crop of a subject image: image [3, H, W], alpha [H, W] (bool or 0..1) -> CROP x CROP.

    Colours are averaged over the subject's own pixels only, so the white canvas does not bleed in."""
    alpha = alpha.float()
    rows, columns = (alpha > 0).any(1).nonzero().flatten(), (alpha > 0).any(0).nonzero().flatten()
    if not len(rows):
        raise ValueError("The subject image has an empty mask; there is no subject to compare with.")
    window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    layers = torch.cat([image * alpha, alpha[None]])[(slice(None), *window)]  # premultiplied
    layers = shrink(layers[None])[0]
    return SubjectCrop(layers[:3] / layers[3].clamp(min=1e-6), layers[3])


def in_box_crops(frames: torch.Tensor, boxes: Array) -> torch.Tensor:
    """What every frame shows in its box: frames [F, 3, H, W], boxes [F, 4] -> [F, 3, CROP, CROP]."""
    height, width = frames.shape[-2:]
    crops = []
    for frame, box in zip(frames, boxes, strict=True):
        x0, y0, x1, y1 = (round(float(v) * side) for v, side in zip(box, (width, height, width, height), strict=True))
        crops.append(shrink(frame[None, :, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])[0])
    return torch.stack(crops)


def shrink(pictures: torch.Tensor) -> torch.Tensor:
    """[N, C, h, w] -> [N, C, CROP, CROP], antialiased."""
    return F.interpolate(pictures.float(), (CROP, CROP), mode="bilinear", antialias=True)


def weighted_mean(colour: torch.Tensor, weight: torch.Tensor) -> Array:
    return ((colour * weight).sum((1, 2)) / weight.sum()).double().numpy()


def subject_mse(crop: torch.Tensor, subject: SubjectCrop) -> float:
    """Mean squared error of crop [3, CROP, CROP] against a subject, weighted by its coverage; colours run from -1 to 1.

    The better of the subject and its mirror image, since a subject may face either way in the video."""
    return min(weighted_mse(crop, face) for face in (subject, mirrored(subject)))


def mirrored(subject: SubjectCrop) -> SubjectCrop:
    return SubjectCrop(subject.colour.flip(-1), subject.weight.flip(-1))


def weighted_mse(crop: torch.Tensor, subject: SubjectCrop) -> float:
    error = (2 * (crop - subject.colour)) ** 2  # the factor is that of the range -1..1
    return float((error.mean(0) * subject.weight).sum() / subject.weight.sum())


def better_face(crop: torch.Tensor, subject: SubjectCrop) -> SubjectCrop:
    """The subject, facing the way that is nearer to a crop."""
    return min((subject, mirrored(subject)), key=lambda face: weighted_mse(crop, face))


def in_box_colour(crop: torch.Tensor, subject: SubjectCrop) -> Array:
    """Mean colour RGB [3] of a crop where the subject should be: weighted by its coverage, facing the better way."""
    return weighted_mean(crop, better_face(crop, subject).weight)


def colour_correlation(in_box: Array, subject: Array) -> float:
    """Pearson correlation over clips of in-box colour with the subject's colour, [N, 3] each; mean of R, G and B.

    A channel counts as 0 where it is constant over the clips (to rounding)."""
    channels = []
    for a, b in zip(in_box.T, subject.T, strict=True):
        a, b = a - a.mean(), b - b.mean()
        constant = min(np.abs(a).max(), np.abs(b).max()) < CONSTANT
        channels.append(0.0 if constant else (a @ b) / np.sqrt((a @ a) * (b @ b)))
    return float(np.mean(channels))


def subject_distances(crops: list[torch.Tensor], subjects: list[SubjectCrop]) -> Array:
    """`subject_mse` of every crop against every subject of its gallery, [N, N]; the diagonal is the own subject."""
    return np.array([[subject_mse(crop, subject) for subject in subjects] for crop in crops])


def subject_retrieval(distances: Array) -> tuple[Array, Array]:
    """Is the own subject the nearest of the gallery, is it among the nearest five: two bool [N] from [N, N] distances.

    A tie counts against the own subject, so an answer that fits all subjects alike retrieves none."""
    own = np.diagonal(distances)[:, None]
    nearer = (distances <= own).sum(1) - 1  # without the own subject itself
    return nearer < 1, nearer < 5


# --- how steady -------------------------------------------------------------------------------------------------------


def flicker(crops: torch.Tensor, subject: SubjectCrop) -> float:
    """Mean squared change of in-box crops [F, 3, CROP, CROP] from frame to frame, weighted by the subject's coverage.

    Colours run from -1 to 1, as in `subject_mse`. One frame alone has 0."""
    weight = better_face(crops.mean(0), subject).weight
    changes = [weighted_mse(a, SubjectCrop(b, weight)) for a, b in zip(crops, crops[1:], strict=False)]
    return float(np.mean(changes)) if changes else 0.0


def covered(boxes: Array, height: int, width: int, margin: int = 0) -> torch.Tensor:
    """Every pixel that a box touches, grown by `margin` pixels: [F, 4], rows of NaN have none -> bool [F, H, W]."""
    mask = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for frame in np.flatnonzero(~missed(boxes)):
        low = np.maximum(np.floor(boxes[frame, :2] * (width, height)).astype(int) - margin, 0)
        high = np.maximum(np.ceil(boxes[frame, 2:] * (width, height)).astype(int) + margin, 0)
        mask[frame, low[1] : high[1], low[0] : high[0]] = True
    return mask


def background_change(frames: torch.Tensor, inside: torch.Tensor) -> float:
    """Mean absolute change from frame to frame of the pixels that lie outside in both: 0..1.

    frames [F, 3, H, W]; inside bool [F, H, W], True where the subject may be. NaN if no pixel is ever outside."""
    outside = ~(inside[1:] | inside[:-1])  # [F-1, H, W]
    change = (frames[1:] - frames[:-1]).abs().mean(1)  # [F-1, H, W]
    return float(change[outside].mean())


# --- how sure ---------------------------------------------------------------------------------------------------------


def bootstrap_interval(
    values: Array, seed: int, statistic: Callable[[Array], float] = np.mean, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of `statistic` over clips: values [N, ...] are redrawn, N of N, on axis 0."""
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
