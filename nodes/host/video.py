"""A text entry in a video file's metadata: where ComfyUI puts the workflow, this pack puts the boxes beside it."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import av
import av.error

#: Name of the entry; its value is the keyframe document (dv2_core/boxes/keyframes.py).
BOXES = "dv2_boxes"

#: Videos that are read, and the one reader for each: a playlist in disguise would lead ffmpeg to other files.
READERS = {".mp4": "mov", ".mov": "mov", ".m4v": "mov", ".webm": "matroska", ".mkv": "matroska"}


def with_entry(video: Any, name: str, value: Any) -> Any:
    """The same VIDEO; whoever saves it writes `value` (JSON data) as metadata `name` beside what it writes itself.

    The copy keeps the core's own type and shares its frames. What is cut or taken apart afterwards loses the entry.
    """
    entitled = copy.copy(video)
    entitled.save_to = functools.partial(_save_to, video, {name: value})
    return entitled


def _save_to(video: Any, entry: dict[str, Any], path: Any, *args: Any, **kwargs: Any) -> Any:
    # The core names its arguments when it saves; who does not passes format, codec, metadata in this order.
    if len(args) > 2:
        args = (*args[:2], {**(args[2] or {}), **entry}, *args[3:])
    else:
        kwargs["metadata"] = {**(kwargs.get("metadata") or {}), **entry}
    return video.save_to(path, *args, **kwargs)


def read_entry(path: Path, name: str) -> str | None:
    """Metadata `name` of a video file (a suffix of READERS) as text, None where it has none. Reads no frames.

    Raises ValueError where the file is not a video.
    """
    try:
        with av.open(str(path), format=READERS[path.suffix.lower()], metadata_errors="replace") as container:
            if not container.streams.video:
                raise ValueError(f"{path.name} has no video in it. Choose a video file.")
            entries = dict(container.metadata)
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as a video ({error}). Choose an MP4 or WebM file.") from error
    # Matroska and WebM keep names in capitals.
    return next((text for key, text in entries.items() if key.lower() == name), None)
