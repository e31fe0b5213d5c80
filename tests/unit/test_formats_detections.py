"""Boxes that a detector found, several in a frame and without names: the surest one is followed."""

from __future__ import annotations

from typing import Any

import pytest

from dv2_core.boxes.formats import read_any
from tests.box_values import H, W, box


def seen(x: float, y: float, score: float, side: float = 12) -> dict[str, Any]:
    """As SAM 3 Detect and RT-DETR put it out."""
    return {**box(x, y, side, side), "label": "dog", "score": score}


def test_the_surest_box_of_all_is_followed_past_a_neighbour_that_is_surer_in_other_frames():
    found = [[seen(30, 2, 0.5), seen(2, 2, 0.9)], [seen(30, 2, 0.8), seen(4, 3, 0.6)], [], [seen(8, 5, 0.3)]]
    (track,) = read_any(found, W, H, 4, "detections").tracks
    assert track.visible == (True, True, False, True)
    assert [round(b[0] * W, 6) for b in track.boxes] == [2, 4, 6, 8]  # between them where nothing was found


def test_a_box_a_little_outside_is_cut_and_one_far_outside_means_another_frame_size():
    (track,) = read_any([[seen(-1, 0, 0.9)]], W, H, 1, "detections").tracks
    assert track.boxes[0][0] == 0
    with pytest.raises(ValueError, match="width and height of the frames that the detector saw"):
        read_any([[seen(W, 0, 0.9)]], W, H, 1, "detections")


def test_without_that_format_they_are_refused_and_the_sentence_names_it():
    with pytest.raises(ValueError, match="Frame 0 has 2 boxes.*choose the format detections"):
        read_any([[seen(2, 2, 0.9), seen(30, 2, 0.5)]], W, H, 1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([seen(2, 2, 0.9)], "one list of boxes per frame"),
        ([[], []], "None of the 2 frames"),
        ([[[0, 0, 8, 8]]], "has x, y, width, height and a score"),
        ([[seen(2, 2, 0.0)]], "above 0"),
        ([[seen(2, 2, 0.9, side=0)]], "reversed or equal corners"),
    ],
)
def test_what_no_detector_puts_out_is_refused_with_a_sentence(value, words):
    with pytest.raises(ValueError, match=words):
        read_any(value, W, H, None, "detections")
