"""Every format, written and read again: what it keeps is kept exactly, up to its rounding."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dv2_core.boxes import Box, BoxPlan, BoxTrack, to_bounding_boxes
from dv2_core.boxes.formats import FORMATS, detect, read_any, write

#: Examples are the same in every run, and a slow machine is no failure.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("repeatable")

W, H = 60, 40


class Keeps(NamedTuple):
    """What a format keeps. error: largest error of a visible box's edge, in pixels of the canvas."""

    error: float
    several: bool = True
    visible: bool = True
    hidden_boxes: bool = False
    ids: bool = True
    labels: bool = True
    auto: bool = True


#: A whole pixel's rounding moves an edge by half a pixel, and a box under a pixel grows to one.
KEEPS = {
    "keyframes": Keeps(1e-4, hidden_boxes=True),
    "csv": Keeps(5.1e-4, hidden_boxes=True),
    "text": Keeps(5.1e-4, several=False, ids=False, labels=False),
    "bounding_box": Keeps(0.501),
    "bbox_xyxy": Keeps(0.501, several=False, visible=False, hidden_boxes=True, ids=False, labels=False, auto=False),
    "bbox_xywh": Keeps(0.501, several=False, visible=False, hidden_boxes=True, ids=False, labels=False, auto=False),
    "bbox_dict": Keeps(0.501, several=False, visible=False, hidden_boxes=True, ids=False, labels=False),
    "elements": Keeps(0.0611),
    "segs": Keeps(0.501, ids=False, labels=False),
    "mask": Keeps(0.501, several=False, ids=False, labels=False),
    "omni": Keeps(0.501),
    "davis": Keeps(0.501, several=False, labels=False),
}
POINTS = ("tracks", "points")


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """At least a pixel wide and high."""
    x1, y1 = draw(st.floats(0, 0.9)), draw(st.floats(0, 0.9))
    return (x1, y1, x1 + draw(st.floats(0.03, 1 - x1)), y1 + draw(st.floats(0.03, 1 - y1)))


@st.composite
def plans(draw: st.DrawFn, most: int = 3) -> BoxPlan:
    length = draw(st.integers(1, 4))
    tracks = []
    for name in draw(
        st.lists(st.sampled_from(["1", "2", "7", "duck, the", "ä"]), min_size=1, max_size=most, unique=True)
    ):
        found = draw(st.lists(boxes(), min_size=length, max_size=length))
        visible = draw(st.lists(st.booleans(), min_size=length, max_size=length))
        visible[draw(st.integers(0, length - 1))] = True
        tracks.append(BoxTrack(tuple(found), tuple(visible), name, draw(st.sampled_from(["", "a dog"]))))
    return BoxPlan(tuple(tracks), W, H)


def round_trip(plan: BoxPlan, fmt: str, folder: Path, **more: Any) -> BoxPlan:
    value = write(plan, fmt, folder)
    return read_any(value, W, H, plan.length, fmt if fmt.startswith("bbox_x") else "auto", **more)


def check(plan: BoxPlan, fmt: str) -> None:
    keeps = KEEPS[fmt]
    with tempfile.TemporaryDirectory() as folder:
        back = round_trip(plan, fmt, Path(folder, "first"))
        assert round_trip(back, fmt, Path(folder, "second")) == back
    assert (len(back.tracks), back.length, back.width, back.height) == (len(plan.tracks), plan.length, W, H)
    first = {track.obj_id: next(t for t in range(plan.length) if track.visible[t]) for track in plan.tracks}
    order = plan.tracks if keeps.hidden_boxes else sorted(plan.tracks, key=lambda track: first[track.obj_id])
    if keeps.ids:
        assert [track.obj_id for track in back.tracks] == [track.obj_id for track in order]
    for track, found in zip(order, back.tracks, strict=True):
        assert found.label == track.label or not keeps.labels
        assert found.visible == (track.visible if keeps.visible else (True,) * plan.length)
        for box, other, visible in zip(track.boxes, found.boxes, track.visible, strict=True):
            if visible or keeps.hidden_boxes:
                errors = [abs(a - b) * size for a, b, size in zip(box, other, (W, H, W, H), strict=True)]
                assert max(errors) <= keeps.error, (box, other)


def test_the_table_of_this_file_names_every_format_that_can_be_written():
    assert {*KEEPS, *POINTS} == {name for name, form in FORMATS.items() if form.write}


@pytest.mark.parametrize("fmt", [name for name, keeps in KEEPS.items() if keeps.several and name != "omni"])
@given(plan=plans())
def test_several_subjects_come_back_from_a_value_as_they_went_in(fmt, plan):
    check(plan, fmt)


@pytest.mark.parametrize("fmt", [name for name, keeps in KEEPS.items() if not keeps.several and name != "davis"])
@given(plan=plans(most=1))
def test_one_subject_comes_back_from_a_value_as_it_went_in(fmt, plan):
    check(plan, fmt)


@settings(max_examples=8)
@given(plan=plans())
def test_several_subjects_come_back_from_a_case_folder_as_they_went_in(plan):
    check(plan, "omni")


