"""Reading videos: what a file holds, where its scenes change, and pictures for the models."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..manifest import MAX_FRAMES
from ..train.video import Fit, read_frames
from .clip import Clip, Reason
from .config import ProbeConfig

#: Width in pixels at which scenes are compared: a change of scene is seen in small pictures.
SCENE_WIDTH = 160

#: A frame that comes this much earlier or later than the median one is uneven; containers round times by less.
UNEVEN = 0.25

PICTURES = (".jpg", ".jpeg", ".png")


def probe(video: Path | BinaryIO, config: ProbeConfig) -> dict[str, Any] | Reason:
    """Frames per second, frames, width and height of a video, its frames counted by decoding; or why it is not read."""
    import av
    from av.error import FFmpegError

    times: list[int] = []
    if isinstance(video, Path) and not video.stat().st_size:
        return Reason("empty", "the file has no bytes")
    try:
        with av.open(video) as container:
            if not container.streams.video:
                return Reason("no video", "the file has no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:  # the header is damaged, or the codec unknown
                return Reason("broken", "its frames cannot be decoded")
            stream.thread_type = "AUTO"
            width, height, rate = stream.width, stream.height, stream.average_rate
            if max(width, height) > config.max_side:
                return Reason("huge", f"{width}x{height} pixels, the longer side may have {config.max_side}")
            most = min(MAX_FRAMES, int(config.max_seconds * float(rate or 1000)))
            for frame in container.decode(stream):
                if frame.rotation % 360:
                    turn = frame.rotation % 360
                    return Reason("rotated", f"players turn it by {turn} degrees; store the frames upright")
                if (frame.width, frame.height) != (width, height):
                    return Reason("broken", f"frames of {width}x{height} and of {frame.width}x{frame.height} pixels")
                times.append(frame.pts if frame.pts is not None else len(times))
                if len(times) > most:
                    return Reason("huge", f"longer than {config.max_seconds:g} s; cut it into parts")
    except (FFmpegError, OSError) as error:
        return Reason("broken", f"it cannot be decoded after {len(times)} frames ({_cause(error)})")
    if not times or not rate or not width or not height:
        return Reason("empty", "it has no frames")
    steps = [b - a for a, b in zip(times, times[1:], strict=False)]
    middle = statistics.median(steps) if steps else 1
    late = sum(abs(step - middle) > UNEVEN * abs(middle) for step in steps) / max(1, len(steps))
    if late > config.uneven:
        return Reason("variable frame rate", f"{late:.0%} of the frames do not follow in even steps")
    return {"fps": round(float(rate), 6), "length": len(times), "width": width, "height": height}


def cuts(video: Path | BinaryIO, threshold: float, span: tuple[int, int] | None = None) -> list[int]:
    """The frames of ``span`` (None: all), but for its first, that begin a scene: FFmpeg's scene score is above
    ``threshold`` (0..1).

    Source: FFmpeg, ``libavfilter/f_select.c`` (``get_scene_score``). Raises ValueError for what cannot be decoded.
    """
    import av
    from av.error import BlockingIOError, EOFError, FFmpegError
    from av.filter import Graph

    found: list[int] = []
    first, end = span or (0, MAX_FRAMES)
    try:
        with av.open(video) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            graph = Graph()
            nodes = [graph.add_buffer(template=stream), graph.add("scale", f"{SCENE_WIDTH}:-2")]
            nodes += [graph.add("select", f"gt(scene\\,{threshold})"), graph.add("buffersink")]
            for node, following in zip(nodes, nodes[1:], strict=False):
                node.link_to(following)
            graph.configure()

            def drain() -> None:
                while True:
                    try:
                        found.append(int(graph.pull().pts or 0))  # type: ignore[union-attr]
                    except (BlockingIOError, EOFError):
                        return

            for number, frame in enumerate(container.decode(stream)):
                if number >= end:
                    break
                if number >= first:
                    frame.pts = number
                    graph.push(frame)
                    drain()
            graph.push(None)
            drain()
    except (FFmpegError, OSError) as error:
        raise ValueError(f"it cannot be decoded ({_cause(error)})") from error
    return [number for number in found if number > first]


def split(length: int, starts: Sequence[int], fewest: int, most: int) -> list[tuple[int, int]]:
    """Scenes that begin at 0 and at ``starts``, in equal parts of ``fewest`` to ``most`` frames; shorter ones fall
    out. Returns [first, end) of every part."""
    parts = []
    for first, end in zip([0, *starts], [*starts, length], strict=True):
        count = max(1, -(-(end - first) // most))
        if (end - first) // count < fewest:  # parts of at most ``most`` would be too short: leave out the tail
            count = (end - first) // most
            end = first + count * most
        step = (end - first) / count if count else 0
        edges = [first + round(n * step) for n in range(count + 1)]
        parts += [(a, b) for a, b in zip(edges, edges[1:], strict=False) if b - a >= fewest]
    return parts


def shown_size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) with the longer side at most ``side``."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def pictures(video: Path | BinaryIO, clip: Clip, numbers: Sequence[int], side: int) -> Tensor:
    """Those frames of the video as [n, h, w, 3] in 0..1, the longer side at most ``side`` pixels."""
    fit = Fit((clip.width, clip.height), shown_size(clip.width, clip.height, side))
    found = {n: fit.frame(pixels) for n, pixels in read_frames(video, set(numbers), clip.row(), clip.id)}
    return torch.stack([found[number] for number in numbers]).permute(0, 2, 3, 1)


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder that stands for a video, in the order of their names."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)


def encode(files: Sequence[Path], fps: float, target: BinaryIO) -> None:
    """Pictures as an mp4 (H.264 without subsampled colour, visually lossless). Raises ValueError for unequal sizes."""
    import av
    from PIL import Image

    rate = max(1, round(fps))
    with av.open(target, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "8", "threads": "1"})
        stream.pix_fmt = "yuv444p"
        size = None
        for file in files:
            with Image.open(file) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            if size is None:
                size = stream.height, stream.width = pixels.shape[:2]
            if pixels.shape[:2] != size:
                raise ValueError(f"{file.name} has another size than the pictures before it")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def member(shard: Path, start: int, length: int) -> io.BytesIO:
    """Bytes of a video in a shard."""
    with shard.open("rb") as file:
        file.seek(start)
        return io.BytesIO(file.read(length))


def windows(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """The items in lists of ``size``, the last one possibly shorter."""
    group = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _cause(error: Exception) -> str:
    """What the library says of an error, without the file's path, which is another on another machine."""
    return getattr(error, "strerror", None) or type(error).__name__
