"""How good is the result: a video held against its boxes, and the best of several seeds."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..dv2_core.boxes.formats import write
from ..dv2_core.evaluate.adherence import (
    Adherence,
    Similarity,
    by_dino,
    by_pixels,
    count_videos,
    detected_boxes,
    rank,
    ranking,
    requested_boxes,
)
from ..dv2_core.evaluate.draw import as_image, overlay, plot, ranked_sheet
from ..dv2_core.evaluate.metrics import Array, Misses
from ..dv2_core.segment.folder import check_frames
from .host import compat, evaluate_models, segment_models
from .inputs import UNCONNECTED
from .notices import said
from .types import CATEGORY

PIXELS = "pixels"


def requested_inputs() -> list[Any]:
    return [
        compat.boxes_input("bounding_boxes",
                           tooltip="The boxes that were asked for: of Boxes to Mask (keyframes, bounding_boxes), or of "
                           "any other node."),
        io.Int.Input("width", default=64, min=16, max=8192, tooltip="Width that these boxes were given for."),
        io.Int.Input("height", default=64, min=16, max=8192, tooltip="Height that these boxes were given for."),
    ]  # fmt: skip


def finder_inputs() -> list[Any]:
    """What finds the subject: a detector of this machine, or what other nodes have found."""
    return [
        io.String.Input("word", default="",
                        tooltip="What the subject is, in one or a few English words: what the detector looks for."),
        io.Combo.Input("detector", options=evaluate_models.finder_choices(), default=segment_models.AUTO,
                       tooltip="What finds the subject: a Grounding DINO model in models/grounding-dino (auto: the "
                       "first), or the included one that knows only the miniature's drawn world. Not used where boxes "
                       "or masks are connected."),
        compat.advanced(io.Float, "threshold", default=0.35, min=0.0, max=1.0, step=0.01,
                        tooltip="How sure Grounding DINO must be. Below it, the subject counts as missed."),
        compat.boxes_input("detected_boxes", optional=True,
                           tooltip="Boxes that another detector found in these frames, in their pixels; of several "
                           "with a score the best counts."),
        io.Mask.Input("detected_masks", optional=True,
                      tooltip="Masks of the subject in these frames of any segmentation: their tight boxes count."),
    ]  # fmt: skip


def track_input() -> Any:
    return compat.advanced(io.String, "track", default="", optional=True,
                           tooltip="Id of the subject where the boxes have several; empty: the first.")  # fmt: skip


def check_found(word: str | None, detector: str | None, detected_boxes: Any, detected_masks: Any) -> bool:
    """Raises ValueError, before anything runs, where nothing can find the subject."""
    connected = detected_boxes is not UNCONNECTED or detected_masks is not UNCONNECTED
    if not connected and detector is not None:
        evaluate_models.check_finder(detector, word)
    return True


def find(frames: torch.Tensor, word: str, detector: str, threshold: float, found: Any,
         masks: torch.Tensor | None, track: str) -> Array:  # fmt: skip
    """Boxes [F, 4] of the subject in the frames [F, H, W, 3]: as connected, or as the detector finds them."""
    if found is not None and masks is not None:
        raise ValueError(
            "Both detected_boxes and detected_masks are connected; disconnect one, so that it is clear which counts."
        )
    given = found if masks is None else masks
    if given is not None:
        length, height, width = frames.shape[:3]
        return detected_boxes(given, width, height, length, track)
    return evaluate_models.finder(detector, word, threshold).boxes(frames.permute(0, 3, 1, 2))


class BoxAdherence(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2BoxAdherence",
            display_name="Box Adherence (DreamVideo-2)",
            category=CATEGORY,
            description="Finds the subject in a video and holds it against the boxes that were asked for: mIoU, "
            "distance of the centres, both boxes over the frames, and the values frame by frame.",
            search_aliases=["IoU", "evaluate", "measure", "bounding box score", "does it follow the boxes"],
            inputs=[
                io.Image.Input("frames", tooltip="The video's frames, of any size."),
                *requested_inputs(),
                *finder_inputs(),
                io.Combo.Input("misses", options=["worst", "skip"], default="worst", optional=True,
                               tooltip="A frame in which nothing is found counts as IoU 0 and distance 1 (worst), "
                               "or is left out of the means (skip)."),
                track_input(),
            ],
            outputs=[
                io.Float.Output(display_name="miou", tooltip="Mean IoU, 0 to 1; more is better."),
                io.Float.Output(display_name="centre_distance", tooltip="In frame diagonals, 0 to 1; less is better."),
                io.Float.Output(display_name="detection_rate", tooltip="Share of the frames with a subject, 0 to 1."),
                io.Image.Output(display_name="overlay", tooltip="Requested boxes red, detected ones blue."),
                io.Image.Output(display_name="plot", tooltip="IoU and distance frame by frame; misses are tinted."),
                compat.bounding_box_type().Output(display_name="detected_boxes", tooltip="In pixels of the frames."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, word: str | None = None, detector: str | None = None, detected_boxes: Any = UNCONNECTED,
                        detected_masks: Any = UNCONNECTED) -> bool:  # fmt: skip
        return check_found(word, detector, detected_boxes, detected_masks)

    @classmethod
    def execute(cls, frames: torch.Tensor, bounding_boxes: Any, width: int, height: int, word: str, detector: str,
                threshold: float, detected_boxes: Any = None, detected_masks: torch.Tensor | None = None,
                misses: Misses = "worst", track: str = "") -> io.NodeOutput:  # fmt: skip
        frames = check_frames(frames)
        requested = requested_boxes(bounding_boxes, width, height, len(frames), track)
        detected = find(frames, word, detector, threshold, detected_boxes, detected_masks, track)
        result = Adherence(requested, detected, frames.shape[2], frames.shape[1], misses)
        return io.NodeOutput(
            result.mIoU, result.CD, result.detection_rate, overlay(frames, requested, detected),
            as_image(plot(result)),
            write(result.plan(), "bounding_box"), ui=said(result.summary()),
        )  # fmt: skip


class BestOfN(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2BestOfN",
            display_name="Best of N Seeds (DreamVideo-2)",
            category=CATEGORY,
            description="Ranks several videos of the same boxes by how well they keep to them and how much they show "
            "of the subject, and passes the best one on.",
            search_aliases=["choose seed", "rank", "pick best", "batch", "select video"],
            inputs=[
                io.Image.Input("frames",
                               tooltip="The videos, one after the other: a batch of N times as many frames as there "
                               "are boxes, such as Empty Latent Image makes with that batch size."),
                *requested_inputs(),
                *finder_inputs(),
                io.Image.Input("subject", optional=True,
                               tooltip="The subject's picture, such as Load Subject gives it. Without it, the boxes "
                               "alone decide."),
                io.Mask.Input("subject_mask", optional=True, tooltip="1 on the subject in its picture."),
                io.Combo.Input("similarity", options=[PIXELS, *evaluate_models.dino_choices()], default=PIXELS,
                               optional=True,
                               tooltip="How the boxes' content is compared with the subject: pixel by pixel, or by a "
                               "DINO model in models/dino, which knows it in other poses too."),
                io.Float.Input("subject_weight", default=0.5, min=0.0, max=1.0, step=0.05, optional=True,
                               tooltip="0: the boxes alone decide; 1: the subject alone."),
                track_input(),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="Of the best video."),
                io.Int.Output(display_name="index", tooltip="Its number in the batch, from 0."),
                io.Float.Output(display_name="score", tooltip="Its score, 0 to 1."),
                io.String.Output(display_name="ranking", tooltip="All videos with their values, best first."),
                io.Image.Output(display_name="sheet", tooltip="A row of frames per video, best first; requested boxes "
                                "red, detected ones blue."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, word: str | None = None, detector: str | None = None, detected_boxes: Any = UNCONNECTED,
                        detected_masks: Any = UNCONNECTED) -> bool:  # fmt: skip
        return check_found(word, detector, detected_boxes, detected_masks)

    @classmethod
    def execute(cls, frames: torch.Tensor, bounding_boxes: Any, width: int, height: int, word: str, detector: str,
                threshold: float, detected_boxes: Any = None, detected_masks: torch.Tensor | None = None,
                subject: torch.Tensor | None = None, subject_mask: torch.Tensor | None = None,
                similarity: str = PIXELS, subject_weight: float = 0.5, track: str = "") -> io.NodeOutput:  # fmt: skip
        frames = check_frames(frames)
        requested = requested_boxes(bounding_boxes, width, height, None, track)
        count_videos(len(frames), len(requested))
        alike = None if subject is None else similarity_to(subject[0], subject_mask, similarity)
        detected = find(frames, word, detector, threshold, detected_boxes, detected_masks, track)
        candidates = rank(frames, requested, detected, alike, subject_weight)
        best, length, text = candidates[0], len(requested), ranking(candidates)
        chosen = frames[best.number * length : (best.number + 1) * length]
        sheet = as_image(ranked_sheet(frames, candidates))
        return io.NodeOutput(chosen, best.number, best.score, text, sheet, ui=said(text.splitlines()[0]))


def similarity_to(subject: torch.Tensor, mask: torch.Tensor | None, name: str) -> Similarity:
    """subject [H, W, 3 or 4]; mask [1, H, W] or [H, W]."""
    if name != PIXELS:
        return by_dino(subject, evaluate_models.dino(name))
    return by_pixels(subject, mask[0] if mask is not None and mask.ndim == 3 else mask)


NODES: list[Any] = [BoxAdherence, BestOfN]
