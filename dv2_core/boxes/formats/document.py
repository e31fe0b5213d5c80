"""The keyframe document (dv2_core/boxes/keyframes.py), the pack's own lossless format, among the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..keyframes import KeyframePlan
from ..plan import BoxPlan


def is_document(value: Any) -> bool:
    """Whether a parsed JSON value means to be a keyframe document."""
    return isinstance(value, dict) and "version" in value and "tracks" in value


def read(value: str | dict[str, Any], width: int, height: int, length: int | None = None, fps: float = 8.0) -> BoxPlan:
    """The document, as text or parsed, on a canvas of width x height pixels.

    Its boxes are fractions, so another canvas than its own only scales them. Its own frame rate counts, not `fps`.
    Raises ValueError as `KeyframePlan.from_json`, and for another length than the document's.
    """
    document = KeyframePlan.from_json(value) if isinstance(value, str) else KeyframePlan.from_dict(value)
    if length is not None and length != document.length:
        raise ValueError(
            f"The keyframes are for {document.length} frames, but the video has {length}; set the length to "
            f"{document.length}, or resample the boxes to {length} frames first."
        )
    return replace(document, width=width, height=height).evaluate()


def write(plan: BoxPlan) -> str:
    """Compact JSON: a keyframe wherever the motion is not linear; fractions of the canvas to six digits."""
    return KeyframePlan.from_plan(plan).to_json()
