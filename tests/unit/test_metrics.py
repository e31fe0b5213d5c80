"""The evaluation's metrics against values worked out by hand."""

import numpy as np
import pytest
import torch

from dv2_core.evaluate.metrics import (
    CROP,
    SubjectCrop,
    background_change,
    bootstrap_interval,
    centroid_distance,
    colour_correlation,
    covered,
    flicker,
    in_box_colour,
    in_box_crops,
    iou,
    mean_iou,
    missed,
    subject_crop,
    subject_distances,
    subject_mse,
    subject_retrieval,
)

NOTHING = [np.nan] * 4
BOX = np.array([0.0, 0.0, 0.5, 0.5])


def flat(red: float, green: float, blue: float, side: int = CROP) -> torch.Tensor:
    return torch.tensor([float(red), green, blue])[:, None, None].expand(3, side, side)


def left_half() -> torch.Tensor:
    weight = torch.zeros(CROP, CROP)
    weight[:, : CROP // 2] = 1
    return weight


def test_iou_of_equal_boxes_is_one_and_of_boxes_apart_is_zero():
    assert iou(BOX, BOX) == 1
    assert iou(BOX, np.array([0.6, 0.6, 0.9, 0.9])) == 0
    assert iou(BOX, np.array([0.5, 0.0, 1.0, 0.5])) == 0  # a shared edge is no overlap


def test_iou_of_half_shifted_boxes_is_a_third():
    # 0.5 x 0.5 boxes that share 0.25 x 0.5: 0.125 / (0.25 + 0.25 - 0.125)
    assert iou(BOX, np.array([0.25, 0.0, 0.75, 0.5])) == pytest.approx(1 / 3)


def test_iou_of_a_box_inside_another_is_the_ratio_of_areas():
    assert iou(np.array([0.1, 0.1, 0.3, 0.2]), BOX) == pytest.approx(0.2 * 0.1 / 0.25)


def test_mean_iou_counts_a_missed_frame_as_zero():
    target = np.stack([BOX, BOX])
    assert mean_iou(np.stack([BOX, BOX]), target) == 1
    assert mean_iou(np.array([BOX, NOTHING]), target) == 0.5
    assert mean_iou(np.array([NOTHING, NOTHING]), target) == 0


def test_mean_iou_of_several_clips_is_one_value_per_clip():
    detected = np.array([[BOX, BOX], [BOX, NOTHING], [NOTHING, NOTHING]])
    assert mean_iou(detected, np.broadcast_to(BOX, (3, 2, 4))).tolist() == [1, 0.5, 0]


def test_missed_is_true_only_where_nothing_was_detected():
    assert missed(np.array([BOX, NOTHING])).tolist() == [False, True]


def test_centroid_distance_is_in_frame_diagonals_and_a_miss_is_one():
    right = BOX + [0.5, 0, 0.5, 0]
    corner = np.array([0.5, 0.5, 1.0, 1.0])
    target = np.stack([BOX] * 4)
    expected = [0, 0.5 / np.sqrt(2), 0.5, 1]
    assert centroid_distance(np.array([BOX, right, corner, NOTHING]), target) == pytest.approx(expected)


def test_centroid_distance_of_a_wide_frame_uses_its_own_diagonal():
    right = BOX + [0.5, 0, 0.5, 0]  # half of 400 pixels, in a frame with a diagonal of 500
    assert centroid_distance(right, BOX, width=400, height=300) == pytest.approx(0.4)


def test_subject_crop_takes_colours_of_the_subject_and_not_of_the_canvas():
    image, alpha = torch.ones(3, 32, 32), torch.zeros(32, 32, dtype=torch.bool)
    alpha[4:28, 10:22] = True
    alpha[4:16, 10:16] = False  # a corner of the tight rectangle shows the white canvas
    image[:, alpha] = torch.tensor([0.2, 0.4, 0.6])[:, None]
    crop = subject_crop(image, alpha)
    assert crop.mean_colour == pytest.approx([0.2, 0.4, 0.6], abs=1e-6)
    assert crop.weight[0, 0] == 0 and crop.weight[-1, -1] == 1
    assert torch.allclose(crop.colour[:, crop.weight > 0].T, torch.tensor([0.2, 0.4, 0.6]), atol=1e-5)


def test_subject_crop_of_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="no subject to compare"):
        subject_crop(torch.ones(3, 8, 8), torch.zeros(8, 8, dtype=torch.bool))


