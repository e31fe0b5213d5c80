"""Subjects found by a word, a box or a point: cut out of a picture, or followed through a reference video."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..dv2_core.boxes import BoxTrack, KeyframePlan, check_smoothing, from_bounding_boxes, rasterize
from ..dv2_core.boxes.formats import write
from ..dv2_core.segment import GROUNDING_DINO, SAM2, Prompt, boxes_from_video, overlay, parse_prompt, subject_mask
from ..dv2_core.segment import feather as soften
from .box_files import summary
from .host import compat, segment_models
from .inputs import UNCONNECTED, repair_inputs, size_inputs
from .notices import said
from .subject import on_canvas
from .types import CATEGORY

PROMPT_HELP = (
    "Instead of the word. JSON in pixels of the {picture}: a box [x1, y1, x2, y2], a point [x, y] on the subject, "
    'several points [[x, y], ...], or {{"box": [...], "points": [[x, y]], "outside": [[x, y]]}} with points beside it.'
)


def find_inputs(picture: str) -> list[Any]:
    """The widgets that say what the subject is. picture: what positions refer to, in a tooltip."""
    return [
        io.String.Input("word", default="",
                        tooltip="What the subject is, in one or a few English words, such as 'dog' or 'red car'."),
        io.String.Input("box_or_point", default="", tooltip=PROMPT_HELP.format(picture=picture)),
        compat.advanced(io.Float, "threshold", default=0.35, min=0.0, max=1.0, step=0.01,
                        tooltip="How sure the detector must be that something is what the word names."),
        compat.advanced(io.Combo, "detector", options=segment_models.choices(GROUNDING_DINO),
                        default=segment_models.AUTO,
                        tooltip="Grounding DINO model in models/grounding-dino, needed for a word. auto: the first."),
        compat.advanced(io.Combo, "segmenter", options=segment_models.choices(SAM2), default=segment_models.AUTO,
                        tooltip="SAM 2 model in models/sam2. auto: the first."),
    ]  # fmt: skip


def bounding_box_input(picture: str) -> Any:
    return compat.bounding_box_input(
        "bounding_box", optional=True,
        tooltip=f"Box of the subject in the {picture}, from another node; instead of the word.",
    )  # fmt: skip


def check_subject(word: str | None, box_or_point: str | None, elsewhere: bool, detector: str | None,
                  segmenter: str | None) -> None:  # fmt: skip
    """Raises ValueError, before anything runs, where the subject is not named or a model is missing.

    None is what is connected, that is, not known yet. elsewhere: whether a box or mask is connected.
    """
    given = elsewhere or box_or_point is None or bool(box_or_point.strip())
    if not given and word is not None and not word.strip():
        raise ValueError(
            "Nothing says what the subject is. Type a word for it into `word`, a box or a point into `box_or_point`, "
            "or connect a box."
        )
    if segmenter is not None:
        segment_models.folder_of(SAM2, segmenter)
    if detector is not None and not given:
        segment_models.folder_of(GROUNDING_DINO, detector)


def subject_of(word: str, box_or_point: str, bounding_box: Any, image: torch.Tensor) -> str | Prompt:
    """The word, or what replaces it. image: [F, H, W, C]."""
    if bounding_box is not None and box_or_point.strip():
        raise ValueError(
            "A bounding_box is connected and box_or_point is filled in; clear one, so that it is clear which counts."
        )
    frames, height, width = image.shape[:3]
    if bounding_box is not None:
        return Prompt(box=from_bounding_boxes(bounding_box, width, height, frames).boxes[0])
    if box_or_point.strip():
        return parse_prompt(box_or_point, width, height)
    return word


class SegmentSubject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2SegmentSubject",
            display_name="Segment Subject (DreamVideo-2)",
            category=CATEGORY,
            description="Cuts the subject out of any picture, found by a word, a box or a point, and places it on a "
            "blank white canvas of the video's size. Needs local Grounding DINO (for a word) and SAM 2 models.",
            search_aliases=["segment", "cut out subject", "remove background", "SAM 2", "Grounding DINO"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("image", tooltip="A picture of the subject; of a batch, the first."),
                *find_inputs("picture"),
                io.Int.Input("feather", default=0, min=0, max=256,
                             tooltip="Softens the cut-out over this many pixels of the picture, inside its outline."),
                *size_inputs(),
                bounding_box_input("picture"),
            ],
            outputs=[
                io.Image.Output(display_name="subject"),
                io.Mask.Output(display_name="subject_mask"),
                io.Mask.Output(display_name="picture_mask", tooltip="The cut-out in the picture, 1 on the subject."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, word: str | None = None, box_or_point: str | None = None, detector: str | None = None,
                        segmenter: str | None = None, bounding_box: Any = UNCONNECTED) -> bool:  # fmt: skip
        """Raises ValueError: a returned sentence ComfyUI shows once per input named here."""
        check_subject(word, box_or_point, bounding_box is not UNCONNECTED, detector, segmenter)
        return True

    @classmethod
    def execute(cls, image: torch.Tensor, word: str, box_or_point: str, threshold: float, detector: str,
                segmenter: str, feather: int, width: int, height: int,
                bounding_box: Any = None) -> io.NodeOutput:  # fmt: skip
        picture = image[:1, ..., :3]
        subject = subject_of(word, box_or_point, bounding_box, picture)
        find = segment_models.detector(detector) if isinstance(subject, str) else None
        cut = segment_models.segmenter(segmenter)
        mask, found = subject_mask(picture[0], subject, cut, find, threshold, segment_models.progress())
        soft = soften(mask, feather)
        canvas, alpha = on_canvas(picture[0], soft, width, height)
        box = () if found.box is None else BoxTrack((found.box,))
        shown = [canvas[0], overlay(picture, mask[None], box)[0]]
        return io.NodeOutput(canvas, alpha, soft[None], ui=ui.PreviewImage(shown, cls=cls))


class BoxesFromVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2BoxesFromVideo",
            display_name="Boxes from Video (DreamVideo-2)",
            category=CATEGORY,
            description="Follows a subject through a reference video, found in its first frame by a word, a box, a "
            "point or a mask, and makes its box per frame. Needs local Grounding DINO (for a word) and SAM 2 models.",
            search_aliases=["track", "motion transfer", "video to boxes", "SAM 2", "Grounding DINO"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("frames", tooltip="The reference video, its frames as one batch of images."),
                *find_inputs("first frame"),
                *repair_inputs(),
                bounding_box_input("first frame"),
                io.Mask.Input("first_mask", optional=True,
                              tooltip="Mask of the subject in the first frame, 1 on it; instead of the word."),
            ],
            outputs=[
                io.Mask.Output(display_name="masks", tooltip="1 inside the box, one per frame."),
                compat.bounding_box_type().Output(display_name="bounding_boxes"),
                io.Int.Output(display_name="length"),
                io.String.Output(display_name="keyframes",
                                 tooltip="For Boxes to Mask (any size and length), Save Boxes and Embed Boxes."),
                io.Mask.Output(display_name="subject_masks", tooltip="1 on the subject itself, one per frame."),
                io.Image.Output(display_name="overlay", tooltip="The frames with the subject tinted and its boxes."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, word: str | None = None, box_or_point: str | None = None, detector: str | None = None,
                        segmenter: str | None = None, smoothing: int | None = None, bounding_box: Any = UNCONNECTED,
                        first_mask: Any = UNCONNECTED) -> bool:  # fmt: skip
        """Raises ValueError: a returned sentence ComfyUI shows once per input named here."""
        if smoothing is not None:
            check_smoothing(smoothing)
        elsewhere = bounding_box is not UNCONNECTED or first_mask is not UNCONNECTED
        check_subject(word, box_or_point, elsewhere, detector, segmenter)
        return True

    @classmethod
    def execute(cls, frames: torch.Tensor, word: str, box_or_point: str, threshold: float, detector: str,
                segmenter: str, fill_gaps: int, smoothing: int, fps: float, bounding_box: Any = None,
                first_mask: torch.Tensor | None = None) -> io.NodeOutput:  # fmt: skip
        frames = frames[..., :3]
        subject: str | Prompt | torch.Tensor = subject_of(word, box_or_point, bounding_box, frames)
        if first_mask is not None:
            if isinstance(subject, Prompt):
                raise ValueError(
                    "A first_mask is connected and a box or a point given as well; take one away, so that it is clear "
                    "which counts."
                )
            subject = first_mask[0] if first_mask.ndim == 3 else first_mask
        find = segment_models.detector(detector) if isinstance(subject, str) else None
        follow = segment_models.video_segmenter(segmenter)
        masks, plan = boxes_from_video(
            frames, subject, follow, find, threshold, fill_gaps, smoothing, fps, segment_models.progress()
        )
        lost = int((~masks.flatten(1).any(1)).sum())
        shown = overlay(frames, masks, plan.tracks)
        return io.NodeOutput(
            rasterize(plan.track(), plan.width, plan.height), write(plan, "bounding_box"), plan.length,
            KeyframePlan.from_plan(plan).to_json(), masks.float(), shown,
            ui={**preview(shown, fps, cls).as_dict(), **said(summary(plan) + (f", lost in {lost}" if lost else ""))},
        )  # fmt: skip


def preview(frames: torch.Tensor, fps: float, cls: Any) -> Any:
    """The video as the page shows it: an animated WebP in ComfyUI's temp folder."""
    save = ui.ImageSaveHelper.save_animated_webp
    name = "dv2_boxes_from_video"
    saved = save(frames, name, io.FolderType.temp, cls, fps, lossless=False, quality=85, method=0)
    return ui.SavedImages([saved], is_animated=True)


NODES: list[Any] = [SegmentSubject, BoxesFromVideo]
