"""Malformed boxes in every format, picked by hand: each is refused with a sentence that says what is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from dv2_core.boxes import BoxPlan, BoxTrack
from dv2_core.boxes.formats import write
from dv2_core.boxes.json_text import MAX_TEXT
from tests.box_values import ONE, H, W, box, element, refusal, seg

DEEP: list[Any] = []
for _ in range(500):
    DEEP = [DEEP]

#: (format, value, words of the sentence)
PICKED: list[tuple[str, Any, str]] = [
    # nothing that is a format
    ("auto", None, "NoneType"),
    ("auto", 7, "means cannot be told"),
    ("auto", math.nan, "means cannot be told"),
    ("auto", True, "bool"),
    ("auto", b"[[0,0,8,8],[0,0,8,8]]", "bytes"),
    ("auto", object(), "object"),
    ("auto", {}, "means cannot be told"),
    ("auto", [], "means cannot be told"),
    ("auto", (), "means cannot be told"),
    ("auto", [[], []], "means cannot be told"),
    ("auto", DEEP, "levels deep"),
    ("auto", {"a": 1}, "'a': 1"),
    ("auto", [{"a": 1}, {"a": 1}], "'a': 1"),
    ("auto", [None, None], "None, None"),
    ("auto", {1, 2}, "set"),
    ("auto", "", "empty"),
    ("auto", "boxes", "not valid JSON"),
    ("auto", "/etc/passwd", "not valid JSON"),
    ("auto", "../../boxes.csv", "not valid JSON"),
    ("auto", "null", "neither a list nor an object"),
    ("auto", "[" * 5000, "nested"),
    ("auto", "[" * 500 + "]" * 500, "levels deep"),
    ("auto", '{"a": 1, "a": 2}', "twice"),
    ("auto", "[NaN]", "finite"),
    ("auto", "x" * (MAX_TEXT + 1), f"{MAX_TEXT + 1} characters"),
    ("auto", torch.zeros(2, 2), "is [0, 0]"),
    ("auto", torch.zeros(0), "What Tensor means"),
    ("auto", torch.tensor(3.0), "cannot be told"),
    ("GIF", [[0, 0, 8, 8]], "GIF"),
    ("", [[0, 0, 8, 8]], "not known"),
    ("omni", [[0, 0, 8, 8]], "is a folder"),
    ("davis", "[[0,0,8,8]]", "is a folder"),
    ("mask", "[[0,0,8,8]]", "MASK"),
    ("mask", [[0, 0, 8, 8]], "MASK"),
    ("tracks", '{"track_path": [[[0, 0]]]}', "tensor"),
    ("segs", [[0, 0, 8, 8]], "Impact Pack"),
    ("keyframes", [[0, 0, 8, 8]], "document"),
    ("csv", [[0, 0, 8, 8]], "CSV"),
    ("bounding_box", "[[0,0,8,8],[0,0,8,8]]", "x, y, width and height"),
    # BOUNDING_BOX
    ("bounding_box", None, "BOUNDING_BOX"),
    ("bounding_box", [], "BOUNDING_BOX"),
    ("auto", [box(0, 0, 8, 8)] * 3, "3 boxes for 2 frames"),
    ("auto", [[box(0, 0, 8, 8)]] * 3, "3 boxes for 2 frames"),
    ("bounding_box", [[], []], "None of the 2 frames"),
    ("auto", [[box(0, 0, 8, 8)] * 2, []], "Frame 0 has 2 boxes"),
    ("auto", [[box(0, 0, 8, 8, obj_id="1")] * 2, []], "two boxes of the subject"),
    ("auto", [[box(0, 0, 8, 8, obj_id="1")], [box(0, 0, 8, 8)]], "others have none"),
    ("auto", [[box(0, 0, 8, 8, obj_id="1"), box(0, 0, 8, 8)], []], "not every box says"),
    ("auto", [[box(0, 0, 8, 8, obj_id={"a": 1})], []], "short text"),
    ("auto", [[box(0, 0, 8, 8, obj_id="")], []], "short text"),
    ("auto", [[box(0, 0, 8, 8, obj_id=True)], []], "short text"),
    ("auto", [[box(0, 0, 8, 8, obj_id="x" * 1000)], []], "short text"),
    ("auto", [[box(0, 0, 8, 8)], [[0, 0, 8, 8]]], "frame 1"),
    ("auto", [box(0, 0, 8, 8), [0, 0, 8, 8]], "frame 1"),
    ("auto", box(0, 0, 65, 8), "64x32 canvas"),
    ("auto", box(-3, 0, 8, 8), "64x32 canvas"),
    ("auto", box(0, 0, 0.5, 8), "under one pixel"),
    ("auto", box(0.1, 0.1, 0.5, 0.5), "look like fractions"),
    ("auto", box(0, 0, 10**400, 8), "finite"),
    # BBOX
    ("bbox", None, "BBOX"),
    ("bbox", [], "BBOX"),
    ("auto", (10, 10, 20, 20), "two readings"),
    ("auto", [(10, 10, 20, 20)] * 2, "bbox_xywh"),
    ("auto", [[(10, 10, 20, 20)], []], "from (10, 10) to (30, 30)"),
    ("auto", torch.tensor([[10.0, 10.0, 20.0, 20.0]] * 2), "two readings"),
    ("auto", [(0, 0, 8, 8)] * 3, "3 boxes for 2 frames"),
    ("auto", [[(0, 0, 8, 8), (8, 8, 16, 16)], []], "does not say whose"),
    ("auto", (40, 20, 30, 16), "reversed"),
    ("bbox_xyxy", (40, 20, 20, 10), "reversed"),
    ("bbox_xywh", (40, 20, 30, 10), "canvas"),
    ("bbox_xywh", (0, 0, -8, 8), "above 0"),
    ("bbox_xywh", (0, 0, 0, 8), "above 0"),
    ("bbox_xyxy", (0, 0, 8), "four numbers"),
    ("bbox_xyxy", [(0, 0, 8, 8), None], "None"),
    ("bbox_xyxy", [[None], [(0, 0, 8, 8)]], "None"),
    ("bbox_xyxy", [[[(0, 0, 8, 8)]], []], "four numbers"),
    ("bbox_dict", (0, 0, 8, 8), "startX"),
    ("bbox", [box(0, 0, 8, 8)] * 2, "as BOUNDING_BOX"),
    ("auto", {"startX": 0, "startY": 0, "endX": 8}, "endY"),
    ("auto", {"startX": 8, "startY": 8, "endX": 8, "endY": 8}, "corners"),
    ("auto", {"startX": None, "startY": 0, "endX": 8, "endY": 8}, "None"),
    ("bbox", (0, 0, 10**400, 8), "finite"),
    ("bbox", "[[0, 0, 8, 8], 5]", "is 5"),
    # elements
    ("elements", [], "[]"),
    ("auto", element(0, 0, 0.5, 0.5), "fractions"),
    ("auto", element(0, 0, 1001, 500), "outside the grid"),
    ("auto", element(-1, 0, 500, 500), "outside the grid"),
    ("auto", element(500, 0, 100, 500), "reversed"),
    ("auto", element(0, 500, 500, 500), "reversed or equal"),
    ("auto", element(0, 0, 500), "four numbers"),
    ("auto", element("0", 0, 500, 500), "four numbers"),
    ("auto", element(0, 0, math.inf, 500), "finite"),
    ("auto", [[element(0, 0, 500, 500)]], "1 lists of elements for 2 frames"),
    ("auto", [[element(0, 0, 500, 500)] * 2, []], "Frame 0 has 2 elements"),
    ("auto", [[element(0, 0, 500, 500)], 7], "frame 1"),
    ("auto", [[element(0, 0, 500, 500)], [{"type": "obj"}]], "frame 1"),
    ("auto", [[element(0, 0, 500, 500)], [None]], "None"),
    ("auto", [[element(0, 0, 500, 500, obj_id="1")], [element(0, 0, 500, 500)]], "others have none"),
    ("auto", [[element(0, 0, 500, 500, obj_id=1.5)], []], "short text"),
    ("elements", [[], []], "None of the 2 frames"),
    # SEGS
    ("segs", None, "Impact Pack"),
    ("auto", ((H, W), [seg((0, 0, 8, 8)), seg((0, 0, 9, 9))]), "two readings"),
    ("segs_subjects", ((H, W), [seg((0, 0, 8, 8)), seg((0, 0, 9, 9))]), "two boxes of the subject 'A'"),
    ("segs_frames", ((H, W), [seg((0, 0, 8, 8))]), "1 SEGS for 2 frames"),
    ("auto", [((H, W), [seg((0, 0, 8, 8))])] * 3, "3 SEGS for 2 frames"),
    ("auto", ((H, W), []), "None of the 2 frames"),
    ("auto", ((0, W), [seg((0, 0, 8, 8))]), "height is 0"),
    ("auto", ((H, W), [seg((0, 0, 80, 8))]), "64x32 canvas"),
    ("auto", ((H, W), [seg((8, 8, 0, 0))]), "reversed"),
    ("auto", ((H, W), [seg((0, 0, 8))]), "four numbers"),
    ("auto", ((H, W), [seg(None)]), "None"),
    ("auto", ((H, W), [seg(7)]), "is 7"),
    ("auto", ((H, W), [seg((0, 0, 8, 8), label={"a": 1})]), "short text"),
    ("segs", ((H, W), [{"bbox": (0, 0, 8, 8)}]), "Impact Pack"),
    ("segs", [((H, W), [seg((0, 0, 8, 8))]), None], "Impact Pack"),
    ("segs", ((float(H), W), [seg((0, 0, 8, 8))]), "Impact Pack"),
    # TRACKS
    ("tracks", {}, "track_path"),
    ("tracks", {"track_path": [[[0, 0]]]}, "tensor"),
    ("auto", {"track_path": torch.zeros(2, 2)}, "[2, 2]"),
    ("auto", {"track_path": torch.zeros(2, 1, 3)}, "[2, 1, 3]"),
    ("auto", {"track_path": torch.zeros(2, 0, 2)}, "[2, 0, 2]"),
    ("auto", {"track_path": torch.zeros(3, 1, 2)}, "3 points for 2 frames"),
    ("auto", {"track_path": torch.full((2, 1, 2), math.nan)}, "finite"),
    ("auto", {"track_path": torch.full((2, 1, 2), 1e30)}, "1e+30"),
    ("auto", {"track_path": torch.zeros(2, 1, 2), "track_visibility": torch.ones(3, 1)}, "[2, 1]"),
    ("auto", {"track_path": torch.zeros(2, 1, 2), "track_visibility": True}, "track_visibility is True"),
    ("auto", {"track_path": torch.zeros(2000, 1000, 2)}, "at most 1000000"),
    ("auto", {"track_path": torch.zeros(2, 1, 2, dtype=torch.complex64)}, "finite"),
    # KJ / ATI points
    ("points", "", "empty"),
    ("points", "[]", "tracks of points"),
    ("points", "[[]]", "tracks of points"),
    ("points", "{}", "tracks of points"),
    ("points", "[[0, 0], [8, 8]]", "is 0"),
    ("points", None, "tracks of points"),
    ("auto", '[{"x": 1, "y": 1}]', "1 points for 2 frames"),
    ("auto", '[[{"x": 1, "y": 1}, {"x": 1, "y": 1}], [{"x": 1, "y": 1}]]', "track 1 has 1"),
    ("auto", '[{"x": 1, "y": 1}, {"x": 1}]', "Point 1"),
    ("points", '[{"x": 1, "y": 1, "frame": 0}, {"x": 1, "y": 1, "frame": 9}]', "'frame': 0"),
    ("auto", '[{"x": 1, "y": 1}, {"x": "1", "y": 1}]', "finite"),
    ("auto", '[{"x": 1, "y": 1}, {"x": null, "y": 1}]', "finite"),
    ("auto", '[{"x": 1, "y": 1}, {"x": 1e9, "y": 1}]', "pixels"),
    ("auto", "[{'x': 1, 'y': 1}, {'x': 1, 'y': true}]", "finite"),
    ("auto", "[{'x': 1, 'y': 1}, {'x': 1, 'y': 1}", "not valid JSON"),
    ("auto", "__import__('os').system('true')", "not valid JSON"),
    ("auto", ["[]", "[]"], "tracks of points"),
    ("auto", ["not", "json"], "not valid JSON"),
    # MASK
    ("mask", None, "MASK"),
    ("auto", torch.zeros(2, H, W), "empty"),
    ("auto", torch.ones(3, H, W), "3 masks for 2 frames"),
    ("auto", torch.full((2, H, W), math.nan), "NaN"),
    ("mask", torch.ones(H, W), "[32, 64]"),
    ("mask", torch.ones(2, H, W, 3), "[2, 32, 64, 3]"),
    ("auto", torch.ones(2, 0, W), "[2, 0, 64]"),
    ("auto", torch.ones(0, H, W), "0 masks"),
    ("auto", torch.ones(2, H, W, dtype=torch.complex64), "MASK"),
    # keyframe document
    ("auto", '{"version": 1, "tracks": []}', "width"),
    ("auto", '{"version": 2, "width": 64, "height": 32, "length": 2, "tracks": []}', "version 2"),
    ("auto", {"version": 1, "tracks": {}}, "width"),
    ("auto", write(BoxPlan((BoxTrack(((0, 0, 0.5, 0.5),) * 3),), W, H), "keyframes"), "for 3 frames, but"),
    # text
    ("text", "[]", "empty list"),
    ("text", '{"first": [0, 0, 8, 8]}', "none of the known"),
    ("auto", "[[0, 0, 8, 8]]", "1 boxes for 2 frames"),
    ("auto", "[[0, 0, 8, 8], [8, 8]]", "[8, 8]"),
    ("auto", "[[0, 0, 8, 8], [0, 0, 80, 8]]", "64x32 canvas"),
    ("auto", '[{"frame": 0, "box": [0, 0, 8, 8]}, {"frame": 0, "box": [0, 0, 8, 8]}]', "two keyframes"),
    # CSV
    ("csv", "", "no rows"),
    ("auto", "frame,x1,y1,x2,y2", "no rows"),
    ("auto", "frame;x1;y1;x2;y2\n0;0;0;8;8", "header"),
    ("auto", "frame,x1,y1,x2\n0,0,0,8", "header"),
    ("csv", "0,0,0,8,8\n1,0,0,8,8", "header"),
    ("auto", "frame,x1,y1,x2,y2,x,y\n0,0,0,8,8,0,0", "header"),
    ("auto", "frame,frame,x1,y1,x2,y2\n0,0,0,0,8,8", "header"),
    ("auto", "frame,x1,y1,x2,y2,score\n0,0,0,8,8,1", "score"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8", "1 frames in the CSV for 2 frames"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n0,0,0,8,8\n1,0,0,8,8", "two boxes"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n1,0,0,8", "Line 3"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n1,0,0,8,8,8", "Line 3"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n-1,0,0,8,8", "'-1'"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n1.5,0,0,8,8", "'1.5'"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n99999999,0,0,8,8", "99999999"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n" + "9" * 5000 + ",0,0,8,8", "frames are whole"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n1,a,0,8,8", "'a'"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n1,nan,0,8,8", "'nan'"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n1,1e999,0,8,8", "finite"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n1,1_0,0,18,8", "'1_0'"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n1,,0,8,8", "''"),
    ("auto", "frame,x1,y1,x2,y2\n0,0,0,8,8\n1,8,8,0,0", "reversed"),
    ("auto", "frame,x,y,width,height\n0,0,0,8,8\n1,0,0,-8,8", "above 0"),
    ("auto", "frame,x1,y1,x2,y2,visible\n0,0,0,8,8,1\n1,0,0,8,8,maybe", "'maybe'"),
    ("auto", "frame,x1,y1,x2,y2,obj_id\n0,0,0,8,8,1\n1,0,0,8,8,", "line 3"),
    ("auto", 'frame,x1,y1,x2,y2\n0,"0,0,8,8\n1,0,0,8,8', "broken"),
    ("csv", "x" * (MAX_TEXT + 1), f"{MAX_TEXT + 1} characters"),
    ("csv", None, "None"),
    # DreamVideo-Omni metadata as text
    ("auto", '{"frames_info": 7}', "frames_info is 7"),
    ("auto", '{"frames_info": []}', "neither frames_info nor"),
    ("auto", '{"frames_info": [{}, {}]}', "None of the 2 frames"),
    ("auto", '{"frames_info": [7, {}]}', "Frame 0"),
    ("auto", '{"frames_info": [{"bboxes": 7}, {}]}', "Frame 0"),
    ("auto", '{"frames_info": [{"bboxes": [7]}, {}]}', "A box of frame 0"),
    ("auto", '{"frames_info": [{"bboxes": [{"bbox": [0, 0, 8, 8]}]}, {}]}', "obj_id"),
    ("auto", '{"frames_info": [{"frame_idx": 1}, {"frame_idx": 0}]}', "frame_idx 1"),
    ("auto", '{"width": 0, "height": 32, "frames_info": [{}]}', "width is 0"),
    ("auto", '{"width": "64", "height": 32, "frames_info": [{}]}', "'64'"),
    ("auto", '{"paths": {"tracks": {"tracks": "a.npy"}}, "frames_info": null}', "neither frames_info nor"),
]  # fmt: skip


@pytest.mark.parametrize(("fmt", "value", "words"), PICKED, ids=[str(n) for n in range(len(PICKED))])
def test_a_malformed_value_is_refused_with_a_sentence_that_says_what_is_wrong(fmt, value, words):
    assert words in refusal(value, fmt)


@pytest.mark.parametrize(
    "size", [None, 8, (8,), (0, 8), (8, 0.5), (65, 8), (8, math.nan), ("8", 8), (True, 8), (10**400, 8), "88"]
)
@pytest.mark.parametrize("fmt", ["tracks", "points"])
def test_points_without_a_usable_box_size_are_refused(fmt, size):
    assert "size" in refusal(write(ONE, fmt), fmt, size)


@pytest.mark.parametrize("length", [0, -1, 2.0, "2", True, 10**9])
@pytest.mark.parametrize("fmt", ["bounding_box", "text", "csv", "mask"])
def test_a_bad_length_is_refused_whatever_the_format(fmt, length):
    assert "length" in refusal(write(ONE, fmt), fmt, length=length)


@pytest.mark.parametrize("boxes", [1_000, 100_000])
def test_a_short_text_cannot_ask_for_more_boxes_than_memory_holds(boxes):
    several = [element(0, 0, 500, 500) for _ in range(1_001)]
    assert "at most 1000000" in refusal(json.dumps(several), length=boxes)
    named = [box(0, 0, 8, 8, obj_id=n) for n in range(1_001)]
    assert "at most 1000000" in refusal(named, length=boxes)


@pytest.mark.parametrize("fmt", ["gif", "bbox", "segs_frames", "", None])
def test_a_format_that_cannot_be_written_is_refused_with_the_names_that_can(fmt):
    with pytest.raises(ValueError, match="cannot be written; choose keyframes"):
        write(ONE, fmt)
