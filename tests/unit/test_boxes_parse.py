"""Reading boxes: every accepted form, and every refusal as a sentence."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dv2_core.boxes import BoxTrack, from_bounding_boxes, parse_boxes, to_bounding_boxes

#: Examples are the same in every run, and a slow machine is no failure.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

W, H, F = 64, 32, 4
FIRST, LAST = (0.0, 0.0, 0.25, 0.5), (0.75, 0.5, 1.0, 1.0)


def box(x: float, y: float, w: float, h: float, **more: object) -> dict[str, object]:
    return {"x": x, "y": y, "width": w, "height": h, **more}


@pytest.mark.parametrize(
    "value",
    [
        {"first": [0, 0, 16, 16], "last": [48, 16, 64, 32]},
        {"first": box(0, 0, 16, 16), "last": box(48, 16, 16, 16)},
        [{"frame": 0, "box": [0, 0, 16, 16]}, {"frame": 3, "box": [48, 16, 64, 32]}],
        [{"frame": 3, "box": [48, 16, 64, 32]}, {"frame": 0, "box": [0, 0, 16.0, 16]}],
        {"keyframes": [{"frame": 0, "box": [0, 0, 16, 16]}, {"frame": 3, "box": box(48, 16, 16, 16)}]},
        {"first": [0, 0, 16, 16], "trajectory": [[8, 8], [56, 24]]},
        {"first": [0, 0, 16, 16], "trajectory": [[56, 24]]},
        [[0, 0, 16, 16], [16, 16 / 3, 32, 64 / 3], [32, 32 / 3, 48, 80 / 3], [48, 16, 64, 32]],
        [[box(0, 0, 16, 16)], [box(16, 16 / 3, 16, 16)], [box(32, 32 / 3, 16, 16)], [box(48, 16, 16, 16)]],
        [[[0, 0, 16, 16]], [], [], [box(48, 16, 16, 16)]],
    ],
)
def test_every_accepted_form_of_the_same_motion_gives_the_same_boxes(value):
    track = parse_boxes(json.dumps(value), F, W, H)
    assert track.length == F
    assert track.boxes[0] == FIRST and track.boxes[3] == LAST
    assert track.boxes[1] == pytest.approx((0.25, 1 / 6, 0.5, 2 / 3))


def test_an_empty_frame_hides_the_subject_and_its_box_is_interpolated():
    track = parse_boxes("[[[0,0,16,16]], [], [], [[48,16,64,32]]]", F, W, H)
    assert track.visible == (True, False, False, True)


def test_one_core_box_holds_for_every_frame():
    assert parse_boxes(json.dumps(box(0, 0, 16, 16)), F, W, H) == BoxTrack((FIRST,) * F)
    assert from_bounding_boxes(box(0, 0, 16, 16), W, H, F) == BoxTrack((FIRST,) * F)
    assert from_bounding_boxes([box(0, 0, 16, 16)], W, H, F) == BoxTrack((FIRST,) * F)


def test_half_a_pixel_outside_is_rounding_and_is_cut_off():
    track = parse_boxes('{"first": [-0.5, 0, 16, 16], "last": [48, 16, 64.5, 32.4]}', F, W, H)
    assert track.boxes[0] == FIRST and track.boxes[3] == LAST
    assert parse_boxes('{"first": [0, 0, 17, 16], "trajectory": [[56, 8]]}', F, W, H).boxes[3][2] == 1.0


def test_a_trajectory_may_say_when_how_large_and_how_smooth():
    path = '{"first": [0, 8, 8, 16], "trajectory": [[4, 12], [12, 12], [44, 12]], '
    timed = parse_boxes(path + '"times": [0, 3, 4], "scale": [1, 2]}', 5, W, H)
    assert [round((b[0] + b[2]) / 2 * W, 6) for b in timed.boxes] == [4, 6.666667, 9.333333, 12, 44]
    assert [round((b[2] - b[0]) * W, 6) for b in timed.boxes] == [8, 10, 12, 14, 16]
    corner = '{"first": [0, 0, 8, 8], "trajectory": [[4, 4], [32, 28], [60, 4]]'
    straight, smooth = (parse_boxes(corner + end, 9, W, H) for end in ("}", ', "interpolation": "smooth"}'))
    assert straight.boxes[8] == smooth.boxes[8] and straight.boxes[2] != smooth.boxes[2]
    assert parse_boxes(corner + ', "times": [], "scale": [1]}', 9, W, H) == straight


def test_a_trajectory_has_constant_speed_in_pixels_on_a_wide_canvas():
    track = parse_boxes('{"first": [0, 0, 8, 8], "trajectory": [[4, 28], [52, 28]]}', 10, W, H)  # 24 down, 48 right
    assert track.boxes[3] == pytest.approx((0, 24 / 32, 8 / 64, 1.0))


def test_id_and_label_of_core_boxes_are_kept_and_written_back():
    value = [[box(0, 0, 16, 16, label="duck", score=0.9, metadata={"frame": 0, "obj_id": "3"})], []]
    track = from_bounding_boxes(value, W, H)
    assert (track.obj_id, track.label, track.visible) == ("3", "duck", (True, False))
    written = to_bounding_boxes(track, W, H)
    assert written == [[box(0, 0, 16, 16, label="duck", metadata={"frame": 0, "obj_id": "3"})], []]


def test_written_bounding_boxes_are_plain_json_integers_with_frame_and_id():
    track = BoxTrack(((0.1, 0.1, 0.5, 0.6),) * 2)
    written = to_bounding_boxes(track, W, H)
    assert json.loads(json.dumps(written)) == written
    assert written[1] == [box(6, 3, 26, 16, metadata={"frame": 1, "obj_id": "0"})]


MALFORMED: list[tuple[str, list[str]]] = [
    # not JSON
    ("", ["empty", "Accepted"]),
    ("   \n", ["empty", "Accepted"]),
    ("{", ["not valid JSON", "line 1", "Accepted"]),
    ("[[0,0,16,16],", ["not valid JSON", "line 1", "Accepted"]),
    ("[[0,0,16,16],]", ["not valid JSON", "column 14"]),
    ("{'first': [0,0,16,16], 'last': [0,0,16,16]}", ["not valid JSON", "'first'"]),
    ('{"first": [0,0,16,16]\n "last": [0,0,8,8]}', ["not valid JSON", "line 2"]),
    ("first: 0 0 16 16", ["not valid JSON", "first: 0 0"]),
    ("__import__('os').system('true')", ["not valid JSON", "__import__"]),
    ("[[0,0,16,16]] [[0,0,16,16]]", ["not valid JSON", "Extra data"]),
    ("\ufeff[]", ["not valid JSON", "BOM"]),
    ("[" * 100_000, ["nested", "Accepted"]),
    (" " * 4_000_001, ["4000001 characters", "4000000"]),
    # not boxes
    ("null", ["None", "neither a list nor an object"]),
    ("true", ["True", "neither a list nor an object"]),
    ("42", ["42", "neither a list nor an object"]),
    ('"[0,0,16,16]"', ["[0,0,16,16]", "neither a list nor an object"]),
    ("[]", ["empty list", "Accepted"]),
    ("{}", ["keys []", "Accepted"]),
    ("[0,0,16,16]", ["[0, 0, 16, 16]", "twice, as first and last"]),
    ('{"first": [0,0,16,16]}', ["'first'", "Accepted"]),
    ('{"first": [0,0,16,16], "last": [0,0,8,8], "middle": [0,0,8,8]}', ["'middle'", "Accepted"]),
    ('{"First": [0,0,16,16], "Last": [0,0,8,8]}', ["'First'", "Accepted"]),
    ('{"first": [0,0,16,16], "first": [0,0,8,8], "last": [0,0,8,8]}', ["'first'", "twice"]),
    ('{"x": 0, "y": 0, "w": 8, "h": 8}', ["'w'", "Accepted"]),
    # a box that is none
    ('{"first": null, "last": [0,0,8,8]}', ["the first frame", "None", "four numbers"]),
    ('{"first": [0,0,16], "last": [0,0,8,8]}', ["the first frame", "[0, 0, 16]", "four numbers"]),
    ('{"first": [0,0,16,16,16], "last": [0,0,8,8]}', ["the first frame", "[0, 0, 16, 16, 16]", "four numbers"]),
    ('{"first": [0,0,16,16], "last": []}', ["the last frame", "[]", "four numbers"]),
    ('{"first": "0,0,16,16", "last": [0,0,8,8]}', ["the first frame", "0,0,16,16", "four numbers"]),
    ('{"first": ["0","0","16","16"], "last": [0,0,8,8]}', ["the first frame", "'16'", "four numbers"]),
    ('{"first": [0,0,true,16], "last": [0,0,8,8]}', ["the first frame", "True", "four numbers"]),
    ('{"first": [[0,0],[16,16]], "last": [0,0,8,8]}', ["the first frame", "[[0, 0], [16, 16]]", "four numbers"]),
    ('{"first": {"x":0,"y":0,"width":8}, "last": [0,0,8,8]}', ["the first frame", "'width': 8", "height"]),
    ('{"first": {"x":0,"y":0,"width":0,"height":8}, "last": [0,0,8,8]}', ["the first frame", "'width': 0", "above 0"]),
    ('{"first": {"x":0,"y":0,"width":-8,"height":8}, "last": [0,0,8,8]}', ["'width': -8", "above 0"]),
    ('{"first": {"x":"0","y":0,"width":8,"height":8}, "last": [0,0,8,8]}', ["'x': '0'", "finite numbers"]),
    # numbers that are none
    ('{"first": [NaN,0,16,16], "last": [0,0,8,8]}', ["NaN", "finite"]),
    ('{"first": [0,0,Infinity,16], "last": [0,0,8,8]}', ["Infinity", "finite"]),
    ('{"first": [-Infinity,0,16,16], "last": [0,0,8,8]}', ["-Infinity", "finite"]),
    ('{"first": [0,0,1e999,16], "last": [0,0,8,8]}', ["the first frame", "inf", "finite"]),
    ('{"first": [0,0,' + "9" * 5000 + ',16], "last": [0,0,8,8]}', ["5000 digits", "18"]),
    ('{"first": [0,0,99999999999999999,16], "last": [0,0,8,8]}', ["1e+17", "64x32"]),
    # corners and canvas
    ('{"first": [16,0,0,16], "last": [0,0,8,8]}', ["the first frame", "[16, 0, 0, 16]", "corners"]),
    ('{"first": [0,0,8,8], "last": [20,16,8,8]}', ["the last frame", "[20, 16, 8, 8]", "reversed", "width"]),
    ('{"first": [4,4,4,16], "last": [0,0,8,8]}', ["the first frame", "[4, 4, 4, 16]", "corners"]),
    ('{"first": [0,0,65,16], "last": [0,0,8,8]}', ["the first frame", "[0, 0, 65, 16]", "64x32 canvas"]),
    ('{"first": [-1,0,16,16], "last": [0,0,8,8]}', ["the first frame", "[-1, 0, 16, 16]", "64x32 canvas"]),
    ('{"first": [0,0,8,8], "last": [0,0,16,33]}', ["the last frame", "[0, 0, 16, 33]", "y in 0..32"]),
    ('{"first": [100,100,120,120], "last": [0,0,8,8]}', ["[100, 100, 120, 120]", "64x32 canvas"]),
    ('{"first": {"x":60,"y":0,"width":8,"height":8}, "last": [0,0,8,8]}', ["[60, 0, 68, 8]", "64x32 canvas"]),
    ('{"first": [4,4,4.5,16], "last": [0,0,8,8]}', ["[4, 4, 4.5, 16]", "under one pixel"]),
    ('{"first": [0.1,0.1,0.5,0.5], "last": [0,0,8,8]}', ["[0.1, 0.1, 0.5, 0.5]", "fractions", "64", "32"]),
    # keyframes
    ('{"keyframes": []}', ["[]", '"frame"']),
    ('{"keyframes": {"0": [0,0,8,8]}}', ["{'0': [0, 0, 8, 8]}", '"frame"']),
    ('[{"frame": 0}]', ["entry 0", "{'frame': 0}", '"box"']),
    ('[{"box": [0,0,8,8]}]', ["entry 0", "[0, 0, 8, 8]", '"frame"']),
    ('[{"frame": 0, "box": [0,0,8,8], "ease": "in"}]', ["entry 0", "'ease'", "exactly"]),
    ('[{"frame": 0, "box": [0,0,8,8]}, [0,0,8,8]]', ["entry 1", "[0, 0, 8, 8]", '"frame"']),
    ('[{"frame": 4, "box": [0,0,8,8]}]', ["Keyframe 4", "4 frames", "0 to 3"]),
    ('[{"frame": -1, "box": [0,0,8,8]}]', ["Keyframe -1", "4 frames", "0 to 3"]),
    ('[{"frame": 1.5, "box": [0,0,8,8]}]', ["1.5", "whole number"]),
    ('[{"frame": "1", "box": [0,0,8,8]}]', ["'1'", "whole number"]),
    ('[{"frame": true, "box": [0,0,8,8]}]', ["True", "whole number"]),
    ('[{"frame": null, "box": [0,0,8,8]}]', ["None", "whole number"]),
    ('[{"frame": 1, "box": [0,0,8,8]}, {"frame": 1, "box": [0,0,9,9]}]', ["Frame 1", "two keyframes", "keep one"]),
    ('[{"frame": 2, "box": [8,0,0,8]}]', ["keyframe 2", "[8, 0, 0, 8]", "corners"]),
    # trajectories
    ('{"first": [0,0,8,8], "trajectory": []}', ["trajectory", "[]", "at least one point"]),
    ('{"first": [0,0,8,8], "trajectory": "right"}', ["trajectory", "'right'", "[x, y]"]),
    ('{"first": [0,0,8,8], "trajectory": [4,4]}', ["point 0", "is 4", "[x, y]"]),
    ('{"first": [0,0,8,8], "trajectory": [[4,4],[8]]}', ["point 1", "[8]", "[x, y]"]),
    ('{"first": [0,0,8,8], "trajectory": [[4,4],["8",4]]}', ["point 1", "'8'", "[x, y]"]),
    ('{"first": [0,0,8,8], "trajectory": [[4,4],[70,4]]}', ["Point 1", "[70, 4]", "64x32"]),
    ('{"first": [0,0,8,8], "trajectory": [[8,4],[9,4]], "times": 3}', ["times are 3", "2 points"]),
    ('{"first": [0,0,8,8], "trajectory": [[8,4],[9,4]], "times": null}', ["times are None"]),
    ('{"first": [0,0,8,8], "trajectory": [[8,4],[9,4]], "times": [0]}', ["times are [0]", "2 points"]),
    ('{"first": [0,0,8,8], "trajectory": [[8,4],[9,4]], "times": [1,1]}', ["from 1 to 1", "ascend"]),
    ('{"first": [0,0,8,8], "trajectory": [[8,4],[9,4]], "times": [0,"1"]}', ["times are [0, '1']"]),
    ('{"first": [0,0,8,8], "trajectory": [[8,4]], "scale": 2}', ["scale is 2"]),
    ('{"first": [0,0,8,8], "trajectory": [[8,4]], "scale": [2]}', ["must start with 1"]),
    ('{"first": [0,0,8,8], "trajectory": [[8,4]], "interpolation": "curve"}', ["'curve'", "linear, smooth"]),
    ('{"first": [0,0,8,8], "trajectory": [[8,4]], "speed": 2}', ["keys", "'speed'"]),
    ('{"first": [0,0,8,8], "trajectory": [[62,4]]}', ["frame 3", "[58, 0, 66, 8]", "half a box"]),
    ('{"first": [0,0,8,8], "trajectory": [[4,4]], "speed": 2}', ["'speed'", "Accepted"]),
    # one box per frame
    ("[[0,0,8,8]]", ["1 boxes", "4 frames", "set the length to 1"]),
    ("[[0,0,8,8],[0,0,8,8],[0,0,8,8],[0,0,8,8],[0,0,8,8]]", ["5 boxes", "4 frames", "set the length to 5"]),
    ("[[0,0,8,8],[0,0,8,8],null,[0,0,8,8]]", ["frame 2", "None", "four numbers"]),
    ("[[0,0,8,8],[0,0,8,8],[0,0,8],[0,0,8,8]]", ["frame 2", "[0, 0, 8]", "four numbers"]),
    ("[[0,0,8,8],[0,0,8,8],7,[0,0,8,8]]", ["frame 2", "is 7", "four numbers"]),
    ("[[0,0,8,8],[0,0,8,8],[0,0,8,80],[0,0,8,8]]", ["frame 2", "[0, 0, 8, 80]", "64x32 canvas"]),
    ("[[],[],[],[]]", ["None of the 4 frames", "[x1, y1, x2, y2]"]),
    ("[[],[],[],[[0,0,8,8],[8,8,16,16]]]", ["Frame 3", "2 boxes", "keep one"]),
    ("[[],[],[],[null]]", ["frame 3", "[None]", "four numbers"]),
    ("[[[[0,0,8,8]]],[],[],[]]", ["frame 0", "[[0, 0, 8, 8]]", "four numbers"]),
    ('["a","b","c","d"]', ["frame 0", "'a'", "four numbers"]),
]


def test_the_table_of_malformed_inputs_is_long_and_has_no_repetition():
    assert len({text for text, _ in MALFORMED}) == len(MALFORMED) >= 60


@pytest.mark.parametrize(("text", "words"), MALFORMED, ids=[str(i) for i in range(len(MALFORMED))])
def test_malformed_box_text_is_refused_with_a_sentence_that_names_value_and_fix(text, words):
    with pytest.raises(ValueError) as error:
        parse_boxes(text, F, W, H)
    message = str(error.value)
    for word in words:
        assert word.lower() in message.lower(), message
    assert type(error.value) is ValueError
    assert message[0].isupper() and message.endswith(".") and len(message) < 500 and "\n" not in message


GOOD = '{"first": [0,0,16,16], "last": [48,16,64,32]}'


@pytest.mark.parametrize(
    ("length", "width", "height", "words"),
    [
        (0, W, H, ["0 frames", "from 1"]),
        (-3, W, H, ["-3 frames", "from 1"]),
        (2.0, W, H, ["2 frames", "whole number"]),
        (True, W, H, ["True", "whole number"]),
        ("4", W, H, ["'4'", "whole number"]),
        (10**9, W, H, ["1000000000", "100000"]),
        (F, 0, H, ["width", "is 0", "at least 1"]),
        (F, W, -1, ["height", "is -1", "at least 1"]),
        (F, 64.0, H, ["width", "is 64", "whole number"]),
        (1, W, H, ["1 frame", "differ", "at least 2"]),
    ],
)
def test_a_bad_length_or_canvas_is_refused_with_a_sentence(length, width, height, words):
    with pytest.raises(ValueError) as error:
        parse_boxes(GOOD, length, width, height)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("text", [None, 7, b"[]", [[0, 0, 8, 8]]])
def test_what_is_not_text_is_refused_with_a_sentence(text):
    with pytest.raises(ValueError, match="not text; give JSON"):
        parse_boxes(text, F, W, H)


@pytest.mark.parametrize(
    ("value", "length", "words"),
    [
        (None, F, ["None", "BOUNDING_BOX"]),
        ([], F, ["[]", "BOUNDING_BOX"]),
        ("[]", F, ["'[]'", "BOUNDING_BOX"]),
        ([[0, 0, 8, 8]], F, ["frame 0", "is 0", "width and height"]),
        ([box(0, 0, 8, 8)] * 3, F, ["3 boxes", "4 frames"]),
        ([[box(0, 0, 8, 8)]], F, ["1 boxes", "4 frames"]),
        ([[box(0, 0, 8, 8)] * 2], None, ["Frame 0", "2 boxes"]),
        ([[], []], None, ["None of the 2 frames"]),
        ({"x": 0, "y": 0}, F, ["frame 0", "width and height"]),
        (box(0, 0, math.nan, 8), F, ["frame 0", "nan", "finite"]),
        (box(0, 0, True, 8), F, ["frame 0", "True", "finite numbers"]),
        (box(0, 0, 80, 8), F, ["[0, 0, 80, 8]", "64x32 canvas"]),
        (box(0, 0, 8, 8), 0, ["0 frames"]),
    ],
)
def test_bad_bounding_box_values_are_refused_with_a_sentence(value, length, words):
    with pytest.raises(ValueError) as error:
        from_bounding_boxes(value, W, H, length)
    for word in words:
        assert word in str(error.value)


def test_a_list_of_core_boxes_is_one_box_per_frame():
    track = from_bounding_boxes([box(x, 0, 8, 8) for x in range(F)], W, H, F)
    assert [frame[0]["x"] for frame in to_bounding_boxes(track, W, H)] == [0, 1, 2, 3]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_sentence(text):
    try:
        parse_boxes(text, F, W, H)
    except ValueError as error:
        assert type(error) is ValueError and str(error).endswith(".")


leaves = st.none() | st.booleans() | st.integers(-10, 80) | st.floats() | st.text(max_size=3)
keys = st.sampled_from(["first", "last", "trajectory", "keyframes", "frame", "box", "x", "y", "width", "height"])
values = st.recursive(leaves, lambda v: st.lists(v, max_size=5) | st.dictionaries(keys, v, max_size=4), max_leaves=24)


@settings(max_examples=500)
@given(values)
def test_any_json_value_is_read_or_refused_with_a_sentence(value):
    try:
        track = parse_boxes(json.dumps(value), F, W, H)
    except ValueError as error:
        assert type(error) is ValueError and str(error).endswith(".")
    else:
        assert track.length == F


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 28), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=9
    )
)
def test_pixel_boxes_come_back_from_a_track_as_they_went_in(found):
    boxes = [box(*values) for values in found]
    written = to_bounding_boxes(from_bounding_boxes([[b] for b in boxes], W, H), W, H)
    assert [{k: frame[0][k] for k in ("x", "y", "width", "height")} for frame in written] == boxes
