"""Masks as COCO run lengths: the pixels column by column, as lengths of runs that alternate 0, 1, 0, ...

Source: ``cocodataset/cocoapi``, ``common/maskApi.c`` (``rleEncode``, ``rleToString``, ``rleFrString``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Mask [H, W], nonzero on the subject -> {"size": [H, W], "counts": compressed string}."""
    pixels = np.asarray(mask).astype(bool).ravel(order="F")
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate([[0] if pixels[:1].any() else [], [0], edges, [pixels.size]]).astype(np.int64)
    return {"size": list(mask.shape), "counts": _compress(np.diff(starts).tolist())}


def decode(rle: Mapping[str, Any]) -> np.ndarray:
    """The mask [H, W] (bool) of {"size": [H, W], "counts": string or list of run lengths}.

    Raises ValueError for counts that are no run lengths of H * W pixels.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else counts
    check_runs(runs, height * width)
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape((height, width), order="F")


def check_runs(runs: Sequence[int], pixels: int) -> None:
    """Raises ValueError unless the run lengths cover just that many pixels."""
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != pixels:
        raise ValueError(
            f"the run lengths of a mask must be whole numbers from 0 that add up to its {pixels} pixels; these do not. "
            "Encode the mask again at the size of the video."
        )


def _compress(runs: Sequence[int]) -> str:
    """Run lengths as text: from the fourth on the difference to the one before the last, in digits of five bits."""
    text = []
    for n, run in enumerate(runs):
        value = run - runs[n - 2] if n > 2 else run
        more = True
        while more:
            digit, value = value & 0x1F, value >> 5
            more = value != (-1 if digit & 0x10 else 0)
            text.append(chr((digit | 0x20 if more else digit) + 48))
    return "".join(text)


def _decompress(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError(f"{character!r} is no part of compressed run lengths; encode the mask again.")
        value |= (digit & 0x1F) << shift
        shift += 5
        if not digit & 0x20:
            if digit & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths of a mask end in the middle of a number; encode the mask again.")
    return runs