def test_in_box_crops_see_the_boxes_only_one_per_frame():
    frames = torch.zeros(2, 3, 24, 24)
    frames[0, :, 0:12, 0:12] = 1.0
    frames[1, :, 6:18, 12:24] = 0.5
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.25, 1, 0.75]])
    crops = in_box_crops(frames, boxes)
    assert crops.shape == (2, 3, CROP, CROP)
    assert torch.allclose(crops[0], torch.ones(3, CROP, CROP))
    assert torch.allclose(crops[1], torch.full((3, CROP, CROP), 0.5))


def test_in_box_crop_of_a_box_thinner_than_a_pixel_is_one_pixel():
    frames = torch.zeros(1, 3, 16, 16)
    frames[0, :, 4, 4] = 1
    crops = in_box_crops(frames, np.array([[0.25, 0.25, 0.26, 0.26]]))
    assert torch.allclose(crops, torch.ones_like(crops))


def test_subject_mse_is_zero_for_itself_four_for_the_opposite_and_one_for_grey_against_white():
    white = SubjectCrop(flat(1, 1, 1), torch.ones(CROP, CROP))
    assert subject_mse(flat(1, 1, 1), white) == 0
    assert subject_mse(flat(0, 0, 0), white) == pytest.approx(4)  # colours run from -1 to 1
    assert subject_mse(flat(0.5, 0.5, 0.5), white) == pytest.approx(1)


def test_subject_mse_ignores_what_the_subject_does_not_cover():
    subject = SubjectCrop(flat(1, 0, 0), left_half())
    crop = flat(0, 0, 1).clone()
    crop[:, :, : CROP // 2] = flat(1, 0, 0)[:, :, : CROP // 2]
    assert subject_mse(crop, subject) == 0


def test_a_subject_facing_the_other_way_is_the_same_subject():
    colour = torch.rand(3, CROP, CROP, generator=torch.Generator().manual_seed(0))
    subject = SubjectCrop(colour, left_half())
    assert subject_mse(colour.flip(-1), subject) == 0


def test_in_box_colour_follows_the_way_the_subject_faces():
    subject = SubjectCrop(flat(1, 0, 0), left_half())
    crop = flat(0, 0, 1).clone()
    crop[:, :, CROP // 2 :] = flat(1, 0, 0)[:, :, CROP // 2 :]  # the subject, mirrored, on blue
    assert in_box_colour(crop, subject) == pytest.approx([1, 0, 0])


def test_colour_correlation_is_one_for_a_gain_minus_one_for_the_opposite_and_zero_without_variation():
    colours = np.array([[0.1, 0.9, 0.3], [0.5, 0.2, 0.8], [0.7, 0.4, 0.1]])
    assert colour_correlation(0.5 * colours + 0.2, colours) == pytest.approx(1)
    assert colour_correlation(1 - colours, colours) == pytest.approx(-1)
    assert colour_correlation(np.full((3, 3), 0.4), colours) == 0


def test_colour_correlation_averages_the_three_channels():
    colours = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]])
    seen = np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 1.0], [1.0, 0.0, 0.0]])  # correlations 1, -1, 0
    assert colour_correlation(seen, colours) == pytest.approx(0)


def test_subject_distances_have_the_own_subject_on_the_diagonal():
    subjects = [SubjectCrop(flat(v, v, v), torch.ones(CROP, CROP)) for v in (0.0, 0.5, 1.0)]
    crops = [flat(0, 0, 0), flat(1, 1, 1)]
    expected = [[0, 1, 4], [4, 1, 0]]
    assert subject_distances(crops, subjects) == pytest.approx(np.array(expected))


