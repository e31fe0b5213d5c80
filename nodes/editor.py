"""The box editor: boxes drawn on keyframes in the page, as masks, boxes and the keyframe document."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from ..dv2_core.boxes import KeyframePlan, rasterize, to_bounding_boxes
from ..dv2_core.boxes.formats import read_any
from .host import compat
from .host.frames import under_boxes
from .inputs import UNCONNECTED, size_inputs
from .types import CATEGORY

EMPTY = "The box editor is empty: drag a box on its canvas, or connect bounding_boxes to start from."
BACKGROUND_FRAMES, BACKGROUND_SIDE = 64, 768  # what the page gets to see of a connected video


@io.comfytype(io_type="DV2_BOX_DOCUMENT")
class BoxDocument(io.ComfyTypeIO):
    """The keyframe document as text; web/js draws the widget for it."""

    Type = str

    class Input(io.WidgetInput):
        pass


def read_document(document: str, length: int) -> KeyframePlan | None:
    """The plan of a document, None of an empty one. Raises ValueError for a bad one and for another length."""
    if not document.strip():
        return None
    plan = KeyframePlan.from_json(document)
    if plan.length != length:
        raise ValueError(
            f"The boxes are drawn for {plan.length} frames, but length is {length}. In the editor choose 'Stretch' or "
            f"'Keep timing' to bring them to {length} frames, or set length to {plan.length}."
        )
    return plan


def read_seed(value: Any, length: int, width: int, height: int, fps: float) -> tuple[KeyframePlan, KeyframePlan]:
    """Connected boxes of any format: the plan exactly, and one to edit: fewer keyframes, within a pixel of it.

    A keyframe document is both as it is drawn.
    """
    plan = read_any(value, width, height, length, fps=fps)
    if isinstance(value, str) and '"tracks"' in value and '"version"' in value:
        document = KeyframePlan.from_json(value)
        return document, document
    return KeyframePlan.from_plan(plan), KeyframePlan.from_plan(plan, tolerance=1 / max(width, height))


class BoxEditor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2BoxEditor",
            display_name="Box Editor (DreamVideo-2)",
            category=CATEGORY,
            description="Draw the subject's box on a few frames; the editor moves it in between. Gives one mask and "
            "one box per frame.",
            search_aliases=["bounding box", "keyframes", "trajectory", "motion path", "box path", "bbox editor"],
            inputs=[
                io.Int.Input("length", default=8, min=1, max=4096, tooltip="Frames of the video."),
                *size_inputs(),
                io.Float.Input("fps", default=8.0, min=0.01, max=1000.0, step=0.01,
                               tooltip="Frames per second, for playing in the editor and for files."),
                io.String.Input("track", default="",
                                tooltip="Id of the track whose masks and boxes are put out; empty: the first."),
                BoxDocument.Input("document", default="", socketless=True,
                                  tooltip="What is drawn, as JSON; the editor writes it."),
                io.Image.Input("background", optional=True,
                               tooltip="What to draw on. A loader's file shows at once, others after a run."),
                compat.boxes_input("bounding_boxes", optional=True,
                                   tooltip="Boxes to start from, of any node: seen after a run. What you draw wins."),
            ],
            outputs=[
                io.Mask.Output(display_name="masks", tooltip="1 inside the box, one per frame."),
                compat.bounding_box_type().Output(display_name="bounding_boxes"),
                io.String.Output(display_name="keyframes", tooltip="All tracks as a keyframe document (JSON)."),
                io.Int.Output(display_name="length"),
            ],
            is_output_node=True,  # so that a run shows what is connected, with nothing behind the editor yet
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, document: str | None = None, length: int | None = None, background: Any = UNCONNECTED,
                        bounding_boxes: Any = UNCONNECTED) -> bool:  # fmt: skip
        """Checks what is drawn. Raises ValueError: a returned sentence ComfyUI shows once per input named here."""
        if document is None or length is None:  # connected, so not known yet, or missing
            return True
        if read_document(document, length) is None and background is bounding_boxes is UNCONNECTED:
            raise ValueError(EMPTY)
        return True

    @classmethod
    def execute(cls, length: int, width: int, height: int, fps: float, track: str, document: str,
                background: torch.Tensor | None = None, bounding_boxes: Any = None) -> io.NodeOutput:  # fmt: skip
        ui: dict[str, Any] = {"dv2_canvas": [{"width": width, "height": height, "length": length, "fps": fps}]}
        if background is not None:
            ui["dv2_background"] = save_background(background, length)
        seed = None
        if bounding_boxes is not None:
            seed, editable = read_seed(bounding_boxes, length, width, height, fps)
            ui["dv2_seed"] = [editable.to_json()]
        try:
            plan = read_document(document, length) or seed
            if plan is None:
                raise ValueError(EMPTY)
        except ValueError as error:
            # What is connected, and how long it is, is news for the page: it goes there, and the sentence further on.
            return io.NodeOutput(None, ui=ui, block_execution=str(error))
        plan = replace(plan, width=width, height=height, fps=fps)
        boxes = plan.evaluate().track(track)
        return io.NodeOutput(
            rasterize(boxes, width, height), to_bounding_boxes(boxes, width, height), plan.to_json(), length, ui=ui
        )


def save_background(background: torch.Tensor, length: int) -> list[dict[str, Any]]:
    """What the page draws on: small JPEGs in ComfyUI's temp folder, at most BACKGROUND_FRAMES, with their frames.

    background: [F, H, W, 3 or 4]; spread over `length` frames as previews do (`under_boxes`). A picture is one file.
    """
    frames = under_boxes(background, length if len(background) > 1 else 1, 1, 1)  # [length or 1, H, W, 3]
    shown = min(len(frames), BACKGROUND_FRAMES)
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        "dv2_background", folder_paths.get_temp_directory()
    )
    saved = []
    for i in range(shown):
        index = round(i * (len(frames) - 1) / max(shown - 1, 1))
        pixels = (frames[index].clamp(0, 1) * 255).round().byte().cpu().numpy()
        picture = Image.fromarray(np.ascontiguousarray(pixels), "RGB")
        picture.thumbnail((BACKGROUND_SIDE, BACKGROUND_SIDE))
        file = f"{name}_{counter:05}_{i:02}_.jpg"
        picture.save(os.path.join(folder, file), quality=85)
        saved.append({"filename": file, "subfolder": subfolder, "type": "temp", "frame": index})
    return saved


NODES: list[Any] = [BoxEditor]
