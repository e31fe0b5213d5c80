"""Boxes: from text, other nodes' boxes or masks to the mask of every frame, and drawn over frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io

from ..dv2_core.boxes import BoxPlan, draw_boxes, rasterize
from ..dv2_core.boxes.formats import read_any, write
from ..dv2_core.boxes.preflight import Preflight, check_plan, off_canvas
from .box_files import document_in, summary
from .host import compat
from .host.adapter import HostAdapter
from .host.frames import under_boxes
from .inputs import UNCONNECTED, point_size_inputs, size_inputs
from .notices import said
from .types import CATEGORY, Adapter

DEFAULT = '{"first": [2, 22, 36, 62], "last": [28, 4, 62, 44]}'
READINGS = ["auto", "bbox_xyxy", "bbox_xywh", "segs_frames", "segs_subjects", "detections"]
BOXES_HELP = (
    'JSON. First and last box: {"first": [x1, y1, x2, y2], "last": [...]}; first box and a path of centres: '
    '{"first": [...], "trajectory": [[x, y], ...]}; keyframes: [{"frame": 0, "box": [...]}, ...]; or one box per '
    "frame. In pixels of width x height. Also a keyframe document, KJ / ATI points, or CSV."
)


class BoxesToMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2BoxesToMask",
            display_name="Boxes to Mask (DreamVideo-2)",
            category=CATEGORY,
            description="One box per frame, from first and last box, keyframes, a first box and a trajectory, other "
            "nodes' boxes, or a mask video. Connected boxes or masks replace the text.",
            search_aliases=["bounding box", "trajectory", "motion path", "box mask", "bbox", "convert boxes"],
            has_intermediate_output=True,
            inputs=[
                io.String.Input("boxes", default=DEFAULT, multiline=True, tooltip=BOXES_HELP),
                io.Int.Input("length", default=8, min=1, max=4096, tooltip="Frames of the video."),
                *size_inputs(),
                compat.boxes_input("bounding_boxes", optional=True,
                                   tooltip="Boxes of any node: BOUNDING_BOX, BBOX, SEGS, TRACKS, ARRAY of elements, "
                                   "STRING (a keyframe document, KJ / ATI points); one for all frames or one per "
                                   "frame."),
                io.Mask.Input("mask", optional=True,
                              tooltip="A mask video of the subject [length, height, width]: its tight boxes are used."),
                io.String.Input("track", default="", optional=True,
                                tooltip="Id of the subject whose masks and boxes are put out; empty: the first."),
                io.Boolean.Input("resample", default=False, optional=True,
                                 tooltip="Off: boxes for another number of frames are refused. On: the same motion in "
                                 "length frames."),
                compat.advanced(io.Combo, "format", options=READINGS, default="auto", optional=True,
                                tooltip="What four bare numbers (bbox), several SEGS of one picture or several boxes "
                                "without names in a frame (detections: the surest one is followed) mean. auto asks "
                                "where several readings are possible."),
                compat.advanced(io.Int, "source_width", default=0, min=0, max=8192, optional=True,
                                tooltip="Width in pixels that the boxes were given for; 0: width."),
                compat.advanced(io.Int, "source_height", default=0, min=0, max=8192, optional=True,
                                tooltip="Height in pixels that the boxes were given for; 0: height."),
                *point_size_inputs(),
                io.Image.Input("background", optional=True,
                               tooltip="Picture or video under the boxes of the preview, of any size."),
                Adapter.Input("adapter", optional=True,
                              tooltip="Checks the boxes against what this adapter was trained on; nothing is changed."),
            ],
            outputs=[
                io.Mask.Output(display_name="masks", tooltip="1 inside the box, one per frame."),
                compat.bounding_box_type().Output(display_name="bounding_boxes"),
                io.Int.Output(display_name="length"),
                compat.tracks_type().Output(display_name="tracks", tooltip="Centres of all subjects' boxes."),
                io.String.Output(display_name="keyframes", tooltip="All subjects as a keyframe document (JSON)."),
                io.Image.Output(display_name="preview", tooltip="All boxes with their frame numbers."),
                io.String.Output(display_name="points",
                                 tooltip="Centres of all subjects' boxes as KJ / ATI points, for Wan Track To Video."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, boxes: str | None = None, length: int | None = None, width: int | None = None,
                        height: int | None = None, bounding_boxes: Any = UNCONNECTED, mask: Any = UNCONNECTED,
                        track: str | None = "", resample: bool | None = False, format: str | None = "auto",
                        source_width: int | None = 0, source_height: int | None = 0, box_width: int | None = 0,
                        box_height: int | None = 0) -> bool:  # fmt: skip
        """Checks the text unless it is replaced. What is connected is None here: its value is not known yet.

        Raises ValueError: a returned sentence ComfyUI shows once per input named here.
        """
        settings: dict[str, Any] = dict(
            length=length, width=width, height=height, resample=resample, fmt=format, source_width=source_width,
            source_height=source_height, box_width=box_width, box_height=box_height,
        )  # fmt: skip
        replaced = bounding_boxes is not UNCONNECTED or mask is not UNCONNECTED
        if replaced or boxes is None or track is None or None in settings.values():
            return True
        plan = read_plan(boxes, **settings)
        plan.track(track)
        check_plan(plan).raise_errors()
        return True

    @classmethod
    def execute(cls, boxes: str, length: int, width: int, height: int, bounding_boxes: Any = None,
                mask: torch.Tensor | None = None, track: str = "", resample: bool = False, format: str = "auto",
                source_width: int = 0, source_height: int = 0, box_width: int = 0, box_height: int = 0,
                background: torch.Tensor | None = None,
                adapter: HostAdapter | None = None) -> io.NodeOutput:  # fmt: skip
        if bounding_boxes is not None and mask is not None:
            raise ValueError(
                "Both bounding_boxes and mask are connected; disconnect one, so that it is clear which counts."
            )
        if mask is not None:
            check_mask(mask, length, source_width or width, source_height or height, resample)
        value = next(given for given in (mask, bounding_boxes, boxes) if given is not None)
        plan = read_plan(value, length, width, height, resample, format, source_width, source_height, box_width,
                         box_height)  # fmt: skip
        chosen = plan.track(track)
        told = preflight(value, plan, adapter)
        told.raise_errors()
        return io.NodeOutput(
            rasterize(chosen, width, height),
            write(plan, "bounding_box", track=chosen.obj_id),
            length,
            write(plan, "tracks"),
            write(plan, "keyframes"),
            draw_boxes(under_boxes(background, length, width, height), plan.tracks, numbers=True),
            write(plan, "points"),
            ui=said(summary(plan), told.warnings),
        )


def read_plan(value: Any, length: int, width: int, height: int, resample: bool = False, fmt: str = "auto",
              source_width: int = 0, source_height: int = 0, box_width: int = 0,
              box_height: int = 0) -> BoxPlan:  # fmt: skip
    """Boxes of any kind -> the plan of a video of `length` frames of width x height. Sizes of 0 are not given."""
    source = (source_width or width, source_height or height)
    size = (box_width, box_height) if box_width and box_height else None
    try:
        plan = read_any(value, *source, None if resample else length, fmt, size=size)
    except ValueError:
        if not resample:
            raise
        # Keyframes in a text, say, have no length of their own. What is wrong otherwise is refused here again.
        plan = read_any(value, *source, length, fmt, size=size)
    plan = plan if plan.length == length else plan.resample(length)
    return replace(plan, width=width, height=height)


def preflight(value: Any, plan: BoxPlan, adapter: HostAdapter | None) -> Preflight:
    """What is worth saying about the boxes; of keyframes also what of them lies outside the canvas."""
    told = check_plan(plan, **(adapter.trained_boxes() if adapter else {}))
    document = document_in(value) if isinstance(value, str) else None
    if document is None:
        return told
    document = replace(document, width=plan.width, height=plan.height)
    return replace(told, warnings=(*told.warnings, *off_canvas(document)))


def check_mask(mask: torch.Tensor, length: int, width: int, height: int, resample: bool) -> None:
    fits = (resample or mask.shape[0] == length) and tuple(mask.shape[1:]) == (height, width)
    if mask.ndim == 3 and not fits:
        raise ValueError(
            f"The mask has {mask.shape[0]} frames of {mask.shape[2]}x{mask.shape[1]} pixels, but the video has "
            f"{length} of {width}x{height}. Resize the mask, or set length, width and height to the mask's. "
            "Switch resample on for another number of frames; set source_width and source_height to the mask's for "
            "another size."
        )


class DrawBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2DrawBoxes",
            display_name="Draw Boxes (DreamVideo-2)",
            category=CATEGORY,
            description="Draws the boxes of all subjects over the frames, to see whether each is where it should be.",
            search_aliases=["box overlay", "bounding box preview"],
            inputs=[
                io.Image.Input("frames", tooltip="The video's frames, of any size."),
                compat.boxes_input("bounding_boxes",
                                   tooltip="Of Boxes to Mask (bounding_boxes: one subject; keyframes: all of them) or "
                                   "any other node."),
                io.Int.Input("width", default=64, min=16, max=8192, tooltip="Width that the boxes were given for."),
                io.Int.Input("height", default=64, min=16, max=8192, tooltip="Height that the boxes were given for."),
                io.Boolean.Input("numbers", default=False, tooltip="Write the frame number into each box."),
            ],
            outputs=[io.Image.Output(display_name="frames")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, frames: torch.Tensor, bounding_boxes: Any, width: int, height: int, numbers: bool
    ) -> io.NodeOutput:
        plan = read_any(bounding_boxes, width, height, frames.shape[0])
        return io.NodeOutput(draw_boxes(frames, plan.tracks, numbers))


NODES: list[Any] = [BoxesToMask, DrawBoxes]
