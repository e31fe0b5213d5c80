"""A video against its boxes, and several videos ranked: from the values of sockets to numbers and pictures."""

import json

import numpy as np
import pytest
import torch

from dv2_core.evaluate.adherence import (
    Adherence,
    Candidate,
    array_of,
    by_dino,
    by_pixels,
    detected_boxes,
    rank,
    ranking,
    requested_boxes,
    track_of,
)
from dv2_core.evaluate.draw import BAND, as_image, overlay, plot, ranked_sheet
from dv2_core.evaluate.models import Dino
from tests.tiny_features import save_dino

NOTHING = [np.nan] * 4
REQUESTED = np.array([[0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5], [0.5, 0, 1, 0.5]])


def box(x: int, y: int, width: int, height: int, **more: object) -> dict[str, object]:
    return {"x": x, "y": y, "width": width, "height": height, **more}


# --- boxes as numbers -------------------------------------------------------------------------------------------------


def test_requested_boxes_are_fractions_with_gaps_where_the_subject_is_hidden():
    found = requested_boxes([[box(0, 0, 32, 16)], []], 64, 32, None)
    assert found[0] == pytest.approx([0, 0, 0.5, 0.5]) and np.isnan(found[1]).all()
    text = json.dumps({"first": [0, 0, 32, 16], "last": [32, 0, 64, 16]})
    assert requested_boxes(text, 64, 32, 3) == pytest.approx(REQUESTED)


def test_numbers_and_tracks_are_two_forms_of_the_same_boxes():
    boxes = np.array([REQUESTED[0], NOTHING, REQUESTED[2]])
    assert np.array_equal(array_of(track_of(boxes)), boxes, equal_nan=True)


def test_of_several_boxes_with_a_score_the_best_counts_and_an_empty_frame_is_a_miss():
    few = [
        [box(0, 0, 8, 8, score=0.4, label="dog"), box(32, 16, 32, 16, score=0.9, label="cat")],
        [],
        [box(0, 0, 64, 32, score=0.1)],
    ]
    found = detected_boxes(few, 64, 32, 3)
    assert (
        found[0] == pytest.approx([0.5, 0.5, 1, 1]) and np.isnan(found[1]).all() and found[2].tolist() == [0, 0, 1, 1]
    )


def test_several_boxes_without_a_score_cannot_be_told_apart():
    with pytest.raises(ValueError, match="Frame 0 has 2 boxes"):
        detected_boxes([[box(0, 0, 8, 8), box(32, 16, 32, 16)]], 64, 32, 1)


def test_masks_give_their_tight_boxes_and_an_empty_one_a_miss():
    masks = torch.zeros(3, 32, 64)
    masks[0, 16:, 32:] = 1
    masks[2, :8, :8] = 1
    found = detected_boxes(masks, 64, 32, 3)
    assert found[0] == pytest.approx([0.5, 0.5, 1, 1]) and np.isnan(found[1]).all()
    assert found[2] == pytest.approx([0, 0, 8 / 64, 8 / 32])


@pytest.mark.parametrize("nothing", [[[], [], []], torch.zeros(3, 32, 64)])
def test_a_detector_that_finds_nothing_anywhere_misses_every_frame(nothing: object):
    assert np.isnan(detected_boxes(nothing, 64, 32, 3)).all()
    worst = Adherence(REQUESTED, detected_boxes(nothing, 64, 32, 3), 64, 32)
    assert (worst.mIoU, worst.CD, worst.detection_rate) == (0, 1, 0)


def test_the_subject_is_named_where_the_boxes_have_several():
    two = [[box(0, 0, 32, 16, metadata={"obj_id": "a"}), box(32, 16, 32, 16, metadata={"obj_id": "b"})]]
    assert detected_boxes(two, 64, 32, 1, "b")[0] == pytest.approx([0.5, 0.5, 1, 1])
    assert requested_boxes(two, 64, 32, 1)[0] == pytest.approx([0, 0, 0.5, 0.5])
    with pytest.raises(ValueError, match="There is no track 'c'"):
        detected_boxes(two, 64, 32, 1, "c")
    one = [[box(0, 0, 32, 16)]]  # a detector that knows no ids
    assert detected_boxes(one, 64, 32, 1, "b")[0] == pytest.approx([0, 0, 0.5, 0.5])


# --- one video --------------------------------------------------------------------------------------------------------


def test_boxes_as_requested_have_iou_one_and_a_missed_frame_costs_its_share():
    perfect = Adherence(REQUESTED, REQUESTED, 64, 32)
    assert (perfect.mIoU, perfect.CD, perfect.detection_rate) == (1, 0, 1)
    once = REQUESTED.copy()
    once[1] = np.nan
    assert Adherence(REQUESTED, once, 64, 32).mIoU == pytest.approx(2 / 3)
    assert Adherence(REQUESTED, once, 64, 32).CD == pytest.approx(1 / 3)
    assert Adherence(REQUESTED, once, 64, 32, "skip").mIoU == 1
    assert Adherence(REQUESTED, once, 64, 32).summary().endswith("found in 2 of 3 frames")


def test_the_distance_is_in_diagonals_of_the_frames_own_shape():
    found = REQUESTED[:1] + [0.25, 0, 0.25, 0]
    assert Adherence(REQUESTED[:1], found, 400, 300).CD == pytest.approx(0.2)


