"""Boxes from trajectories in time, from masks of several pieces and from a detector's candidates; their repair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dv2_core.boxes import (
    Box,
    BoxTrack,
    fill_gaps,
    from_detections,
    from_first_and_last,
    from_first_and_trajectory,
    from_masks,
    rasterize,
    smooth,
)
from dv2_core.boxes.curves import centre
from dv2_core.boxes.interpolate import along_trajectory

#: Examples are the same in every run, and a slow machine is no failure.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("repeatable")

FIRST: Box = (0.1, 0.4, 0.3, 0.6)


def middles(track: BoxTrack) -> list[tuple[float, float]]:
    return [centre(box) for box in track.boxes]


def test_a_timed_trajectory_is_followed_as_it_was_drawn():
    track = from_first_and_trajectory(FIRST, [(0.2, 0.5), (0.3, 0.5), (0.8, 0.5)], 9, times=[100, 175, 200])
    assert [x for x, _ in middles(track)] == pytest.approx([0.2 + t / 60 for t in range(7)] + [0.55, 0.8])


def test_the_first_point_of_a_timed_trajectory_gives_way_to_the_first_box():
    track = from_first_and_trajectory(FIRST, [(0.25, 0.45), (0.8, 0.5)], 4, times=[0.0, 1.5])
    assert track.boxes[0] == pytest.approx(FIRST) and middles(track)[-1] == pytest.approx((0.8, 0.5))


@pytest.mark.parametrize("times", [(), (0, 1, 3)])
def test_a_smooth_trajectory_passes_its_points_and_rounds_the_corner(times):
    points = [(0.2, 0.5), (0.5, 0.2), (0.8, 0.5)]
    track = from_first_and_trajectory(FIRST, points, 301, interpolation="smooth", times=times)
    for x, y in points:
        assert min(math.dist(found, (x, y)) for found in middles(track)) < 2e-3
    at = middles(track)
    turns = [
        math.remainder(math.atan2(c[1] - b[1], c[0] - b[0]) - math.atan2(b[1] - a[1], b[0] - a[0]), math.tau)
        for a, b, c in zip(at, at[1:], at[2:], strict=False)
    ]
    assert max(map(abs, turns)) < 0.2  # the polyline turns by a right angle at once


def test_a_smooth_trajectory_without_times_has_constant_speed_in_pixels():
    points = [(0.3, 0.7), (0.32, 0.72), (0.8, 0.3)]
    track = from_first_and_trajectory(FIRST, points, 101, aspect=1.75, interpolation="smooth")
    at = middles(track)
    steps = [math.hypot((b[0] - a[0]) * 1.75, b[1] - a[1]) for a, b in zip(at, at[1:], strict=False)]
    assert max(steps) / min(steps) < 1.05


def test_size_over_time_is_spread_evenly_and_leaves_the_path_alone():
    plain = from_first_and_trajectory((0.4, 0.4, 0.6, 0.6), [(0.4, 0.5)], 9)
    grown = from_first_and_trajectory((0.4, 0.4, 0.6, 0.6), [(0.4, 0.5)], 9, scale=[1, 2, 0.5])
    assert middles(grown) == [pytest.approx(point) for point in middles(plain)]
    widths = [x2 - x1 for x1, _, x2, _ in grown.boxes]
    assert widths == pytest.approx([0.2, 0.25, 0.3, 0.35, 0.4, 0.325, 0.25, 0.175, 0.1])


@given(
    points=st.lists(st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)), min_size=2, max_size=6),
    length=st.integers(2, 33),
    timed=st.booleans(),
    interpolation=st.sampled_from(["linear", "smooth"]),
)
def test_any_trajectory_starts_at_the_first_box_and_ends_at_the_last_point(points, length, timed, interpolation):
    times = range(len(points)) if timed else ()
    first = (0.45, 0.45, 0.55, 0.55)
    boxes = along_trajectory(first, points, length, interpolation=interpolation, times=times)  # type: ignore[arg-type]
    assert boxes[0] == pytest.approx(first) and centre(boxes[-1]) == pytest.approx(points[-1], abs=1e-8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: from_first_and_trajectory(FIRST, [(0.5, 0.5)], 8, times=[0]), ["[0]", "1 points", "at least two"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5), (0.5, 0.5)], 8, times=[0]), ["[0]", "2 points"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5), (0.5, 0.5)], 8, times=[1, 1]), ["from 1 to 1"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5), (0.5, 0.5)], 8, times=[2, 1]), ["from 2 to 1"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5)] * 3, 8, times=[0, 1e-320, 1e300]), ["ascend"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5)] * 2, 8, times=[-1e308, 1e308]), ["ascend"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5), (0.5, 0.5)], 8, times=[0, math.nan]), ["nan"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5)], 8, scale=[]), ["[]", "above 0"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5)], 8, scale=[2.0]), ["starts with 2", "first box"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5)], 8, scale=[1, 0]), ["[1, 0]", "above 0"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5)], 8, scale=[1, 9]), ["frame 1", "clip()"]),
        (lambda: from_first_and_trajectory(FIRST, [(224, 128)], 8), ["[224, 128]", "divide pixels"]),
        (lambda: from_first_and_trajectory(FIRST, [(0.2, 0.5)], 8, interpolation="cubic"), ["'cubic'", "smooth"]),  # type: ignore
        (lambda: from_masks(torch.ones(2, 4, 4), "biggest"), ["'biggest'", "largest"]),  # type: ignore[arg-type]
        (lambda: from_masks(torch.ones(2, 4, 4), "largest", (0.5, 0.5)), ["largest", "follow"]),
        (lambda: from_masks(torch.ones(2, 4, 4), "follow", (0.5,)), ["0.5", "two finite numbers"]),
        (lambda: from_detections([]), ["0 frames"]),
        (lambda: from_detections([[], []]), ["None of the 2 frames", "threshold"]),
        (lambda: from_detections([[], [(FIRST, 0.0)]]), ["frame 1", "score 0", "above 0"]),
        (lambda: from_detections([[(FIRST, math.nan)]]), ["score nan"]),
        (lambda: from_detections([[], [((0.3, 0.4, 0.1, 0.6), 1.0)]]), ["frame 1", "left < right"]),
        (lambda: from_detections([[((10, 10, 40, 40), 1.0)]]), ["frame 0", "outside the canvas"]),
        (lambda: from_detections([[(FIRST, 1.0)]], point=(0.5, math.inf)), ["subject's point", "inf"]),
        (lambda: fill_gaps(BoxTrack((FIRST,)), -1), ["-1 frames", "0 or above"]),
        (lambda: smooth(BoxTrack((FIRST,)), 8), ["8 frames", "odd"]),
        (lambda: smooth(BoxTrack((FIRST,)), 3), ["3 frames", "5 to 99"]),
    ],
)
def test_bad_values_are_refused_with_a_sentence_naming_them(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word in str(error.value), str(error.value)
    assert str(error.value).endswith(".")


def blobs(*frames: list[tuple[int, int, int, int]]) -> torch.Tensor:
    """Masks [F, 40, 60] with filled boxes (left, top, right, bottom)."""
    mask = torch.zeros(len(frames), 40, 60)
    for t, boxes in enumerate(frames):
        for left, top, right, bottom in boxes:
            mask[t, top:bottom, left:right] = 1
    return mask


def pixels(track: BoxTrack) -> list[tuple[int, ...]]:
    return [tuple(round(v * s) for v, s in zip(box, (60, 40, 60, 40), strict=True)) for box in track.boxes]


def test_specks_beside_the_subject_widen_its_box_unless_the_largest_piece_is_asked_for():
    mask = blobs([(10, 10, 30, 20), (50, 35, 51, 36)], [(12, 10, 32, 20)], [])
    assert pixels(from_masks(mask))[0] == (10, 10, 51, 36)
    track = from_masks(mask, "largest")
    assert pixels(track) == [(10, 10, 30, 20), (12, 10, 32, 20), (12, 10, 32, 20)]
    assert track.visible == (True, True, False)


def test_pieces_hang_together_over_corners():
    assert pixels(from_masks(blobs([(10, 10, 20, 20), (20, 20, 30, 30)]), "largest")) == [(10, 10, 30, 30)]


def test_the_followed_piece_stays_the_same_when_another_one_grows_larger():
    subject = [(5 + 3 * t, 10, 17 + 3 * t, 20) for t in range(8)]
    other = [(45, 30, 46 + 2 * t, 31 + t) for t in range(8)]
    mask = blobs(*([a, b] for a, b in zip(subject, other, strict=True)))
    assert pixels(from_masks(mask, "follow", point=(0.2, 0.4))) == subject
    assert pixels(from_masks(mask, "follow", point=(0.76, 0.76))) == other
    assert pixels(from_masks(mask, "follow")) == subject


def test_a_subject_that_is_away_for_a_while_is_hidden_and_found_again():
    subject = [[(5 + 4 * t, 10, 17 + 4 * t, 20)] for t in range(9)]
    subject[3] = subject[4] = []
    subject[6].append((0, 38, 2, 40))
    track = from_masks(blobs(*subject), "follow", point=(0.2, 0.4))
    assert track.visible == (True, True, True, False, False, True, True, True, True)
    assert pixels(track)[3] == (17, 10, 29, 20) and pixels(track)[6] == (29, 10, 41, 20)


@pytest.mark.parametrize("component", ["all", "largest", "follow"])
@given(x=st.integers(0, 20), speed=st.integers(0, 5), width=st.integers(6, 20))
def test_one_piece_is_the_same_box_however_it_is_chosen(component, x, speed, width):
    track = from_first_and_last(
        (x / 60, 0.2, (x + width) / 60, 0.5), ((x + 4 * speed) / 60, 0.2, (x + 4 * speed + width) / 60, 0.5), 5
    )
    mask = rasterize(track, 60, 40)
    assert torch.equal(rasterize(from_masks(mask, component), 60, 40), mask)


def test_a_detectors_surest_box_is_followed_both_ways_unless_a_point_names_another():
    subject = [(0.1 + 0.05 * t, 0.4, 0.3 + 0.05 * t, 0.6) for t in range(10)]
    frames = [[((0.7, 0.0, 0.9, 0.2), 0.9 if t in (2, 7) else 0.3), (box, 0.6)] for t, box in enumerate(subject)]
    frames[4] = []
    track = from_detections(frames, obj_id="3", label="duck")
    assert all(box == (0.7, 0.0, 0.9, 0.2) for box in track.boxes)
    assert track.visible == tuple(t != 4 for t in range(10)) and (track.obj_id, track.label) == ("3", "duck")
    other = from_detections(frames, point=(0.15, 0.45))
    assert other.boxes == tuple(pytest.approx(box) for box in subject)


def test_a_point_names_the_smallest_box_around_it_or_else_the_nearest():
    large, inner, near = (0.0, 0.0, 0.6, 0.6), (0.2, 0.2, 0.58, 0.58), (0.6, 0.6, 0.65, 0.65)
    frames = [[(large, 0.9), (inner, 0.5), (near, 0.9)]]
    assert from_detections(frames, point=(0.59, 0.59)).boxes == (large,)
    assert from_detections(frames, point=(0.55, 0.55)).boxes == (inner,)
    assert from_detections(frames, point=(0.7, 0.7)).boxes == (near,)


def test_a_candidate_across_the_canvas_is_not_the_subject():
    frames = [[((0.1, 0.1, 0.2, 0.2), 1.0)], [((0.8, 0.8, 0.9, 0.9), 1.0)], [((0.12, 0.1, 0.22, 0.2), 1.0)]]
    assert from_detections(frames).visible == (True, False, True)


def test_a_subject_that_was_away_for_long_may_come_back_anywhere():
    frames = [[((0.1, 0.1, 0.2, 0.2), 1.0)]] * 2 + [[]] * 9 + [[((0.8, 0.8, 0.9, 0.9), 1.0)]] * 2
    assert from_detections(frames).visible == (True,) * 2 + (False,) * 9 + (True,) * 2


def test_a_detectors_box_over_the_edge_is_cut_to_the_canvas():
    assert from_detections([[((-0.1, 0.5, 0.2, 1.1), 0.5)]]).boxes == ((0.0, 0.5, 0.2, 1.0),)


def test_only_short_gaps_between_visible_frames_are_filled():
    visible = [c == "x" for c in "..x.xx..x...x."]
    track = BoxTrack((FIRST,) * len(visible), tuple(visible))
    assert "".join("x" if v else "." for v in fill_gaps(track, 2).visible) == "..xxxxxxx...x."
    assert fill_gaps(track, 0) == track and fill_gaps(track, 3).visible[2:13] == (True,) * 11


def noisy(truth: np.ndarray, seed: int, slips: float = 0.05) -> BoxTrack:
    """Every edge trembles by 2 % of the side; some are off by up to half of it."""
    rng = np.random.default_rng(seed)
    side = np.tile(truth[:, 2:] - truth[:, :2], 2)
    seen = truth + rng.normal(size=truth.shape) * 0.02 * side
    seen += (rng.random(truth.shape) < slips) * rng.uniform(-0.3, 0.5, truth.shape) * np.array([1, 1, -1, -1]) * side
    return BoxTrack(tuple(map(tuple, seen.clip(0, 1).tolist())))


def test_smoothing_takes_the_trembling_and_neither_lags_nor_shrinks():
    eased = (lambda t: t * t * (3 - 2 * t))(np.linspace(0, 1, 49))[:, None]
    truth = np.array([[0.1, 0.15, 0.3, 0.45]]) + eased * np.array([[0.6, 0.3, 0.6, 0.3]])
    middle = (truth[:, :2] + truth[:, 2:]) / 2
    speed = np.gradient(middle, axis=0)
    late, size, before, after = [], [], [], []
    for seed in range(10):
        track = noisy(truth, seed)
        calm = np.array(smooth(track).boxes)
        late.append(((middle - (calm[:, :2] + calm[:, 2:]) / 2) * speed).sum() / (speed**2).sum())
        size.append(np.log((calm[:, 2:] - calm[:, :2]) / (truth[:, 2:] - truth[:, :2])).mean())
        before.append(np.abs(np.diff(np.array(track.boxes) - truth, 2, axis=0)).mean())
        after.append(np.abs(np.diff(calm - truth, 2, axis=0)).mean())
    assert abs(np.mean(late)) < 0.1 and abs(np.mean(size)) < 0.01
    assert np.mean(after) < np.mean(before) / 4


def test_smoothing_leaves_a_calm_motion_and_a_short_clip_alone():
    calm = from_first_and_last((0.1, 0.2, 0.3, 0.5), (0.6, 0.3, 0.8, 0.6), 20)
    for old, new in zip(calm.boxes, smooth(calm).boxes, strict=True):
        assert new == pytest.approx(old, abs=1e-3)
    short = BoxTrack((FIRST, (0.5, 0.5, 0.9, 0.9), FIRST, FIRST), (True, False, True, True))
    assert smooth(short) == short
    assert smooth(noisy(np.tile(FIRST, (6, 1)), 0)).length == 6


def test_a_subject_at_the_canvas_edge_stays_there_and_one_slip_to_it_does_not():
    rng = np.random.default_rng(0)
    boxes = [(0.0, 0.3, 0.2 + 0.01 * rng.random(), 0.6) for _ in range(20)]
    boxes[10] = (0.0, 0.0, 1.0, 1.0)
    calm = smooth(BoxTrack(tuple(boxes), tuple(t != 5 for t in range(20)), "7", "duck"))
    assert all(box[0] == 0.0 and 0.18 < box[2] < 0.23 and box[1] > 0.25 for box in calm.boxes)
    assert calm.visible[5] is False and (calm.obj_id, calm.label) == ("7", "duck")


@given(seed=st.integers(0, 10**6), length=st.integers(1, 30), window=st.sampled_from([5, 9, 21]))
def test_smoothing_wild_boxes_gives_boxes_on_the_canvas(seed, length, window):
    corners = np.random.default_rng(seed).random((length, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    boxes = np.where(boxes < 0.3, 0.0, boxes)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1e-4).clip(0, 1.0)
    assert smooth(BoxTrack(tuple(map(tuple, boxes.tolist()))), window).length == length
