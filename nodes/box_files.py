"""Boxes in files: JSON and CSV in ComfyUI's folders, and the metadata of saved videos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..dv2_core.boxes import BoxPlan, KeyframePlan
from ..dv2_core.boxes.formats import own_size, read_any, write
from ..dv2_core.boxes.formats.document import is_document
from ..dv2_core.boxes.formats.folder import read_text
from ..dv2_core.boxes.json_text import read_json
from .host import compat, files
from .host.video import BOXES, READERS, read_entry, with_entry
from .inputs import file_stamp, point_size_inputs
from .notices import said
from .types import CATEGORY

TEXTS = (".json", ".csv")
CASES = ("metadata.json", "00000.png")  # the file that stands for its folder: a DreamVideo-Omni case, DAVIS masks
FOLDER = "boxes"  # of the output folder, where Save Boxes writes unless told otherwise


def box_files() -> list[str]:
    """What the input folder has: JSON, CSV, videos, folders with one of CASES; then what Save Boxes wrote."""
    given, kept = Path(folder_paths.get_input_directory()), (*TEXTS, *READERS)
    names = sorted(p.name for p in given.iterdir() if p.suffix.lower() in kept)
    names += sorted(f"{p.parent.name}/{p.name}" for case in CASES for p in given.glob(f"*/{case}"))
    saved = sorted((Path(folder_paths.get_output_directory()) / FOLDER).glob("*"))
    return names + [f"{FOLDER}/{p.name} [output]" for p in saved if p.suffix.lower() in TEXTS]


def box_file(name: str) -> Path:
    """Path of a listed file. Raises ValueError, a sentence, for any other."""
    path = files.chosen_path(name)
    if path is None:
        raise ValueError(f"{name!r} is not in ComfyUI's input or output folder. Upload it or choose another.")
    if path.suffix.lower() not in (*TEXTS, *READERS) and path.name not in CASES:
        kinds = ", ".join((*TEXTS, *READERS, *CASES))
        raise ValueError(f"{name!r} is no file of boxes; choose one of these: {kinds}.")
    return path


def read_file(path: Path, width: int, height: int, length: int, box: tuple[int, int] = (0, 0)) -> KeyframePlan:
    """The boxes of a file, a video's metadata or a case's folder. Sizes of 0 are the file's own.

    box: width and height of the box around each point, for files of points; 0 is not given.

    Raises ValueError, a sentence, for a file without boxes, and for one in pixels that needs a size.
    """
    if path.suffix.lower() in READERS:
        text = read_entry(path, BOXES)
        if text is None:
            raise ValueError(
                f"{path.name} has no boxes in its metadata; only videos that went through Embed Boxes have. A video "
                "that ComfyUI saved brings its whole workflow back when it is dropped on the empty canvas."
            )
        return sized(KeyframePlan.from_json(text), width, height, length)
    value: Any = path.parent
    if path.name in CASES:
        own = own_size(value) or (0, 0)
        width, height = width or own[0], height or own[1]
    else:
        value = read_text(path)
        if document := document_in(value):
            return sized(document, width, height, length)
    if not (width and height):
        raise ValueError(f"{path.name} does not say for which size its pixels are; set width and height.")
    return KeyframePlan.from_plan(read_any(value, width, height, length or None, size=box if all(box) else None))


def document_in(text: str) -> KeyframePlan | None:
    """The keyframe document that a text is, or None for any other text. Raises ValueError for a bad document."""
    try:
        found = read_json(text, "boxes")
    except ValueError:
        return None  # CSV, or what its own reader refuses with a better sentence
    return KeyframePlan.from_dict(found) if is_document(found) else None


def sized(plan: KeyframePlan, width: int, height: int, length: int) -> KeyframePlan:
    """The keyframes on another canvas. They are for a number of frames, and that is checked."""
    if length and length != plan.length:
        raise ValueError(
            f"The keyframes are for {plan.length} frames, not {length}; set length to 0 or {plan.length}, and resample "
            "in Boxes to Mask."
        )
    return replace(plan, width=width or plan.width, height=height or plan.height)


def summary(plan: BoxPlan) -> str:
    """One line about a plan, for people."""
    ids = [track.obj_id for track in plan.tracks]
    subjects = "1 subject" if len(ids) == 1 else f"{len(ids)} subjects ({', '.join(ids[:6])}{' ...' * (len(ids) > 6)})"
    return f"{subjects}, {plan.length} frames, {plan.width}x{plan.height}"


def keyframes_input(tooltip: str) -> Any:
    return io.String.Input("keyframes", force_input=True, tooltip=tooltip)


class SaveBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2SaveBoxes",
            display_name="Save Boxes (DreamVideo-2)",
            category=CATEGORY,
            description="Saves the boxes of all tracks to ComfyUI's output folder: JSON keeps keyframes, easings and "
            "paths, CSV has one line per frame and track.",
            search_aliases=["export boxes", "save bounding boxes", "csv"],
            inputs=[
                keyframes_input("The keyframes of Box Editor, Boxes to Mask, Boxes from Masks or Load Boxes."),
                io.String.Input("filename_prefix", default=f"{FOLDER}/DreamVideo-2",
                                tooltip="Name in the output folder; a number is added, nothing is overwritten."),
                io.Combo.Input("format", options=["json", "csv"], default="json",
                               tooltip="json: the keyframe document. csv: frame, id and box in pixels, for a table."),
            ],
            outputs=[],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool:
        if filename_prefix is not None:
            files.check_prefix(filename_prefix)
        return True

    @classmethod
    def execute(cls, keyframes: str, filename_prefix: str, format: str) -> io.NodeOutput:
        plan = KeyframePlan.from_json(keyframes)
        text = write(plan.evaluate(), "csv") if format == "csv" else plan.to_json() + "\n"
        name, subfolder = files.save_text(text, filename_prefix, f".{format}")
        return io.NodeOutput(ui=said(f"Saved as {'/'.join(filter(None, (subfolder, name)))}"))


class LoadBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2LoadBoxes",
            display_name="Load Boxes (DreamVideo-2)",
            category=CATEGORY,
            description="Boxes from a JSON or CSV file, or from the metadata of a video that went through Embed Boxes. "
            "Drop the file on the node, or upload it.",
            search_aliases=["import boxes", "boxes from video", "csv", "metadata"],
            has_intermediate_output=True,
            inputs=[
                io.Combo.Input("file", options=box_files(),
                               tooltip="JSON, CSV or video in ComfyUI's input folder, and what Save Boxes wrote."),
                io.Int.Input("width", default=0, min=0, max=8192,
                             tooltip="Canvas of a file in pixels that does not state it; 0: the file says it."),
                io.Int.Input("height", default=0, min=0, max=8192,
                             tooltip="Canvas of a file in pixels that does not state it; 0: the file says it."),
                io.Int.Input("length", default=0, min=0, max=4096,
                             tooltip="Frames of a file that does not state them; 0: the file says it."),
                *point_size_inputs(),
            ],
            outputs=[
                io.String.Output(display_name="keyframes", tooltip="All tracks, for Boxes to Mask and the editor."),
                compat.bounding_box_type().Output(display_name="bounding_boxes", tooltip="Of the first track."),
                io.Int.Output(display_name="width"),
                io.Int.Output(display_name="height"),
                io.Int.Output(display_name="length"),
                io.Float.Output(display_name="fps"),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool:
        if file is not None:
            box_file(file)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, width: Any = None, height: Any = None,
                           length: Any = None, box_width: Any = None, box_height: Any = None) -> str:  # fmt: skip
        return file_stamp(file)

    @classmethod
    def execute(cls, file: str, width: int, height: int, length: int, box_width: int = 0,
                box_height: int = 0) -> io.NodeOutput:  # fmt: skip
        document = read_file(box_file(file), width, height, length, (box_width, box_height))
        plan = document.evaluate()
        boxes, sizes = write(plan, "bounding_box", track=""), (plan.width, plan.height, plan.length, plan.fps)
        return io.NodeOutput(document.to_json(), boxes, *sizes, ui=said(summary(plan)))


class EmbedBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2EmbedBoxes",
            display_name="Embed Boxes (DreamVideo-2)",
            category=CATEGORY,
            description="The same video; when Save Video saves it, the boxes go into the file's metadata, and Load "
            "Boxes reads them back from it.",
            search_aliases=["boxes metadata", "boxes into video"],
            inputs=[
                io.Video.Input("video", tooltip="Of Create Video, on its way to Save Video."),
                keyframes_input("The boxes that the video was made with."),
            ],
            outputs=[io.Video.Output(display_name="video")],
        )

    @classmethod
    def execute(cls, video: Any, keyframes: str) -> io.NodeOutput:
        plan = KeyframePlan.from_json(keyframes)
        return io.NodeOutput(with_entry(video, BOXES, json.loads(plan.to_json())))


NODES: list[Any] = [SaveBoxes, LoadBoxes, EmbedBoxes]
