"""Valid boxes in every format, spoiled in every place: no other exception than a sentence, and no silent guess."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dv2_core.boxes.formats import FORMATS, read_any, write
from tests.box_values import ONE, SIZE, F, H, W, box, element, refusal

#: Examples are the same in every run, and a slow machine is no failure.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=150)
settings.load_profile("repeatable")

BAD_NUMBERS = {
    "none": None, "text": "4", "true": True, "list": [4], "nan": math.nan, "inf": math.inf, "far": 1e7, "under": -1e7,
    "huge": 10**400, "object": {"a": 1},
}  # fmt: skip

#: A valid value of F frames per format, as plain lists and objects, in which every number is a coordinate.
VALID: dict[str, Any] = {
    "bounding_box": [[box(0, 0, 16, 16)], [box(16, 8, 16, 16)]],
    "detections": [[box(0, 0, 16, 16)], [box(16, 8, 16, 16)]],
    "bbox_xyxy": [[0, 0, 16, 16], [16, 8, 32, 24]],
    "bbox_xywh": [[0, 0, 16, 16], [16, 8, 16, 16]],
    "bbox_dict": [{"startX": 0, "startY": 0, "endX": 16, "endY": 16}] * F,
    "elements": [[element(0, 0, 500, 250)], [element(250, 250, 750, 500)]],
    "points": [[{"x": 8, "y": 8}, {"x": 24, "y": 16}]],
    "text": {"first": [0, 0, 16, 16], "last": [16, 8, 32, 24]},
    "omni": {"frames_info": [{"bboxes": [{"bbox": [0, 0, 16, 16], "obj_id": "0"}]}] * F},
    "keyframes": json.loads(write(ONE, "keyframes")),
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all numbers inside nested lists and objects."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))
    elif isinstance(value, (int, float)):
        yield path


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


MUTATED = [
    pytest.param(fmt, changed(valid, path, bad), id=f"{fmt}-{'.'.join(map(str, path))}-{name}")
    for fmt, valid in VALID.items()
    for path in places(valid)
    for name, bad in BAD_NUMBERS.items()
]
assert len(MUTATED) > 400


@pytest.mark.parametrize("fmt", VALID)
def test_the_values_that_the_next_test_spoils_are_valid(fmt):
    assert read_any(VALID[fmt], W, H, F, fmt, size=SIZE).length == F


@pytest.mark.parametrize(("fmt", "value"), MUTATED)
def test_a_valid_value_with_one_spoiled_number_is_refused(fmt, value):
    refusal(value, fmt)


@pytest.mark.parametrize("fmt", ["keyframes", "text", "points", "csv"])
def test_a_text_that_is_cut_off_anywhere_is_refused(fmt):
    text = write(ONE, fmt)
    for end in range(len(text) - 1):
        refusal(text[:end], fmt)


leaves = st.none() | st.booleans() | st.integers(-10, 1010) | st.floats() | st.text(max_size=3) | st.just(10**400)
keys = st.sampled_from(
    ["x", "y", "width", "height", "metadata", "obj_id", "bbox", "startX", "startY", "endX", "endY", "track_path",
     "tracks", "track_visibility", "frames_info", "bboxes", "version", "length", "keyframes", "frame", "box", "first",
     "last", "desc"]
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda v: st.lists(v, max_size=4) | st.tuples(v, v) | st.dictionaries(keys, v, max_size=5),
    max_leaves=20,
)


@given(value=values, fmt=st.sampled_from(["auto", *FORMATS]), as_text=st.booleans())
def test_any_value_is_read_or_refused_with_a_sentence(value, fmt, as_text):
    if as_text:
        value = json.dumps(value) if not isinstance(value, str) else value
    read_or_refused(value, fmt)


def read_or_refused(value: Any, fmt: str) -> None:
    try:
        plan = read_any(value, W, H, F, fmt, size=SIZE)
    except ValueError as error:
        assert type(error) is ValueError and str(error).endswith(".") and "\n" not in str(error)
    else:
        assert plan.length == F


@pytest.mark.parametrize("fmt", ["keyframes", "text", "points", "csv", "bounding_box", "elements"])
def test_a_text_with_some_characters_changed_is_read_or_refused_with_a_sentence(fmt):
    written = write(ONE, fmt)
    text = written if isinstance(written, str) else json.dumps(written)
    rng = random.Random(0)
    for _ in range(150):
        spoiled = list(text)
        for _ in range(rng.choice((1, 1, 2, 5))):
            spoiled[rng.randrange(len(text))] = rng.choice("0123456789.,:;{}[]\"'-+eE \n\0\ufeff\u0661\ud800x")
        read_or_refused("".join(spoiled), "auto")