def test_retrieval_finds_the_nearest_subject_first_and_the_fifth_within_five():
    distances = np.ones((8, 8)) + np.arange(8)  # in every row subject 0 is the nearest, subject 7 the farthest
    top1, top5 = subject_retrieval(distances)
    assert top1.tolist() == [True] + [False] * 7
    assert top5.tolist() == [True] * 5 + [False] * 3


def test_an_answer_that_fits_all_subjects_alike_retrieves_none():
    top1, top5 = subject_retrieval(np.ones((8, 8)))
    assert not top1.any() and not top5.any()


def test_flicker_is_zero_for_a_still_picture_four_for_black_and_white_and_the_mean_over_steps_between():
    subject = SubjectCrop(flat(1, 1, 1), torch.ones(CROP, CROP))
    white, black = flat(1, 1, 1), flat(0, 0, 0)
    assert flicker(torch.stack([white, white, white]), subject) == 0
    assert flicker(torch.stack([white, black, white]), subject) == pytest.approx(4)
    assert flicker(torch.stack([white, white, black, black, black]), subject) == pytest.approx(1)
    assert flicker(white[None], subject) == 0


def test_flicker_ignores_what_changes_beside_the_subject_whichever_way_it_faces():
    red, blue = flat(1, 0, 0), flat(0, 0, 1)
    first, second = red.clone(), red.clone()
    second[:, :, CROP // 2 :] = blue[:, :, CROP // 2 :]  # the right half changes, the subject is the left one
    subject = SubjectCrop(red, left_half())
    assert flicker(torch.stack([first, second]), subject) == 0
    assert flicker(torch.stack([first, second]).flip(-1), SubjectCrop(red, left_half())) == 0


def test_covered_marks_every_pixel_a_box_touches_and_nothing_for_a_miss():
    boxes = np.array([[0.25, 0.0, 0.5, 0.3], NOTHING])
    mask = covered(boxes, 10, 8)
    assert mask[0].nonzero().tolist() == [[y, x] for y in range(3) for x in (2, 3)] and not mask[1].any()
    assert covered(boxes, 10, 8, margin=1)[0].sum() == 4 * 4  # the frame's upper edge cuts one row


def test_background_change_is_the_mean_change_outside_both_frames_boxes():
    frames = torch.zeros(3, 3, 4, 4)
    inside = torch.zeros(3, 4, 4, dtype=torch.bool)
    assert background_change(frames, inside) == 0
    frames[1] = 1
    assert background_change(frames, inside) == 1
    frames[1, :, 2:] = 0  # half of the pixels change
    assert background_change(frames, inside) == pytest.approx(0.5)
    inside[1, :2] = True  # and only where the subject is
    assert background_change(frames, inside) == 0
    assert np.isnan(background_change(frames, torch.ones_like(inside)))


def test_bootstrap_interval_of_equal_values_is_that_value():
    assert bootstrap_interval(np.full(10, 0.25), seed=0) == (0.25, 0.25)


def test_bootstrap_interval_of_a_mean_is_about_two_standard_errors_wide_and_repeats_with_its_seed():
    values = np.tile([0.0, 1.0], 50)  # standard error 0.05
    low, high = bootstrap_interval(values, seed=3)
    assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
    assert high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)
    assert bootstrap_interval(values, seed=3) == (low, high)


def test_bootstrap_interval_resamples_whole_clips():
    colours = np.tile(
        np.array([[0.1], [0.4], [0.8]]), (4, 6)
    )  # both colours of a clip equal: correlation 1 in any draw
    low, high = bootstrap_interval(colours, 0, lambda rows: colour_correlation(rows[:, :3], rows[:, 3:]))
    assert low == pytest.approx(1) and high == pytest.approx(1)
