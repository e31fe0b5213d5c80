"""Metrics of boxes and pixels, as pure functions; those of embeddings are in `similarity`, of optical flow in `motion`.

Boxes are x0 y0 x1 y1 in 0..1, [..., 4]; a *detected* box may be a row of NaN: nothing was found in that frame. A row of
NaN as the *target*: nothing was asked for in that frame, and it does not count. Pictures are RGB in 0..1, [3, H, W].
mIoU and CD are the paper's (arXiv 2410.13830, evaluation). The measures of the subject are download-free ones, in the
place of CLIP and DINO on "regions inside the target boxes"; no value of theirs compares to a published one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

CROP = 12  # side of the in-box crops that are compared with the subject, in pixels
GALLERY = 48  # subjects that a clip's own subject is told apart from
RESAMPLES = 2000
CONSTANT = 1e-4  # a colour that varies less is constant: pictures have 255 levels

Array = np.ndarray

#: What a frame in which nothing was detected counts: as IoU 0 and CD 1, or not at all.
Misses = Literal["worst", "skip"]


# --- where ------------------------------------------------------------------------------------------------------------


def missed(detected: Array) -> Array:
    """Bool [...]: True where nothing was detected."""
    return np.asarray(np.isnan(detected).any(-1))


def detection_rate(detected: Array, target: Array) -> Array:
    """Share of the frames with a target in which something was detected, [..., F, 4] x 2 -> [...] in 0..1."""
    return over_frames(np.where(missed(target), np.nan, ~missed(detected)), detected)


def iou(detected: Array, target: Array) -> Array:
    """Intersection over union of boxes, [..., 4] x [..., 4] -> [...] in 0..1. A missed frame has 0."""
    low, high = np.maximum(detected[..., :2], target[..., :2]), np.minimum(detected[..., 2:], target[..., 2:])
    intersection = np.prod(np.maximum(high - low, 0), -1)
    areas = np.prod(detected[..., 2:] - detected[..., :2], -1) + np.prod(target[..., 2:] - target[..., :2], -1)
    overlap = np.where(missed(detected), 0.0, intersection / (areas - intersection))
    return np.where(missed(target), np.nan, overlap)


def centroid_distance(detected: Array, target: Array, width: int = 1, height: int = 1) -> Array:
    """Distance of the box centres divided by the frame's diagonal, [..., 4] -> [...] in 0..1. A miss has 1.

    The paper says "normalised" only; the diagonal and the miss are our convention. width and height: the frame's
    sides in any unit (left out: a square frame)."""
    apart = (detected[..., :2] + detected[..., 2:] - target[..., :2] - target[..., 2:]) / 2 * (width, height)
    distance = np.where(missed(detected), 1.0, np.hypot(apart[..., 0], apart[..., 1]) / np.hypot(width, height))
    return np.where(missed(target), np.nan, distance)


def over_frames(values: Array, detected: Array, misses: Misses = "worst") -> Array:
    """Mean over frames of `iou` or `centroid_distance`: values [..., F], detected [..., F, 4] -> [...].

    misses: "worst" counts them as they are, "skip" leaves them out. NaN for a clip that then has no frame left."""
    counted = ~np.isnan(values) & (~missed(detected) if misses == "skip" else True)
    total, count = np.where(counted, values, 0.0).sum(-1), counted.sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def mean_iou(detected: Array, target: Array, misses: Misses = "worst") -> Array:
    """mIoU of every clip: mean of `iou` over its frames, [..., F, 4] x 2 -> [...]."""
    return over_frames(iou(detected, target), detected, misses)


def mean_centroid_distance(detected: Array, target: Array, width: int = 1, height: int = 1,
                           misses: Misses = "worst") -> Array:  # fmt: skip
    """CD of every clip: mean of `centroid_distance` over its frames, [..., F, 4] x 2 -> [...]."""
    return over_frames(centroid_distance(detected, target, width, height), detected, misses)


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


def subject_crop(image: torch.Tensor, alpha: torch.Tensor, side: int = CROP) -> SubjectCrop:
    """The tight crop of a subject image: image [3, H, W], alpha [H, W] (bool or 0..1) -> side x side pixels.

    Colours are averaged over the subject's own pixels only, so the white canvas does not bleed in."""
    alpha = alpha.float()
    rows, columns = (alpha > 0).any(1).nonzero().flatten(), (alpha > 0).any(0).nonzero().flatten()
    if not len(rows):
        raise ValueError("The subject image has an empty mask; there is no subject to compare with.")
    window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    layers = torch.cat([image * alpha, alpha[None]])[(slice(None), *window)]  # premultiplied
    layers = shrink(layers[None], side)[0]
    return SubjectCrop(layers[:3] / layers[3].clamp(min=1e-6), layers[3])


