"""Clips out of video files: which frames, cut to which size, with the boxes cut the same way."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import BoxTrack
from ..boxes.interpolate import from_visible
from ..manifest import ClipRow

#: A clip may be this much slower than it is read at before that is called an error: 7.99 fps are 8.
FPS_SLACK = 0.99


def sampled_frames(row: ClipRow, num_frames: int, fps: float, where: str) -> list[int]:
    """Numbers of the video's frames that a clip of ``num_frames`` at ``fps`` is made of, from the row's first on.

    Raises ValueError for a row that is too short or has fewer frames per second.
    """
    if row.fps < fps * FPS_SLACK:
        raise ValueError(
            f"{where}: the video has {row.fps:g} frames per second, fewer than the {fps:g} to train on; lower data.fps "
            "or set reject."
        )
    first, end = row.frames
    numbers = [first + round(n * max(row.fps / fps, 1.0)) for n in range(num_frames)]
    if numbers[-1] >= end:
        seconds = (end - first) / row.fps
        raise ValueError(
            f"{where}: frames {list(row.frames)} at {row.fps:g} fps are {seconds:.2f} s, too short for {num_frames} "
            f"frames at {fps:g} fps; take a longer part of the video, lower data.num_frames, or set reject."
        )
    return numbers


@dataclass(frozen=True)
class Fit:
    """Resize to cover the target, then crop around the centre. Sizes are (width, height) in pixels."""

    source: tuple[int, int]
    target: tuple[int, int]

    @property
    def resized(self) -> tuple[int, int]:
        (w, h), (width, height) = self.source, self.target
        scale = max(width / w, height / h)
        return max(width, round(w * scale)), max(height, round(h * scale))

    @property
    def offset(self) -> tuple[int, int]:
        """Left and upper edge of the crop in the resized frame."""
        (w, h), (width, height) = self.resized, self.target
        return (w - width) // 2, (h - height) // 2

    def frame(self, pixels: np.ndarray) -> Tensor:
        """Picture [H, W, 3] uint8 of the source's size -> [3, height, width] in 0..1, antialiased."""
        picture = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255  # [1, 3, H, W]
        (w, h), (left, top), (width, height) = self.resized, self.offset, self.target
        if (w, h) != self.source:
            picture = F.interpolate(picture, size=(h, w), mode="bicubic", antialias=True).clamp(0, 1)
        return picture[0, :, top : top + height, left : left + width].contiguous()

    def track(self, row: ClipRow, numbers: list[int], where: str) -> BoxTrack:
        """The row's boxes in those frames, as fractions of the target; hidden where nothing is left in the crop.

        A frame without the subject gets an empty mask (``rasterize``): the motion signal is background everywhere,
        the reference acts at lambda_M, and the loss weighs every pixel 1.
        Raises ValueError if no frame shows the subject.
        """
        (w, h), (rw, rh), (left, top), (width, height) = self.source, self.resized, self.offset, self.target
        found = {}
        for n, number in enumerate(numbers):
            box = row.boxes[number - row.frames[0]]
            if box is None:
                continue
            x1, x2 = (min(max((x * rw / w - left) / width, 0.0), 1.0) for x in box[::2])
            y1, y2 = (min(max((y * rh / h - top) / height, 0.0), 1.0) for y in box[1::2])
            if x1 < x2 and y1 < y2:
                found[n] = (x1, y1, x2, y2)
        if not found:
            raise ValueError(
                f"{where}: the subject's box is in none of the {len(numbers)} frames used (from frame {numbers[0]} to "
                f"{numbers[-1]}, cut to {width}x{height}); take another part of the video, or set reject."
            )
        return from_visible(found, len(numbers), row.obj_id, row.phrase)


def read_frames(
    video: Path | BinaryIO, wanted: Collection[int], row: ClipRow, where: str
) -> Iterator[tuple[int, np.ndarray]]:
    """(number, picture [H, W, 3] uint8) of the wanted frames, in order.

    Frames are counted by decoding from the start: exact for every codec and frame rate, where seeking is not.
    Raises ValueError for what is no video, has too few frames, or another size than the row says.
    """
    import av  # the extra "train"
    from av.error import FFmpegError

    left = set(wanted)
    try:
        with av.open(video) as container:
            if not container.streams.video:
                raise ValueError(f"{where}: {row.video} has no video stream; give a video file.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                if number not in left:
                    continue
                if (frame.width, frame.height) != (row.width, row.height):
                    raise ValueError(
                        f"{where}: the frames of {row.video} are {frame.width}x{frame.height} as stored, the row says "
                        f"{row.width}x{row.height}; boxes and masks must be in pixels of the stored frames."
                    )
                left.discard(number)
                yield number, frame.to_ndarray(format="rgb24")
                if not left:
                    return
    except (FFmpegError, OSError) as error:
        raise ValueError(f"{where}: {row.video} cannot be decoded ({error}); convert it to a plain mp4.") from error
    raise ValueError(f"{where}: {row.video} ends before frame {min(left)}; correct frames, or get the video again.")
