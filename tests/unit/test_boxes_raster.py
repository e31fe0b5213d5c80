"""Boxes as pixels, and the agreement of masks, overlays and integer boxes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dv2_core.boxes import (
    Box,
    BoxTrack,
    draw_boxes,
    from_bounding_boxes,
    from_first_and_last,
    from_masks,
    rasterize,
    to_bounding_boxes,
)
from dv2_core.boxes.raster import COLOURS

#: Examples are the same in every run, and a slow machine is no failure.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, x2 = sorted(draw(st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(draw(st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True)))
    return (x1 / 1000, y1 / 1000, x2 / 1000, y2 / 1000)


@st.composite
def tracks(draw: st.DrawFn) -> BoxTrack:
    found = draw(st.lists(boxes(), min_size=1, max_size=6))
    visible = draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    visible[draw(st.integers(0, len(found) - 1))] = True
    return BoxTrack(tuple(found), tuple(visible))


sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))


def test_a_pixel_is_inside_when_its_centre_is():
    mask = rasterize(BoxTrack(((0.26, 0.0, 0.74, 0.5),)), 4, 2)  # x from 1.04 to 2.96 pixels
    assert mask.tolist() == [[[0, 1, 1, 0], [0, 0, 0, 0]]]
    mask = rasterize(BoxTrack(((0.4, 0.0, 0.6, 1.0),)), 4, 1)  # from 1.6 to 2.4: no centre, so the pixel under 2.0
    assert mask.tolist() == [[[0, 0, 1, 0]]]


def test_masks_are_float32_frames_first_and_zero_where_hidden():
    mask = rasterize(BoxTrack(((0.0, 0.0, 1.0, 1.0),) * 2, (True, False)), 5, 3)
    assert mask.shape == (2, 3, 5) and mask.dtype == torch.float32
    assert mask[0].eq(1).all() and mask[1].eq(0).all()


@given(box=boxes(), size=sizes)
def test_the_mask_area_equals_the_box_area_within_rounding_and_is_never_empty(box, size):
    width, height = size
    mask = rasterize(BoxTrack((box,)), width, height)[0]
    columns, rows = int(mask.any(0).sum()), int(mask.any(1).sum())
    assert mask.sum() == columns * rows >= 1
    assert abs(columns - (box[2] - box[0]) * width) <= 1 + 1e-6
    assert abs(rows - (box[3] - box[1]) * height) <= 1 + 1e-6


@given(track=tracks(), size=sizes)
def test_mask_to_boxes_to_mask_is_the_same_mask(track, size):
    mask = rasterize(track, *size)
    assert torch.equal(rasterize(from_masks(mask), *size), mask)


@given(track=tracks(), size=sizes)
def test_bounding_boxes_cover_exactly_the_pixels_of_the_mask_and_come_back_the_same(track, size):
    width, height = size
    frames = to_bounding_boxes(track, width, height)
    mask = torch.zeros(track.length, height, width)
    for t, found in enumerate(frames):
        for box in found:
            mask[t, box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = 1
    assert torch.equal(mask, rasterize(track, width, height))
    back = from_bounding_boxes(frames, width, height)
    assert back.visible == track.visible
    assert to_bounding_boxes(back, width, height) == frames


def test_a_hundred_clean_divisions_round_trip_to_the_same_integers():
    for width in (7, 10, 64, 100, 448, 1000):
        track = from_bounding_boxes([{"x": x, "y": 0, "width": 3, "height": 1} for x in range(width - 3)], width, 1)
        assert [frame[0]["x"] for frame in to_bounding_boxes(track, width, 1)] == list(range(width - 3))


def test_the_overlay_draws_an_outline_inside_the_box_and_leaves_the_rest_and_the_input():
    frames = torch.full((2, 16, 16, 3), 0.5)
    drawn = draw_boxes(frames, BoxTrack(((0.25, 0.25, 0.75, 0.75),) * 2, (True, False)))
    assert frames.eq(0.5).all()
    assert torch.equal(drawn[1], frames[1])
    changed = (drawn[0] != 0.5).any(-1)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:12, 4:12] = True
    inside[5:11, 5:11] = False
    assert torch.equal(changed, inside)
    assert drawn[0, 4, 4].tolist() == pytest.approx(COLOURS[0])


def test_the_outline_is_two_pixels_wide_on_frames_of_256_pixels_and_more():
    for side, line in ((255, 1), (256, 2)):
        drawn = draw_boxes(torch.zeros(1, side, side, 3), BoxTrack(((0.0, 0.0, 1.0, 1.0),)))
        assert drawn.any(-1)[0, side // 2].sum() == 2 * line


def test_several_tracks_get_their_own_colours_and_numbers_fit_at_the_border():
    tracks = [from_first_and_last((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1), 12), BoxTrack(((0.99, 0.99, 1.0, 1.0),) * 12)]
    drawn = draw_boxes(torch.zeros(12, 64, 64, 3), tracks, numbers=True)
    assert drawn.shape == (12, 64, 64, 3) and drawn.min() >= 0 and drawn.max() <= 1
    assert drawn[11, 63, 63].tolist() == pytest.approx(COLOURS[1])
    assert torch.equal(drawn, draw_boxes(torch.zeros(12, 64, 64, 3), tracks, numbers=True))


def test_frame_numbers_differ_from_frame_to_frame():
    still = BoxTrack(((0.1, 0.1, 0.9, 0.9),) * 30)
    drawn = draw_boxes(torch.zeros(30, 48, 48, 3), still, numbers=True)
    assert len({tuple(frame.flatten().tolist()) for frame in drawn}) == 30


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: draw_boxes(torch.zeros(5, 8, 8, 3), t), ["2 frames", "5", "resample"]),
        (lambda t: draw_boxes(torch.zeros(2, 8, 8), t), ["[2, 8, 8]", "[frames, height, width, 3]"]),
        (lambda t: draw_boxes(torch.zeros(2, 8, 8, 4), t), ["[2, 8, 8, 4]", "RGB"]),
        (lambda t: rasterize(t, 0, 8), ["width", "0", "at least 1"]),
        (lambda t: rasterize(t, 8, -1), ["height", "-1", "at least 1"]),
    ],
)
def test_pictures_that_do_not_fit_the_boxes_are_refused_with_a_sentence(make, words):
    with pytest.raises(ValueError) as error:
        make(BoxTrack(((0.0, 0.0, 1.0, 1.0),) * 2))
    for word in words:
        assert word in str(error.value)


def test_two_hundred_frames_of_full_size_masks_have_the_area_of_their_boxes():
    track = from_first_and_last((0.0, 0.0, 0.25, 0.5), (0.75, 0.5, 1.0, 1.0), 200)
    areas = rasterize(track, 448, 256).sum((1, 2))
    assert areas.min() >= 111 * 127 and areas.max() <= 113 * 129
    assert math.isclose(float(areas[0]), 112 * 128)
