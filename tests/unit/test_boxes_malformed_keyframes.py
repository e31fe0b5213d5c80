"""Keyframe documents that are not quite right: each is refused with a sentence, none is read as something else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dv2_core.boxes import KeyframePlan

#: Examples are the same in every run, and a slow machine is no failure.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

GOOD: dict[str, Any] = {
    "version": 1, "width": 448, "height": 256, "length": 16, "fps": 8,
    "tracks": [
        {"id": "0", "label": "duck", "interpolation": "smooth", "keyframes": [
            {"frame": 0, "box": [0.1, 0.2, 0.3, 0.6], "easing": "hold", "visible": True,
             "path": [[0, 0.2, 0.4], [0.5, 0.5, 0.5], [1, 0.7, 0.6]]},
            {"frame": 9, "box": [0.5, 0.4, 0.9, 0.8]}]},
        {"id": "1", "keyframes": [{"frame": 3, "box": [-0.5, 0, 0.5, 1.5]}]},
    ],
}  # fmt: skip
MISSING = object()
K = ("tracks", 0, "keyframes", 0)


def changed(*steps: Any, to: Any = MISSING) -> str:
    """GOOD as text, with one place set to a value or left out."""
    document = copy.deepcopy(GOOD)
    place: Any = document
    for step in steps[:-1]:
        place = place[step]
    if to is MISSING:
        del place[steps[-1]]
    else:
        place[steps[-1]] = to
    return json.dumps(document)


TEXT = json.dumps(GOOD)
MALFORMED: list[tuple[str, list[str]]] = [
    # not a document
    ("", ["empty", "keyframe document"]),
    (" \n\t", ["empty"]),
    (TEXT[:-1], ["not valid JSON", "line 1"]),
    (TEXT[:200], ["not valid JSON"]),
    (TEXT + "}", ["not valid JSON", "Extra data"]),
    (TEXT + TEXT, ["not valid JSON", "Extra data"]),
    (TEXT.replace('"', "'"), ["not valid JSON"]),
    (TEXT.replace("[0.1, ", "[0.1 "), ["not valid JSON"]),
    (TEXT.replace("true", "True"), ["not valid JSON"]),
    ("\ufeff" + TEXT, ["not valid JSON", "BOM"]),
    ("<svg/>", ["not valid JSON"]),
    ("[" * 100_000, ["nested"]),
    ('{"version":' * 30_000, ["nested"]),
    (TEXT + " " * 4_000_000, ["characters", "4000000"]),
    ("null", ["None", "object"]),
    ("1", ["is 1", "object"]),
    ('"version 1"', ["version 1", "object"]),
    ("[]", ["[]", "object"]),
    (f"[{TEXT}]", ["object with version"]),
    ("{}", ["no 'version'", "needs"]),
    (TEXT.replace('"fps": 8', '"length": 16'), ["'length'", "twice"]),
    (TEXT.replace('"label": "duck"', '"id": "1"'), ["'id'", "twice"]),
    (TEXT.replace('"easing": "hold"', '"frame": 1'), ["'frame'", "twice"]),
    # version
    (changed("version"), ["no 'version'"]),
    (changed("version", to=2), ["version 2", "reads version 1", "Update"]),
    (changed("version", to=0), ["version 0", "reads version 1"]),
    (changed("version", to="1"), ["version '1'"]),
    (changed("version", to=1.0), ["version 1", "save the boxes again"]),
    (changed("version", to=True), ["version True"]),
    (changed("version", to=None), ["version None"]),
    # canvas, length, frame rate
    (changed("width"), ["no 'width'"]),
    (changed("height"), ["no 'height'"]),
    (changed("length"), ["no 'length'"]),
    (changed("width", to=0), ["width is 0", "at least 1"]),
    (changed("width", to=-448), ["width is -448"]),
    (changed("width", to=448.0), ["width is 448", "whole"]),
    (changed("height", to="256"), ["height is '256'"]),
    (changed("height", to=None), ["height is None"]),
    (changed("height", to=True), ["height is True"]),
    (changed("width", to=10**9), ["width is 1000000000", "65536"]),
    (TEXT.replace("448", "9" * 40), ["40 digits"]),
    (TEXT.replace("448", "9" * 5000), ["5000 digits"]),
    (changed("length", to=0), ["0 frames"]),
    (changed("length", to=-1), ["-1 frames"]),
    (changed("length", to=16.5), ["16.5 frames", "whole"]),
    (changed("length", to=10**6), ["1000000 frames", "100000"]),
    (changed("length", to=9), ["'0'", "frame 9", "at least 10"]),
    (changed("length", to=[16]), ["[16] frames"]),
    (changed("fps", to=0), ["0 fps"]),
    (changed("fps", to=-8), ["-8 fps"]),
    (changed("fps", to="8"), ["'8' fps"]),
    (changed("fps", to=None), ["None fps"]),
    (changed("fps", to=2000), ["2000 fps", "1000"]),
    (TEXT.replace('"fps": 8', '"fps": NaN'), ["NaN", "finite"]),
    (TEXT.replace('"fps": 8', '"fps": 1e999'), ["inf fps"]),
    (changed("colour", to="red"), ["unknown key 'colour'", "known are"]),
    (changed("Width", to=448), ["unknown key 'Width'"]),
    # tracks
    (changed("tracks"), ["no 'tracks'"]),
    (changed("tracks", to=[]), ["tracks are []"]),
    (changed("tracks", to={}), ["tracks are {}"]),
    (changed("tracks", to=None), ["tracks are None"]),
    (changed("tracks", to="0"), ["tracks are '0'"]),
    (changed("tracks", 0, to=None), ["Track 0 is None"]),
    (changed("tracks", 1, to=[]), ["Track 1 is []"]),
    (changed("tracks", 1, "keyframes"), ["Track 1 has no 'keyframes'"]),
    (changed("tracks", 1, "keyframes", to=[]), ["track 1 are []"]),
    (changed("tracks", 1, "keyframes", to={"3": [0, 0, 1, 1]}), ["track 1 are {'3'"]),
    (changed("tracks", 0, "id"), ["Track 0 has no 'id'"]),
    (changed("tracks", 0, "id", to=0), ["Track 0", "is 0", "text"]),
    (changed("tracks", 0, "id", to=""), ["Track 0", "is ''"]),
    (changed("tracks", 0, "id", to=None), ["Track 0", "None"]),
    (changed("tracks", 0, "id", to="1"), ["Two tracks", "'1'"]),
    (changed("tracks", 0, "label", to=None), ["label is None", "text"]),
    (changed("tracks", 0, "label", to=5), ["label is 5", "text"]),
    (changed("tracks", 0, "interpolation", to="catmull-rom"), ["'catmull-rom'", "linear, smooth"]),
    (changed("tracks", 0, "interpolation", to=None), ["interpolation is None"]),
    (changed("tracks", 0, "interpolation", to=["smooth"]), ["interpolation is ['smooth']"]),
    (changed("tracks", 0, "obj_id", to="0"), ["Track 0", "unknown key 'obj_id'"]),
    (changed("tracks", to=[{"id": str(i), "keyframes": [{"frame": 0, "box": [0, 0, 1, 1]}]} for i in range(99)])
     .replace('"length": 16', '"length": 100000'), ["99 tracks", "1000000"]),
    # keyframes
    (changed(*K, to=None), ["Track 0, keyframe 0", "None"]),
    (changed(*K, to=[0.1, 0.2, 0.3, 0.6]), ["keyframe 0 is [0.1", "object"]),
    (changed(*K, "frame"), ["keyframe 0 has no 'frame'"]),
    (changed(*K, "frame", to=-1), ["keyframe 0", "-1", "0 or above"]),
    (changed(*K, "frame", to=0.0), ["frame is 0", "whole"]),
    (changed(*K, "frame", to="0"), ["frame is '0'"]),
    (changed(*K, "frame", to=False), ["frame is False"]),
    (changed(*K, "frame", to=None), ["frame is None"]),
    (changed(*K, "frame", to=9), ["Track 0", "frame 9 is followed by one at frame 9"]),
    (changed(*K, "frame", to=12), ["frame 12 is followed by one at frame 9", "ascending"]),
    (changed("tracks", 1, "keyframes", 0, "frame", to=16), ["'1'", "frame 16", "16 frames", "0..15"]),
    (changed(*K, "easing", to="easeIn"), ["'easeIn'", "ease-in"]),
    (changed(*K, "easing", to=""), ["easing is ''"]),
    (changed(*K, "easing", to=None), ["easing is None"]),
    (changed(*K, "easing", to=1), ["easing is 1"]),
    (changed(*K, "easing", to={}), ["easing is {}"]),
    (changed(*K, "visible", to=1), ["visible is 1", "true or false"]),
    (changed(*K, "visible", to="true"), ["visible is 'true'"]),
    (changed(*K, "visible", to=None), ["visible is None"]),
    (changed(*K, "hidden", to=False), ["unknown key 'hidden'"]),
    # boxes
    (changed(*K, "box"), ["keyframe 0 has no 'box'"]),
    (changed(*K, "box", to=None), ["frame 0 is None", "four numbers"]),
    (changed(*K, "box", to=[]), ["is []", "four numbers"]),
    (changed(*K, "box", to=[0.1, 0.2, 0.3]), ["[0.1, 0.2, 0.3]", "four numbers"]),
    (changed(*K, "box", to=[0.1, 0.2, 0.3, 0.6, 1]), ["four numbers"]),
    (changed(*K, "box", to={"x": 0, "y": 0, "width": 1, "height": 1}), ["'width': 1", "four numbers"]),
    (changed(*K, "box", to="0.1,0.2,0.3,0.6"), ["0.1,0.2", "four numbers"]),
    (changed(*K, "box", to=["0.1", 0.2, 0.3, 0.6]), ["'0.1'", "four numbers"]),
    (changed(*K, "box", to=[0.1, 0.2, True, 0.6]), ["True", "four numbers"]),
    (changed(*K, "box", to=[[0.1, 0.2], [0.3, 0.6]]), ["four numbers"]),
    (changed(*K, "box", to=[0.3, 0.2, 0.1, 0.6]), ["0.3", "left < right"]),
    (changed(*K, "box", to=[0.1, 0.6, 0.3, 0.2]), ["top < bottom"]),
    (changed(*K, "box", to=[0.1, 0.2, 0.1, 0.6]), ["equal corners"]),
    (changed(*K, "box", to=[0.1, 0.2, 0.100001, 0.6]), ["0.00001", "a pixel"]),
    (changed(*K, "box", to=[45, 51, 134, 154]), ["[45, 51, 134, 154]", "fractions", "divide"]),
    (changed(*K, "box", to=[-1.5, 0.2, 0.3, 0.6]), ["-1.5", "within -1 to 2"]),
    (changed(*K, "box", to=[0.1, 0.2, 0.3, 2.25]), ["2.25", "within -1 to 2"]),
    (TEXT.replace("[0.1, 0.2, 0.3, 0.6]", "[NaN, 0.2, 0.3, 0.6]"), ["NaN"]),
    (TEXT.replace("[0.1, 0.2, 0.3, 0.6]", "[0.1, 0.2, Infinity, 0.6]"), ["Infinity"]),
    (TEXT.replace("[0.1, 0.2, 0.3, 0.6]", "[0.1, 0.2, 1e400, 0.6]"), ["inf", "finite"]),
    # paths
    (changed(*K, "path", to=None), ["path are None"]),
    (changed(*K, "path", to=[]), ["path are []"]),
    (changed(*K, "path", to={}), ["path are {}"]),
    (changed(*K, "path", to="M 0 0 L 1 1"), ["path are 'M 0 0"]),
    (changed(*K, "path", to=[[0, 0.2, 0.4]]), ["from 0 to 0", "end at 1"]),
    (changed(*K, "path", to=[[0.1, 0.2, 0.4], [1, 0.7, 0.6]]), ["from 0.1 to 1", "start at 0"]),
    (changed(*K, "path", to=[[0, 0.2, 0.4], [0.9, 0.7, 0.6]]), ["from 0 to 0.9"]),
    (changed(*K, "path", 1, to=[0.5, 0.5]), ["Point 1", "[u, x, y]"]),
    (changed(*K, "path", 1, to=[0.5, 0.5, 0.5, 0.5]), ["Point 1", "three finite numbers"]),
    (changed(*K, "path", 1, to={"u": 0.5, "x": 0.5, "y": 0.5}), ["Point 1", "three finite numbers"]),
    (changed(*K, "path", 1, to=0.5), ["Point 1 of the path is 0.5"]),
    (changed(*K, "path", 1, to=None), ["Point 1 of the path is None"]),
    (changed(*K, "path", 1, to=[0.5, "0.5", 0.5]), ["Point 1", "'0.5'"]),
    (changed(*K, "path", 1, to=[True, 0.5, 0.5]), ["Point 1", "True"]),
    (changed(*K, "path", 1, to=[0, 0.5, 0.5]), ["from 0 at point 0 to 0 at point 1", "ascend"]),
    (changed(*K, "path", 1, to=[1.5, 0.5, 0.5]), ["from 1.5 at point 1 to 1 at point 2"]),
    (changed(*K, "path", 1, to=[-0.5, 0.5, 0.5]), ["to -0.5 at point 1", "ascend"]),
    (changed(*K, "path", 1, to=[1, 0.5, 0.5]), ["from 1 at point 1 to 1 at point 2", "ascend"]),
    (changed(*K, "path", 1, to=[0.5, 224, 128]), ["[0.5, 224, 128]", "divide pixels"]),
    (changed(*K, "path", 1, to=[0.5, 0.5, -1.01]), ["-1.01", "within -1 to 2"]),
    (TEXT.replace("[0.5, 0.5, 0.5]", "[0.5, -Infinity, 0.5]"), ["-Infinity"]),
]  # fmt: skip


def test_the_document_that_the_others_are_made_of_is_read():
    plan = KeyframePlan.from_json(TEXT)
    assert (plan.width, plan.height, plan.length, plan.fps, len(plan.tracks)) == (448, 256, 16, 8.0, 2)


def test_the_table_of_malformed_documents_is_long_and_has_no_repetition():
    assert len({text for text, _ in MALFORMED}) == len(MALFORMED) >= 120


@pytest.mark.parametrize(("text", "words"), MALFORMED, ids=[str(i) for i in range(len(MALFORMED))])
def test_a_malformed_document_is_refused_with_a_sentence_that_names_value_and_fix(text, words):
    with pytest.raises(ValueError) as error:
        KeyframePlan.from_json(text)
    message = str(error.value)
    for word in words:
        assert word in message, message
    assert type(error.value) is ValueError
    assert message[0].isupper() and message.endswith(".") and len(message) < 500 and "\n" not in message


@pytest.mark.parametrize("text", [None, 7, b"{}", GOOD, [TEXT]])
def test_what_is_not_text_is_refused_with_a_sentence(text):
    with pytest.raises(ValueError, match="not text; give JSON"):
        KeyframePlan.from_json(text)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document below the whole."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(*path, key), *places(item, (*path, key))]]


def with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """A document with every default written out."""
    key = {"easing": "linear", "visible": True, "path": []}
    track = {"label": "", "interpolation": "linear"}
    tracks = [{**track, **t, "keyframes": [{**key, **k} for k in t["keyframes"]]} for t in document["tracks"]]
    return {"fps": 8, **document, "tracks": tracks}


leaves = st.none() | st.booleans() | st.integers(-3, 20) | st.floats() | st.floats(-1, 2) | st.text(max_size=3)
words = st.sampled_from(["hold", "linear", "smooth", "0", "1", "x", *GOOD, "frame", "box", "path", "id"])
values = st.recursive(
    leaves | words, lambda v: st.lists(v, max_size=4) | st.dictionaries(words, v, max_size=3), max_leaves=8
)


@settings(max_examples=250)
@given(place=st.sampled_from(places(GOOD)), value=st.just(MISSING) | values)
def test_a_changed_document_is_refused_with_a_sentence_or_read_to_the_last_value(place, value):
    text = changed(*place, to=value)
    try:
        plan = KeyframePlan.from_json(text)
    except ValueError as error:
        assert type(error) is ValueError and str(error).endswith(".") and str(error)[0].isupper()
    else:
        assert_same(with_defaults(json.loads(plan.to_json())), with_defaults(json.loads(text)))
        assert plan.evaluate().length == plan.length


def assert_same(written: Any, given: Any) -> None:
    """Equal up to the digits that are written."""
    if isinstance(given, (list, dict)):
        assert type(written) is type(given) and len(written) == len(given)
        for key in given if isinstance(given, dict) else range(len(given)):
            assert_same(written[key], given[key])
    elif isinstance(given, float):
        assert written == pytest.approx(given, abs=1e-6)
    else:
        assert written == given and type(written) is type(given)


@given(st.text(max_size=60) | st.integers(0, len(TEXT)).map(lambda n: TEXT[:n] + TEXT[n + 1 :]))
def test_any_text_is_read_or_refused_with_a_sentence(text):
    try:
        KeyframePlan.from_json(text).evaluate()
    except ValueError as error:
        assert type(error) is ValueError and str(error).endswith(".")
