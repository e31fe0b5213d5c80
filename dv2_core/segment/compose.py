"""Detector and segmenter together: the subject of a picture cut out, and the box plan of a reference video."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..boxes import BoxPlan, BoxTrack, draw_boxes, fill_gaps, from_masks, smooth
from .detector import THRESHOLD, Detector
from .folder import Progress, check_frames
from .prompt import Prompt
from .sam2 import Segmenter, VideoSegmenter

#: A piece of a mask smaller than this part of the largest one is a slip of the network; larger ones are the subject
#: behind something.
SPECK = 0.05

#: Colour and strength in which `overlay` shows a mask.
TINT, TINT_SHARE = (0.10, 0.65, 1.00), 0.45


def locate(
    image: Tensor,
    subject: str | Prompt,
    detector: Detector | None,
    threshold: float = THRESHOLD,
    where: str = "the picture",
) -> Prompt:
    """Where the subject is in one picture [H, W, 3]: as given, or the best box of what the word names.

    where: the picture's name in sentences. Raises ValueError when nothing reaches the threshold, and for a word
    without a detector.
    """
    if isinstance(subject, Prompt):
        return subject
    if detector is None:
        raise ValueError(f"A detector is needed to find {subject!r}; give one, or a box or a point of the subject.")
    return Prompt(box=detector.find(image, subject, threshold, where).box)


def subject_mask(
    image: Tensor,
    subject: str | Prompt,
    segmenter: Segmenter,
    detector: Detector | None = None,
    threshold: float = THRESHOLD,
    progress: Progress | None = None,
) -> tuple[Tensor, Prompt]:
    """The subject of one picture: (mask bool [H, W], where it was looked for).

    image: [H, W, 3], 0..1. subject: the word for it, found by `detector` with at least `threshold`, or a prompt.
    Source: arXiv 2410.13830 segments the subject image before use.
    Raises ValueError when nothing is what the word names, and when the segmenter finds nothing there.
    """
    if progress:
        progress(0, 2)
    prompt = locate(image, subject, detector, threshold)
    if progress:
        progress(1, 2)
    mask = without_specks(segmenter.segment(image[None], [prompt]))[0]
    if not bool(mask.any()):
        raise ValueError(
            "The segmentation model finds no subject there; give a box that holds all of it, or a point on it."
        )
    if progress:
        progress(2, 2)
    return mask, prompt


def boxes_from_video(
    frames: Tensor,
    subject: str | Prompt | Tensor,
    segmenter: VideoSegmenter,
    detector: Detector | None = None,
    threshold: float = THRESHOLD,
    gaps: int = 4,
    smoothing: int = 9,
    fps: float = 8.0,
    progress: Progress | None = None,
) -> tuple[Tensor, BoxPlan]:
    """A reference video's subject: (masks bool [F, H, W], plan of one track of F boxes).

    frames: [F, H, W, 3], 0..1. subject: the word for it, found by `detector` in the first frame with at least
    `threshold`, or where it is in that frame (a prompt, or its mask [H, W]). `segmenter` follows it from there. Boxes
    are those of `from_masks`; in a frame without a mask the subject is not visible.
    gaps: so many hidden frames in a row are filled (`fill_gaps`). smoothing: window of `smooth` in frames, 0 for none.
    fps: goes into the plan.

    Source: arXiv 2410.13830, boxes from a reference video; detector and segmenter as in its data pipeline, with SAM 2's
    video model in DEVA's place.
    Raises ValueError when nothing in the first frame is what the word names, when the segmenter finds nothing there,
    and for unusable frames.
    """
    frames = check_frames(frames)
    total = len(frames) + 1
    if progress:
        progress(0, total)
    given = isinstance(subject, Tensor)
    start = subject if given else locate(frames[0], subject, detector, threshold, "frame 1")
    if progress:
        progress(1, total)
    step = None if progress is None else lambda done, _: progress(done + 1, total)
    masks = without_specks(segmenter.track(frames, start, step))
    if not bool(masks.any()):
        raise ValueError(
            f"The segmentation model finds no subject in any of the {len(frames)} frames; give a box that holds all of "
            "it in frame 1, or a point on it."
        )
    track = smooth(fill_gaps(from_masks(masks), gaps), smoothing)
    if isinstance(subject, str):
        track = replace(track, label=subject.strip())
    return masks, BoxPlan((track,), frames.shape[2], frames.shape[1], fps)


def without_specks(masks: Tensor) -> Tensor:
    """Masks bool [F, H, W] without the pieces (joined over edges or corners) under SPECK of each frame's largest."""
    from scipy import ndimage

    kept = torch.zeros_like(masks)
    for t, mask in enumerate(masks.numpy()):
        labelled: Any = ndimage.label(mask, [[1, 1, 1]] * 3)  # typed as its other form, which gives a number alone
        pieces, count = labelled
        if count:
            sizes = torch.from_numpy(pieces).flatten().bincount()
            sizes[0] = 0
            kept[t] = (sizes >= SPECK * sizes.max())[torch.from_numpy(pieces).long()] & masks[t]
    return kept


def overlay(frames: Tensor, masks: Tensor, tracks: BoxTrack | tuple[BoxTrack, ...] = ()) -> Tensor:
    """The masks [F, H, W] as a tint, and boxes, over a copy of the frames [F, H, W, 3]: for looking at."""
    weight = masks.to(frames)[..., None] * TINT_SHARE
    tinted = frames * (1 - weight) + frames.new_tensor(TINT) * weight
    return draw_boxes(tinted, tracks)


def feather(mask: Tensor, pixels: float) -> Tensor:
    """A mask [H, W] with a soft edge of about `pixels` inside its outline: float32, 0..1; unchanged for 0.

    The edge lies inside, since outside it the picture shows background, which would come along as a fringe.
    Raises ValueError for a negative width.
    """
    if pixels < 0:
        raise ValueError(f"The feather is {pixels} pixels; it must be 0 or more.")
    mask = mask.float()
    if pixels == 0:
        return mask
    # A Gaussian blur is 1/2 on a straight outline and near 1 two standard deviations inside.
    reach = max(1, round(1.5 * pixels))
    offsets = torch.arange(-reach, reach + 1, device=mask.device)
    kernel = torch.exp(-2 * (offsets / pixels) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    side = (reach, reach)
    rows = torch.nn.functional.pad(mask[:, None], side, mode="replicate")  # [H, 1, W + 2 reach]
    blurred = torch.nn.functional.conv1d(rows, kernel)[:, 0]
    columns = torch.nn.functional.pad(blurred.T[:, None], side, mode="replicate")
    blurred = torch.nn.functional.conv1d(columns, kernel)[:, 0].T
    return torch.minimum(mask, (2 * blurred - 1).clamp(0, 1))