def in_box_crops(frames: torch.Tensor, boxes: Array, side: int = CROP) -> torch.Tensor:
    """What every frame shows in its box: frames [F, 3, H, W], boxes [F, 4] -> [F, 3, side, side]."""
    height, width = frames.shape[-2:]
    crops = []
    for frame, box in zip(frames, boxes, strict=True):
        x0, y0, x1, y1 = (
            round(float(v) * length) for v, length in zip(box, (width, height, width, height), strict=True)
        )
        crops.append(shrink(frame[None, :, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)], side)[0])
    return torch.stack(crops)


def shrink(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """[N, C, h, w] -> [N, C, side, side], antialiased."""
    return F.interpolate(pictures.float(), (side, side), mode="bilinear", antialias=True)


def weighted_mean(colour: torch.Tensor, weight: torch.Tensor) -> Array:
    return ((colour * weight).sum((1, 2)) / weight.sum()).double().numpy()


def subject_mse(crop: torch.Tensor, subject: SubjectCrop) -> float:
    """Mean squared error of crop [3, CROP, CROP] against a subject, weighted by its coverage; colours run from -1 to 1.

    The better of the subject and its mirror image, since a subject may face either way in the video."""
    return min(weighted_mse(crop, face) for face in (subject, mirrored(subject)))


def pixel_similarity(crop: torch.Tensor, subject: SubjectCrop) -> float:
    """1 - root of `subject_mse` / 2: 1 for the subject's very pixels, 0 for the opposite of each."""
    return 1 - subject_mse(crop, subject) ** 0.5 / 2


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


def copy_paste(crops: torch.Tensor, subject: SubjectCrop) -> float:
    """How much the boxes show the subject's very picture, at its own pose: -1..1, the mean over frames.

    crops [F, 3, h, w] of the boxes and the subject's tight crop at that size. Correlation of their detail, weighted by
    the subject's coverage: 1 for the same picture at any brightness and contrast, near 0 for another pose or another
    subject, 0 for a crop of one colour. High values beside prompts that ask for another pose are the copy-paste look
    that the paper's reviewers saw. Our measure, not the paper's."""
    weight = (subject.weight / subject.weight.sum()).double()

    def detail(picture: torch.Tensor) -> torch.Tensor:
        """Without each channel's mean."""
        return picture.double() - (picture * weight).sum((1, 2), keepdim=True)

    own = detail(subject.colour)
    own_spread = float((own**2 * weight).sum())
    correlations = []
    for crop in map(detail, crops):
        spread, shared = float((crop**2 * weight).sum()), float((crop * own * weight).sum())
        flat = min(spread, own_spread) < CONSTANT**2
        correlations.append(0.0 if flat else shared / (spread * own_spread) ** 0.5)
    return float(np.mean(correlations))


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


@dataclass(frozen=True)
class Paired:
    """Two runs on the same clips: mean of (one - other), its 95 % interval, and the share of clips where one is higher
    (ties count half)."""

    clips: int
    difference: float
    low: float
    high: float
    higher: float


def paired(one: Array, other: Array, seed: int = 0) -> Paired:
    """Compare two runs clip by clip, [N] each in the same order; clips that are NaN in either are left out.

    Raises ValueError for another number of clips, and if none is left."""
    if one.shape != other.shape:
        raise ValueError(f"The runs have {len(one)} and {len(other)} values; give one per clip, of the same clips.")
    differences = (one - other)[~np.isnan(one - other)]
    if not len(differences):
        raise ValueError("The two runs share no clip with a value; compare runs of the same benchmark.")
    higher = float((differences > 0).mean() + (differences == 0).mean() / 2)
    return Paired(len(differences), float(differences.mean()), *bootstrap_interval(differences, seed), higher)