@settings(max_examples=8)
@given(found=boxes(), visible=st.lists(st.booleans(), min_size=1, max_size=3))
def test_one_subject_comes_back_from_a_mask_folder_as_it_went_in(found, visible):
    check(BoxPlan((BoxTrack((found,) * (len(visible) + 1), (True, *visible), "7"),), W, H), "davis")


@pytest.mark.parametrize("fmt", POINTS)
@given(centres=st.lists(st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)), min_size=1, max_size=4))
def test_boxes_of_one_size_come_back_from_points_when_that_size_is_given(fmt, centres):
    track = BoxTrack(tuple((x - 0.2, y - 0.1, x + 0.2, y + 0.1) for x, y in centres))
    plan = BoxPlan((track, BoxTrack(track.boxes[::-1], obj_id="1")), W, H)
    back = read_any(write(plan, fmt), W, H, plan.length, size=(0.4 * W, 0.2 * H))
    for found, wanted in zip(back.tracks, plan.tracks, strict=True):
        assert found.visible == wanted.visible and found.obj_id == wanted.obj_id
        for box, other in zip(found.boxes, wanted.boxes, strict=True):
            assert box == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("fmt", ["bounding_box", "segs", "mask", "omni", "csv", "elements"])
def test_a_box_thinner_than_the_format_can_say_grows_and_stays_where_it_is(fmt, tmp_path):
    plan = BoxPlan((BoxTrack(((0.999, 0.5, 1.0, 0.501),), obj_id="1"),), W, H)
    back = round_trip(plan, fmt, tmp_path / "folder").tracks[0]
    assert back.visible == (True,)
    x1, y1, x2, y2 = back.boxes[0]
    assert x2 == 1.0 and x2 - x1 <= 1 / W + 1e-9 and abs((y1 + y2) / 2 - 0.5) <= 1 / H and y2 - y1 <= 1 / H + 1e-9


def test_tracks_keep_who_is_hidden_and_the_points_string_does_not():
    plan = BoxPlan((BoxTrack(((0.25, 0.25, 0.75, 0.75),) * 3, (True, False, True)),), W, H)
    assert read_any(write(plan, "tracks"), W, H, size=(30, 20)).tracks[0].visible == (True, False, True)
    assert read_any(write(plan, "points"), W, H, size=(30, 20)).tracks[0].visible == (True, True, True)


@pytest.mark.parametrize("fmt", [name for name, keeps in KEEPS.items() if not keeps.several and name != "davis"])
def test_a_format_for_one_subject_refuses_several_and_writes_the_one_that_is_named(fmt):
    track = BoxTrack(((0.0, 0.0, 0.5, 0.5),), obj_id="1")
    other = BoxTrack(((0.5, 0.5, 1.0, 1.0),), obj_id="2")
    with pytest.raises(ValueError, match="2 subjects, .*'1', '2'"):
        write(BoxPlan((track, other), W, H), fmt)
    value = write(BoxPlan((track, other), W, H), fmt, track="2")
    reading = fmt if fmt.startswith("bbox_x") else "auto"
    assert read_any(value, W, H, fmt=reading).tracks[0].boxes == other.boxes


def test_what_sockets_carry_and_files_hold_is_told_apart_without_help():
    plan = BoxPlan((BoxTrack(((0.1, 0.2, 0.5, 0.9),) * 3, obj_id="1"),), W, H)
    for fmt in ("bounding_box", "bbox_dict", "elements", "segs", "tracks", "mask"):
        assert detect(write(plan, fmt)) == fmt.replace("bbox_dict", "bbox")
    for fmt in ("bounding_box", "elements"):
        text = json.dumps(write(plan, fmt))
        assert read_any(text, W, H) == read_any(write(plan, fmt), W, H)


def test_segs_keep_a_label_that_only_one_subject_has_and_the_id_of_the_others():
    box = ((0.0, 0.0, 0.5, 0.5),)
    tracks = [
        BoxTrack(box, obj_id="1", label="dog"),
        BoxTrack(box, obj_id="2", label="dog"),
        BoxTrack(box, (), "3", "cat"),
    ]
    back = read_any(write(BoxPlan(tuple(tracks), W, H), "segs"), W, H)
    assert [track.obj_id for track in back.tracks] == ["1", "2", "cat"]


def test_every_example_of_the_documentation_is_read_as_two_frames():
    page = Path(__file__).parents[2] / "docs" / "box-formats.md"
    blocks = page.read_text(encoding="utf-8").split("```")[1::2]
    forms = [line.split("   ")[0] for line in blocks[2].strip().splitlines() if "..." not in line]
    texts = [*forms, *(block.removeprefix("json").strip() for block in blocks[:2] + blocks[3:])]
    assert len(texts) == 9
    for text in texts:
        (track,) = read_any(text, 64, 32, 2).tracks
        assert track.boxes[0] == (0, 0, 0.25, 0.5)
        assert not track.visible[1] or track.boxes[1] == (0.25, 0.25, 0.5, 0.75)


def test_one_track_writes_the_same_bounding_boxes_as_a_plan_of_it():
    track = BoxTrack(((0.1, 0.2, 0.5, 0.9),) * 2, (True, False), "4", "dog")
    assert write(BoxPlan((track,), W, H), "bounding_box") == to_bounding_boxes(track, W, H)
