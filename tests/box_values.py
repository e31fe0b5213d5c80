"""Boxes in the formats of other packs, and the check that a value is refused as every format promises."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dv2_core.boxes import BoxPlan, BoxTrack
from dv2_core.boxes.formats import read_any

W, H, F = 64, 32, 2
ONE = BoxPlan((BoxTrack(((0.0, 0.0, 0.25, 0.5), (0.25, 0.25, 0.5, 0.75)), obj_id="1", label="dog"),), W, H)
SIZE = (8, 8)


def refusal(value: Any, fmt: str = "auto", size: Any = SIZE, length: int | None = F) -> str:
    """The sentence that refuses `value`."""
    with pytest.raises(ValueError) as error:
        read_any(value, W, H, length, fmt, size=size)
    message = str(error.value)
    assert type(error.value) is ValueError, repr(error.value)
    assert message.endswith(".") and "\n" not in message and 20 < len(message) < 700, message
    return message


def seg(bbox: Any, label: Any = "A") -> SimpleNamespace:
    return SimpleNamespace(bbox=bbox, label=label)


def box(x: Any, y: Any, w: Any, h: Any, **metadata: Any) -> dict[str, Any]:
    return {"x": x, "y": y, "width": w, "height": h, **({"metadata": metadata} if metadata else {})}


def element(*bbox: Any, **metadata: Any) -> dict[str, Any]:
    return {"type": "obj", "bbox": list(bbox), **({"metadata": metadata} if metadata else {})}
