"""Source (c) of the paper, a reference video: the boxes of its subject, from masks of any segmentation."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..dv2_core.boxes import BoxPlan, KeyframePlan, check_smoothing, from_masks, smooth
from ..dv2_core.boxes import fill_gaps as filled
from ..dv2_core.boxes.formats import write
from ..dv2_core.boxes.masks import Component
from ..dv2_core.segment import parse_point
from .box_files import summary
from .host import compat
from .inputs import repair_inputs
from .notices import said
from .types import CATEGORY


class BoxesFromMasks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2BoxesFromMasks",
            display_name="Boxes from Masks (DreamVideo-2)",
            category=CATEGORY,
            description="The path of a reference video's subject: one box per mask, gaps filled, trembling smoothed. "
            "Boxes to Mask brings it to the size and length of your video.",
            search_aliases=["follow video", "mask to box", "reference video", "track", "motion transfer"],
            has_intermediate_output=True,
            inputs=[
                io.Mask.Input("masks", tooltip="1 on the subject, one mask per frame, of any segmentation node."),
                io.Combo.Input("component", options=["all", "largest", "follow"], default="all",
                               tooltip="all: everything in the mask. largest: each frame's largest piece. follow: the "
                               "piece that goes on from frame to frame."),
                *repair_inputs(),
                io.String.Input("point", default="", optional=True,
                                tooltip="Which piece to follow: [x, y] in pixels of the masks, in the first frame that "
                                "has one. Empty: the largest."),
            ],
            outputs=[
                io.String.Output(display_name="keyframes", tooltip="For Boxes to Mask, Save Boxes and Embed Boxes."),
                compat.bounding_box_type().Output(display_name="bounding_boxes", tooltip="In pixels of the masks."),
                io.Int.Output(display_name="width", tooltip="Of the masks."),
                io.Int.Output(display_name="height", tooltip="Of the masks."),
                io.Int.Output(display_name="length", tooltip="Number of masks."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, smoothing: int | None = None) -> bool:
        if smoothing is not None:
            check_smoothing(smoothing)
        return True

    @classmethod
    def execute(cls, masks: torch.Tensor, component: Component, fill_gaps: int, smoothing: int, fps: float,
                point: str = "") -> io.NodeOutput:  # fmt: skip
        start = parse_point(point, masks.shape[-1], masks.shape[-2]) if point.strip() else None
        track = smooth(filled(from_masks(masks, component, start), fill_gaps), smoothing)
        length, height, width = masks.shape
        plan = BoxPlan((track,), width, height, fps)
        hidden = track.visible.count(False)
        ui = said(summary(plan) + (f", hidden in {hidden}" if hidden else ""))
        document = KeyframePlan.from_plan(plan).to_json()
        return io.NodeOutput(document, write(plan, "bounding_box"), width, height, length, ui=ui)


NODES: list[Any] = [BoxesFromMasks]
