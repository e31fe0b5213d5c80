"""Salient-object networks such as ISNet in the places of detector, segmenter and tracker.

They need no word: whatever stands out is the subject. So they serve where every clip shows one subject before a plain
enough background, and where the large models cannot be had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import Box
from ..boxes.linking import from_detections
from ..segment import Detection, Prompt
from .geometry import iou

#: A pixel is the subject's from this much on. Mattes are not stretched to 0..1 as DIS does it, which finds something in
#: every picture. Both numbers were chosen on the first frames of 60 clips of training concepts (docs/curation.md).
CERTAIN = 0.3

#: Pieces of a matte that are no further apart than this share of the picture's longer side are one.
GAP = 1 / 64

#: Pieces of a matte under this share of its largest one are specks.
SPECK = 0.2

#: Mattes that are remembered: a clip's first frame is looked at by detector, segmenter and tracker.
KNOWN = 32


class MatteSegmenter:
    """An ONNX network [1, 3, side, side] -> matte [1, 1, side, side] in 0..1, of pictures as (x - 128) / 256.

    Its methods are those of ``segment.Detector``, ``Segmenter`` and ``VideoSegmenter``.
    Source: xuebinqin/DIS (ISNet), with the scaling of its ONNX releases.
    """

    def __init__(self, file: Path) -> None:
        try:
            import onnxruntime  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError(f"{file.name} needs the package onnxruntime; install it with pip.") from error
        if not file.is_file():
            raise ValueError(f"There is no model {file}; give the path of an .onnx file.")
        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises exceptions of many kinds
            raise ValueError(f"{file} is no ONNX network that can be run ({str(error)[:120]}).") from error
        self.known: dict[bytes, Tensor] = {}
        # Of several mattes the first is the finest one.
        self.input, self.output = self.session.get_inputs()[0], self.session.get_outputs()[0].name
        self.side = self.input.shape[-1] if isinstance(self.input.shape[-1], int) else 1024

    def mattes(self, frames: Tensor) -> Tensor:
        """frames [F, H, W, 3] in 0..1 -> how much every pixel is subject, [F, H, W] in 0..1."""
        return torch.stack([self._matte(frame) for frame in frames])

    def _matte(self, frame: Tensor) -> Tensor:
        key = hashlib.sha256(frame.contiguous().numpy().tobytes()).digest()
        if key not in self.known:
            picture = frame.permute(2, 0, 1)[None].float() * 255
            square = F.interpolate(picture, (self.side, self.side), mode="bilinear", antialias=True)
            values = ((square - 128) / 256).numpy()
            found = torch.from_numpy(np.asarray(self.session.run([self.output], {self.input.name: values})[0]))
            while len(self.known) >= KNOWN:
                del self.known[next(iter(self.known))]
            self.known[key] = F.interpolate(found[:, :1].float(), frame.shape[:2], mode="bilinear")[0, 0]
        return self.known[key]

    def detect(self, frames: Tensor, words: Sequence[str], threshold: float) -> list[list[Detection]]:
        """The box of every thing that stands out, the largest first; ``words`` are not looked at."""
        return [
            [Detection(box, score) for box, score, _ in pieces(matte) if score >= threshold]
            for matte in self.mattes(frames)
        ]

    def segment(self, frames: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """What stands out most where each prompt's box is: bool [F, H, W]."""
        masks = torch.zeros(frames.shape[:3], dtype=torch.bool)
        for n, (matte, prompt) in enumerate(zip(self.mattes(frames), prompts, strict=True)):
            found = pieces(matte)
            if found and prompt.box is not None:
                masks[n] = max(found, key=lambda piece: iou(piece[0], prompt.box or piece[0]))[2]
        return masks

    def track(self, frames: Tensor, start: Tensor) -> Tensor:
        """The piece that overlaps the mask [H, W] of the first frame, from frame to frame: bool [F, H, W]."""
        found = [pieces(matte) for matte in self.mattes(frames)]
        masks = torch.zeros(frames.shape[:3], dtype=torch.bool)
        if not any(found):
            return masks
        rows, columns = start.any(1).nonzero(), start.any(0).nonzero()
        height, width = start.shape
        point = (float(columns.float().mean() + 0.5) / width, float(rows.float().mean() + 0.5) / height)
        track = from_detections([[(box, score) for box, score, _ in frame] for frame in found], point)
        for t, frame in enumerate(found):
            same = [mask for box, _, mask in frame if iou(box, track.boxes[t]) > 0.999]
            if track.visible[t] and same:
                masks[t] = same[0]
        return masks


def pieces(matte: Tensor) -> list[tuple[Box, float, Tensor]]:
    """The pieces of a matte [H, W], joined over small gaps, largest first: box in 0..1, mean matte, mask [H, W]."""
    from scipy import ndimage

    height, width = matte.shape
    subject = (matte > CERTAIN).numpy()
    if not subject.any():
        return []
    away: Any = ndimage.distance_transform_cdt(~subject, "chessboard")
    labels: Any = ndimage.label(away <= round(GAP * max(height, width) / 2), np.ones((3, 3)))
    labels = labels[0] * subject
    sizes = np.bincount(labels.ravel())[1:]
    found = []
    for i in np.argsort(-sizes, kind="stable"):
        if sizes[i] < SPECK * sizes.max():
            break
        mask = labels == i + 1
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
        inside = torch.from_numpy(mask)
        found.append(((box[0], box[1], box[2], box[3]), float(matte[inside].mean()), inside))
    return found
