"""What the inputs of several nodes have in common."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host import compat, files

#: Default of an optional input in a node's validate_inputs; of a connected one, not known yet, it gets None.
UNCONNECTED = object()


def size_inputs() -> list[Any]:
    return [
        io.Int.Input("width", default=64, min=16, max=8192, step=8, tooltip="Width of the video in pixels."),
        io.Int.Input("height", default=64, min=16, max=8192, step=8, tooltip="Height of the video in pixels."),
    ]


def repair_inputs() -> list[Any]:
    """What is done with boxes that were found in a reference video, and its frame rate."""
    return [
        io.Int.Input("fill_gaps", default=4, min=0, max=4096,
                     tooltip="Up to so many frames in which the subject is lost are filled by interpolation; in longer "
                     "gaps it is hidden."),
        io.Int.Input("smoothing", default=9, min=0, max=99,
                     tooltip="Frames that the smoothing looks at, odd, from 5; more is calmer. 0: off."),
        io.Float.Input("fps", default=8.0, min=0.01, max=1000.0, step=0.01,
                       tooltip="Of the reference video; kept with the boxes."),
    ]  # fmt: skip


def point_size_inputs() -> list[Any]:
    """Size of the boxes around points, which have none."""
    return [
        compat.advanced(io.Int, "box_width", default=0, min=0, max=8192, optional=True,
                        tooltip="For points, which have no size: width of the box around them, in the same pixels."),
        compat.advanced(io.Int, "box_height", default=0, min=0, max=8192, optional=True,
                        tooltip="For points, which have no size: height of the box around them."),
    ]  # fmt: skip


def file_stamp(name: str | None) -> str:
    """What fingerprint_inputs returns for a chosen file: another text once the file is. None: connected."""
    path = files.chosen_path(name) if name is not None else None
    stat = path.stat() if path else None
    return f"{name}:{stat.st_mtime_ns}:{stat.st_size}" if stat else str(name)