def test_other_numbers_of_frames_and_a_request_for_nothing_are_refused():
    with pytest.raises(ValueError, match="requested boxes for 3 frames and detected ones for 2"):
        Adherence(REQUESTED, REQUESTED[:2], 64, 32)
    with pytest.raises(ValueError, match="No frame has a requested box"):
        Adherence(np.array([NOTHING]), REQUESTED[:1], 64, 32)


def test_the_overlay_is_enlarged_and_shows_both_boxes_in_two_colours():
    shown = overlay(torch.zeros(3, 32, 64, 3), REQUESTED, np.roll(REQUESTED, 1, 0))
    assert shown.shape == (3, 256, 512, 3)
    colours = {tuple(round(float(v), 2) for v in pixel) for pixel in shown[0].reshape(-1, 3).unique(dim=0)}
    assert len(colours) == 3 and (1.0, 0.25, 0.2) in colours  # black, and two outlines
    large = overlay(torch.zeros(1, 300, 400, 3), REQUESTED[:1], REQUESTED[:1])
    assert large.shape == (1, 300, 400, 3)


def test_the_plot_tints_the_frames_that_were_missed_and_no_others():
    found = REQUESTED.copy()
    whole = np.asarray(plot(Adherence(REQUESTED, found, 64, 32)))
    found[2] = np.nan
    picture = np.asarray(plot(Adherence(REQUESTED, found, 64, 32)))
    tinted = (picture == BAND).all(-1)
    assert not (whole == BAND).all(-1).any() and tinted.any()
    assert tinted.any(0).nonzero()[0].min() > picture.shape[1] / 2  # the last of three frames
    assert as_image(plot(Adherence(REQUESTED, found, 64, 32))).shape == (1, *picture.shape)


# --- several videos ---------------------------------------------------------------------------------------------------


def videos(*shifts: float) -> tuple[torch.Tensor, np.ndarray]:
    """One grey video per shift of the detected boxes: frames and boxes, one after the other."""
    return torch.full((3 * len(shifts), 32, 64, 3), 0.5), np.concatenate([REQUESTED + [0, s, 0, s] for s in shifts])


def test_videos_are_ranked_by_their_iou_and_of_equals_the_earlier_comes_first():
    order = [
        candidate.number
        for candidate in rank(*[videos(0.3, 0.1, 0.2, 0.1)[0], REQUESTED, videos(0.3, 0.1, 0.2, 0.1)[1]])
    ]
    assert order == [1, 3, 2, 0]


def test_the_subject_counts_with_its_weight():
    frames, found = videos(0.0, 0.25)
    frames[3:] = 1.0  # the second follows worse, and is what the similarity likes

    def bright(video: torch.Tensor, boxes: np.ndarray) -> float:
        return float(video.mean() > 0.9)

    assert [c.number for c in rank(frames, REQUESTED, found, bright, 0.0)] == [0, 1]
    assert [c.number for c in rank(frames, REQUESTED, found, bright, 1.0)] == [1, 0]
    half = rank(frames, REQUESTED, found, bright, 0.5)[0]
    assert half.number == 1 and half.score == pytest.approx(0.5 * half.adherence.mIoU + 0.5)


def test_a_video_in_which_nothing_is_found_comes_last():
    frames, found = videos(0.45, 0.0)
    found[3:] = np.nan
    assert [c.number for c in rank(frames, REQUESTED, found)] == [0, 1]


def test_frames_that_are_no_whole_number_of_videos_are_refused():
    with pytest.raises(ValueError, match="4 frames, which is not a whole number of videos of 3 frames"):
        rank(torch.zeros(4, 32, 64, 3), REQUESTED, np.zeros((4, 4)))


def test_the_ranking_and_its_sheet_have_a_line_per_video():
    frames, found = videos(0.3, 0.0)
    candidates = rank(frames, REQUESTED, found, lambda *_: 0.25)
    lines = ranking(candidates).splitlines()
    assert lines[0].startswith("1. video 1: score 0.625 (mIoU 1.000") and lines[1].startswith("2. video 0")
    assert ranked_sheet(frames, candidates).height > 2 * 128
    assert "similarity" not in ranking([Candidate(0, candidates[0].adherence, None, 0.5)])


def subject() -> tuple[torch.Tensor, torch.Tensor]:
    """A square of noise on white, and its mask."""
    image, mask = torch.ones(32, 32, 3), torch.zeros(32, 32)
    image[8:24, 8:24] = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(0))
    mask[8:24, 8:24] = 1
    return image, mask


def test_pixel_similarity_is_one_for_the_subject_in_its_boxes_and_lower_for_anything_else():
    image, mask = subject()
    frames = torch.full((3, 32, 64, 3), 0.5)
    for t, left in enumerate((0, 16, 32)):
        frames[t, 0:16, left : left + 16] = image[8:24, 8:24]
    boxes = np.array([[left / 64, 0, left / 64 + 0.25, 0.5] for left in (0, 16, 32)])
    similar = by_pixels(image, mask)
    assert similar(frames, boxes) == pytest.approx(1)
    assert similar(frames, boxes + [0, 0.5, 0, 0.5]) < 0.9
    boxes[1] = np.nan  # a hidden frame
    assert similar(frames, boxes) == pytest.approx(1)


def test_dino_similarity_is_one_for_the_subjects_own_picture(tmp_path):
    save_dino(tmp_path / "dino")
    image, _ = subject()
    similar = by_dino(image, Dino.load(tmp_path / "dino"))
    full = np.array([[0, 0, 1, 1.0]])
    assert similar(image[None], full) == pytest.approx(1)
    assert similar(1 - image[None], full) < 0.99
