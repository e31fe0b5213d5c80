"""What is said about boxes before the work starts."""

from __future__ import annotations

import pytest

from dv2_core.boxes import BoxPlan, BoxTrack, Keyframe, KeyframePlan, KeyframeTrack, check_plan, from_first_and_last
from dv2_core.boxes import preflight as checks

A, B = (0.1, 0.1, 0.3, 0.5), (0.6, 0.4, 0.8, 0.8)


def plan(*tracks: BoxTrack) -> BoxPlan:
    return BoxPlan(tracks, 400, 200)


def only(said: list[str], *words: str) -> None:
    """One sentence with all of the words."""
    assert len(said) == 1 and said[0].endswith(".") and said[0][0].isupper()
    for word in words:
        assert word in said[0], said[0]


def test_good_boxes_need_no_words():
    report = check_plan(plan(from_first_and_last(A, B, 16)), 16, 16, 0.1, (0.01, 0.5))
    assert report == checks.Preflight() and report.raise_errors() is None


def test_another_number_of_frames_is_an_error_with_both_numbers_and_the_fix():
    report = check_plan(plan(from_first_and_last(A, B, 16)), 24)
    only(list(report.errors), "16 frames", "video 24", "resample the boxes to 24", "length to 16")
    with pytest.raises(ValueError, match="resample the boxes to 24"):
        report.raise_errors()


def test_a_subject_that_is_never_seen_is_an_error():
    hidden = BoxTrack((A, B), (False, False), "7")
    only(list(check_plan(plan(hidden)).errors), "hidden in all 2 frames", "visible")
    only(list(check_plan(plan(BoxTrack((A, B)), hidden)).errors), "Track '7': ")


def test_one_frame_is_worth_a_warning():
    report = check_plan(plan(BoxTrack((A,))))
    only(list(report.warnings), "1 frame,", "at least 2")
    assert not report.errors


def test_more_frames_than_the_adapter_was_trained_on_are_worth_a_warning():
    track = from_first_and_last(A, B, 24)
    only(list(check_plan(plan(track), trained_frames=16).warnings), "24 frames", "trained on 16")
    assert not check_plan(plan(track), trained_frames=24).warnings


def test_keyframes_outside_the_canvas_are_named_with_their_frames():
    keys = Keyframe(0, (-0.4, 0.2, -0.2, 0.6)), Keyframe(8, (0.4, 0.2, 0.6, 0.6))
    hidden = KeyframeTrack((Keyframe(0, (1.5, 0.2, 1.7, 0.6), visible=False),), "1")
    document = KeyframePlan((KeyframeTrack(keys), hidden), 400, 200, 10)
    outside, partly = checks.off_canvas(document)
    only([outside], "Track '0': In frames 0 to 2", "outside the 400x200 canvas", "hidden")
    only([partly], "Track '0': In frame 3 ", "is cut to it")
    assert {outside, partly} <= set(check_plan(document).warnings)
    assert list(check_plan(document).errors) == ["Track '1': " + checks.never_visible(hidden.evaluate(10, 400, 200))[0]]


def test_boxes_under_a_latent_cell_are_named_with_their_size():
    thin = (0.1, 0.1, 0.11, 0.5)  # 4 pixels wide
    track = BoxTrack((A, thin, thin, A, thin), (True, True, True, True, False))
    only(checks.small_boxes(track, 400, 200), "frames 1 to 2", "8 pixels", "4x80", "8x8")
    assert not checks.small_boxes(BoxTrack(((0.1, 0.1, 0.12, 0.14),)), 400, 200)  # just 8 x 8
    only(checks.small_boxes(BoxTrack((A,)), 30, 20, cell=16), "frame 0 ", "16 pixels")


def test_speed_is_in_canvas_heights_and_only_between_visible_frames():
    track = BoxTrack((A, (0.2, 0.1, 0.4, 0.5), B, B), (True, True, False, True))
    assert checks.speeds(track, aspect=2.0) == pytest.approx({1: 0.2})
    only(checks.fast_boxes(track, 2.0, 0.15), "frame 1 ", "0.2 of the canvas' height", "at most 0.15", "more frames")
    assert not checks.fast_boxes(track, 2.0, 0.21) and not checks.fast_boxes(track, 2.0, None)


def test_sizes_outside_training_are_named_both_ways():
    track = BoxTrack((A, (0.0, 0.0, 1.0, 0.9), (0.1, 0.1, 0.2, 0.2), B))
    assert checks.areas(track) == pytest.approx({0: 0.08, 1: 0.9, 2: 0.01, 3: 0.08})
    smaller, larger = checks.odd_sizes(track, (0.02, 0.5))
    only([smaller], "frame 2 ", "smaller", "1 %", "2 to 50 %", "Make it larger")
    only([larger], "frame 1 ", "larger", "90 %", "Make it smaller")
    assert not checks.odd_sizes(track, None)


def test_many_stretches_of_frames_stay_one_short_sentence():
    thin = (0.1, 0.1, 0.11, 0.5)
    track = BoxTrack(tuple(thin if t % 2 else A for t in range(100)))
    only(checks.small_boxes(track, 400, 200), "frames 1, 3, 5, 7 and 46 more stretches")
