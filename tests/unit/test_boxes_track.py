"""The BoxTrack value and its sources: endpoints, resampling, trajectories, masks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dv2_core.boxes import (
    Box,
    BoxTrack,
    clip,
    from_first_and_last,
    from_first_and_trajectory,
    from_keyframes,
    from_masks,
)

#: Examples are the same in every run, and a slow machine is no failure.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

A: Box = (0.1, 0.2, 0.3, 0.5)
B: Box = (0.6, 0.4, 1.0, 0.9)
fraction = st.floats(0, 1, allow_nan=False)
lengths = st.integers(1, 40)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, x2 = sorted(draw(st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(draw(st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True)))
    return (x1 / 1000, y1 / 1000, x2 / 1000, y2 / 1000)


def centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def test_a_track_without_visibility_is_visible_in_every_frame():
    assert BoxTrack((A, B)).visible == (True, True)


def test_a_track_is_immutable_hashable_and_made_of_plain_tuples():
    track = BoxTrack([list(A), list(B)], [True, False])  # type: ignore[arg-type]
    assert track == BoxTrack((A, B), (True, False)) and hash(track) == hash(BoxTrack((A, B), (True, False)))
    with pytest.raises(AttributeError):
        track.boxes = ()  # type: ignore[misc]


def test_float32_rounding_at_the_canvas_edge_is_put_onto_the_edge():
    assert BoxTrack(((-1e-8, 0.0, 1.00000006, 0.5),)).boxes == ((0.0, 0.0, 1.0, 0.5),)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BoxTrack(()), ["0 frames"]),
        (lambda: BoxTrack((A, (0.5, 0.1, 0.2, 0.3))), ["frame 1", "0.5", "0.2", "left < right"]),
        (lambda: BoxTrack((A, (0.1, 0.3, 0.2, 0.3))), ["frame 1", "0.3", "top < bottom"]),
        (lambda: BoxTrack(((0.1, 0.1, math.nan, 0.3),)), ["frame 0", "nan", "finite"]),
        (lambda: BoxTrack(((0.1, 0.1, math.inf, 0.3),)), ["frame 0", "inf", "finite"]),
        (lambda: BoxTrack(((0.1, 0.1, 1.2, 0.3),)), ["frame 0", "1.2", "clip()"]),
        (lambda: BoxTrack(((10, 10, 50, 60),)), ["frame 0", "50", "fractions"]),
        (lambda: BoxTrack(((0.1, 0.2, 0.3),)), ["frame 0", "four numbers"]),  # type: ignore[arg-type]
        (lambda: BoxTrack((A, B), (True,)), ["visible", "1 entries", "2 boxes"]),
        (lambda: BoxTrack((A,)).resample(0), ["0 frames", "from 1"]),
        (lambda: BoxTrack((A,)).resample(10**9), ["1000000000", "100000"]),
        (lambda: clip([(1.1, 0.1, 1.4, 0.3)]), ["frame 0", "1.1", "wholly outside"]),
        (lambda: from_first_and_last(A, B, 1), ["1 frame", "0.1", "0.6", "at least 2"]),
        (lambda: from_keyframes({}, 8), ["no keyframes", "8"]),
        (lambda: from_keyframes({8: A}, 8), ["Keyframe 8", "8 frames", "0 to 7"]),
        (lambda: from_keyframes({-1: A}, 8), ["Keyframe -1", "0 to 7"]),
        (lambda: from_keyframes({1.5: A}, 8), ["1.5", "whole number"]),  # type: ignore[dict-item]
        (lambda: from_first_and_trajectory(A, [], 8), ["[]", "at least one point"]),
        (lambda: from_first_and_trajectory(A, [(0.5, math.nan)], 8), ["point 0", "nan", "finite"]),
        (lambda: from_first_and_trajectory(A, [(0.5,)], 8), ["point 0", "0.5", "two finite numbers"]),
        (lambda: from_first_and_trajectory(A, [(1.0, 0.5)], 8), ["frame 7", "1.1", "clip()"]),
        (lambda: from_masks(torch.zeros(4, 8, 8)), ["empty", "4 frames", "inverted"]),
        (lambda: from_masks(torch.zeros(8, 8)), ["[8, 8]", "[frames, height, width]"]),
        (lambda: from_masks(torch.full((1, 4, 4), math.nan)), ["[1, 4, 4]", "NaN"]),
    ],
)
def test_bad_values_are_refused_with_a_sentence_naming_them(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word.lower() in str(error.value).lower()
    assert str(error.value).endswith(".")


@given(first=boxes(), last=boxes(), length=st.integers(2, 40))
def test_first_and_last_boxes_are_kept_exactly_and_edges_move_monotonically(first, last, length):
    track = from_first_and_last(first, last, length)
    assert track.length == length and track.boxes[0] == first and track.boxes[-1] == last
    for edge in range(4):
        steps = [b[edge] - a[edge] for a, b in zip(track.boxes, track.boxes[1:], strict=False)]
        assert all(s >= -1e-12 for s in steps) or all(s <= 1e-12 for s in steps)


@given(first=boxes(), last=boxes(), length=st.integers(2, 30), new=st.integers(2, 60))
def test_resampling_keeps_the_endpoints_and_is_monotone(first, last, length, new):
    track = from_first_and_last(first, last, length).resample(new)
    assert track.length == new and track.boxes[0] == first and track.boxes[-1] == last
    for edge in range(4):
        steps = [b[edge] - a[edge] for a, b in zip(track.boxes, track.boxes[1:], strict=False)]
        assert all(s >= -1e-12 for s in steps) or all(s <= 1e-12 for s in steps)


@given(track=st.lists(boxes(), min_size=1, max_size=12).map(lambda b: BoxTrack(tuple(b))))
def test_resampling_to_the_same_length_changes_nothing(track):
    same = track.resample(track.length)
    assert same.visible == track.visible
    for old, new in zip(track.boxes, same.boxes, strict=True):
        assert new == pytest.approx(old, abs=1e-9)


def test_resampling_keeps_visibility_name_and_label():
    track = BoxTrack((A, A, B, B), (True, False, False, True), "7", "duck").resample(8)
    assert track.visible == (True, True, False, False, False, False, True, True)
    assert (track.obj_id, track.label) == ("7", "duck")


def test_one_frame_stretched_stays_and_many_squeezed_to_one_keep_the_first():
    assert BoxTrack((A,)).resample(3).boxes == (A, A, A)
    assert BoxTrack((A, B)).resample(1).boxes == (A,)


@given(
    keys=st.dictionaries(st.integers(0, 19), boxes(), min_size=1, max_size=6),
)
def test_keyframes_are_hit_exactly_and_held_outside(keys):
    track = from_keyframes(keys, 20)
    for frame, box in keys.items():
        assert track.boxes[frame] == box
    assert all(track.boxes[t] == keys[min(keys)] for t in range(min(keys)))
    assert all(track.boxes[t] == keys[max(keys)] for t in range(max(keys), 20))


def test_between_keyframes_the_box_is_linear_in_time():
    track = from_keyframes({2: (0.0, 0.0, 0.2, 0.2), 6: (0.4, 0.8, 0.6, 1.0)}, 8)
    assert track.boxes[3] == pytest.approx((0.1, 0.2, 0.3, 0.4))


@given(
    points=st.lists(st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)), min_size=1, max_size=6),
    length=st.integers(2, 33),
    aspect=st.sampled_from([1.0, 1.75, 0.5]),
)
def test_a_trajectory_keeps_the_size_and_runs_from_the_first_centre_to_the_last_point(points, length, aspect):
    first: Box = (0.3, 0.4, 0.5, 0.7)
    track = from_first_and_trajectory(first, points, length, aspect)
    assert track.boxes[0] == pytest.approx(first)
    assert centre(track.boxes[-1]) == pytest.approx(points[-1])
    for box in track.boxes:
        assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((0.2, 0.3))
    steps = [
        math.hypot((b[0] - a[0]) * aspect, b[1] - a[1])
        for a, b in zip(map(centre, track.boxes), list(map(centre, track.boxes))[1:], strict=False)
    ]
    path = [centre(first), *points]
    total = sum(math.hypot((b[0] - a[0]) * aspect, b[1] - a[1]) for a, b in zip(path, path[1:], strict=False))
    # Corners are cut by the straight line between two frames, so a step is at most its share of the path.
    assert max(steps) <= total / (length - 1) + 1e-9


def test_a_straight_trajectory_moves_at_constant_speed_through_uneven_points():
    track = from_first_and_trajectory((0.1, 0.4, 0.3, 0.6), [(0.2, 0.5), (0.25, 0.5), (0.8, 0.5)], 7)
    assert [centre(b)[0] for b in track.boxes] == pytest.approx([0.2 + 0.1 * t for t in range(7)])


def test_a_first_point_away_from_the_box_centre_is_reached_from_the_centre():
    track = from_first_and_trajectory((0.0, 0.0, 0.2, 0.2), [(0.1, 0.5), (0.5, 0.5)], 9)
    assert centre(track.boxes[4]) == pytest.approx((0.1, 0.5))


def test_a_trajectory_of_only_the_centre_stays_still():
    assert from_first_and_trajectory((0.25, 0.25, 0.75, 0.75), [(0.5, 0.5)], 4).boxes == ((0.25, 0.25, 0.75, 0.75),) * 4


def test_clip_cuts_to_the_canvas():
    assert clip([(-0.5, 0.1, 0.5, 1.5)]) == ((0.0, 0.1, 0.5, 1.0),)


@given(st.lists(st.tuples(*[st.floats(-2, 3)] * 4), min_size=1, max_size=5))
def test_clipped_boxes_are_always_valid_or_refused(raw):
    try:
        clipped = clip(raw)
    except ValueError:
        return
    assert all(0 <= min(box) and max(box) <= 1 for box in BoxTrack(clipped).boxes)


def test_masks_give_their_tight_rectangles_and_empty_frames_are_hidden_and_interpolated():
    mask = torch.zeros(6, 10, 20)
    mask[1, 2:4, 0:10] = 1
    mask[1, 3, 3] = 0  # a hole changes nothing
    mask[3, 4:6, 4:14] = 0.6
    mask[4] = 0.5  # not above one half
    track = from_masks(mask)
    assert track.visible == (False, True, False, True, False, False)
    assert track.boxes[1] == (0.0, 0.2, 0.5, 0.4)
    assert track.boxes[3] == (0.2, 0.4, 0.7, 0.6)
    assert track.boxes[2] == pytest.approx((0.1, 0.3, 0.6, 0.5))
    assert track.boxes[0] == track.boxes[1] and track.boxes[5] == track.boxes[3]


def test_a_boolean_mask_works_like_a_float_one():
    mask = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.8
    assert from_masks(mask) == from_masks(mask.float())
