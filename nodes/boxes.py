"""Boxes: from text, boxes or masks to the mask of every frame, and drawn over frames."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..dv2_core.boxes import draw_boxes, from_bounding_boxes, from_masks, parse_boxes, rasterize, to_bounding_boxes
from .host import compat
from .subject import size_inputs
from .types import CATEGORY

DEFAULT = '{"first": [2, 22, 36, 62], "last": [28, 4, 62, 44]}'
UNCONNECTED = object()
BOXES_HELP = (
    'JSON. First and last box: {"first": [x1, y1, x2, y2], "last": [...]}; first box and a path of centres: '
    '{"first": [...], "trajectory": [[x, y], ...]}; keyframes: [{"frame": 0, "box": [...]}, ...]; or one box per '
    "frame. In pixels of width x height."
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
            search_aliases=["bounding box", "trajectory", "motion path", "box mask", "bbox"],
            inputs=[
                io.String.Input("boxes", default=DEFAULT, multiline=True, tooltip=BOXES_HELP),
                io.Int.Input("length", default=8, min=1, max=4096, tooltip="Frames of the video."),
                *size_inputs(),
                compat.bounding_box_input("bounding_boxes", optional=True,
                                          tooltip="Boxes from another node: one for all frames, or a list per frame."),
                io.Mask.Input("mask", optional=True,
                              tooltip="A mask video of the subject [length, height, width]: its tight boxes are used."),
            ],
            outputs=[
                io.Mask.Output(display_name="masks", tooltip="1 inside the box, one per frame."),
                compat.bounding_box_type().Output(display_name="bounding_boxes"),
                io.Int.Output(display_name="length"),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, boxes: str | None, length: int | None, width: int | None, height: int | None,
                        bounding_boxes: Any = UNCONNECTED, mask: Any = UNCONNECTED) -> bool | str:  # fmt: skip
        """Checks the text unless it is replaced. What is connected is None here: its value is not known yet."""
        try:
            replaced = bounding_boxes is not UNCONNECTED or mask is not UNCONNECTED
            if not replaced and boxes is not None and length is not None and width is not None and height is not None:
                parse_boxes(boxes, length, width, height)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, boxes: str, length: int, width: int, height: int, bounding_boxes: Any = None,
                mask: torch.Tensor | None = None) -> io.NodeOutput:  # fmt: skip
        if bounding_boxes is not None and mask is not None:
            raise ValueError(
                "Both bounding_boxes and mask are connected; disconnect one, so that it is clear which counts."
            )
        if mask is not None:
            if tuple(mask.shape) != (length, height, width):
                raise ValueError(
                    f"The mask has {mask.shape[0]} frames of {mask.shape[2]}x{mask.shape[1]} pixels, but the video has "
                    f"{length} of {width}x{height}. Resize the mask, or set length, width and height to the mask's."
                )
            track = from_masks(mask)
        elif bounding_boxes is not None:
            track = from_bounding_boxes(bounding_boxes, width, height, length)
        else:
            track = parse_boxes(boxes, length, width, height)
        return io.NodeOutput(rasterize(track, width, height), to_bounding_boxes(track, width, height), track.length)


class DrawBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2DrawBoxes",
            display_name="Draw Boxes (DreamVideo-2)",
            category=CATEGORY,
            description="Draws one box per frame over the frames, to see whether the subject is where it should be.",
            search_aliases=["box overlay", "bounding box preview"],
            inputs=[
                io.Image.Input("frames"),
                compat.bounding_box_input(
                    "bounding_boxes", tooltip="Of Boxes to Mask, for frames of its width and height."
                ),
                io.Int.Input("width", default=64, min=16, max=8192, tooltip="Width that the boxes were given for."),
                io.Int.Input("height", default=64, min=16, max=8192, tooltip="Height that the boxes were given for."),
                io.Boolean.Input("numbers", default=False, tooltip="Write the frame number into each box."),
            ],
            outputs=[io.Image.Output(display_name="frames")],
        )

    @classmethod
    def execute(
        cls, frames: torch.Tensor, bounding_boxes: Any, width: int, height: int, numbers: bool
    ) -> io.NodeOutput:
        track = from_bounding_boxes(bounding_boxes, width, height, frames.shape[0])
        return io.NodeOutput(draw_boxes(frames, track, numbers))


NODES: list[Any] = [BoxesToMask, DrawBoxes]
