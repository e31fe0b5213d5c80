"""The paper's nine metrics, and those beyond it, against values worked out by hand and against other libraries."""

import numpy as np
import pytest
import torch

from dv2_core.boxes import BoxTrack, rasterize
from dv2_core.evaluate.metrics import (
    CROP,
    SubjectCrop,
    centroid_distance,
    copy_paste,
    detection_rate,
    iou,
    mean_centroid_distance,
    mean_iou,
    over_frames,
    paired,
)
from dv2_core.evaluate.motion import camera_motion, dynamic_degree, every_eighth_second, step_speeds
from dv2_core.evaluate.similarity import (
    cosine,
    regions,
    subject_similarity,
    temporal_consistency,
    text_similarity,
)

NOTHING = [np.nan] * 4
BOX = np.array([0.0, 0.0, 0.5, 0.5])
RIGHT = BOX + [0.5, 0, 0.5, 0]
X, Y = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def random_boxes(count: int, seed: int = 0) -> np.ndarray:
    corners = np.random.default_rng(seed).uniform(size=(count, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1) + 1e-3], 1)


# --- mIoU and CD ------------------------------------------------------------------------------------------------------


def test_iou_is_torchvisions():
    from torchvision.ops import box_iou

    one, other = random_boxes(200, 1), random_boxes(200, 2)
    expected = box_iou(torch.from_numpy(one), torch.from_numpy(other)).diagonal().numpy()
    assert iou(one, other) == pytest.approx(expected, abs=1e-5)
    assert (expected == 0).any() and (expected > 0.3).any()


def test_iou_of_boxes_on_whole_pixels_is_that_of_their_masks():
    corners = np.sort(np.random.default_rng(3).permuted(np.tile(np.arange(33), (40, 2, 1)), axis=-1)[:, :, :2], axis=-1)
    boxes = corners.transpose(0, 2, 1).reshape(40, 4) / 32
    masks = rasterize(BoxTrack(tuple(map(tuple, boxes.tolist()))), 32, 32).bool()
    shared, joined = (masks[:20] & masks[20:]).sum((1, 2)), (masks[:20] | masks[20:]).sum((1, 2))
    assert iou(boxes[:20], boxes[20:]) == pytest.approx((shared / joined).numpy(), abs=1e-5)


def test_a_missed_frame_counts_as_the_worst_or_not_at_all():
    target = np.stack([BOX, BOX])
    half = np.array([BOX, NOTHING])
    assert mean_iou(half, target) == 0.5 and mean_iou(half, target, "skip") == 1
    assert mean_centroid_distance(half, target) == 0.5 and mean_centroid_distance(half, target, misses="skip") == 0
    never = np.array([NOTHING, NOTHING])
    assert mean_iou(never, target) == 0 and np.isnan(mean_iou(never, target, "skip"))
    assert [detection_rate(d, target) for d in (target, half, never)] == [1, 0.5, 0]


def test_a_frame_without_a_target_does_not_count_whatever_is_detected_there():
    target = np.array([BOX, NOTHING, NOTHING])
    detected = np.array([BOX, BOX, NOTHING])
    assert iou(detected, target)[0] == 1 and np.isnan(iou(detected, target)[1:]).all()
    assert mean_iou(detected, target) == 1 and mean_centroid_distance(detected, target) == 0
    assert detection_rate(detected, target) == 1
    assert np.isnan(over_frames(np.array([np.nan]), detected[:1]))


def test_centroid_distance_of_opposite_corners_is_one_and_of_a_missed_frame_too():
    tiny = np.array([0, 0, 1e-9, 1e-9])
    assert centroid_distance(tiny + 1, tiny, 448, 256) == pytest.approx(1)
    assert mean_centroid_distance(np.array([RIGHT, RIGHT]), np.array([BOX, RIGHT]), 400, 300) == pytest.approx(0.2)


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_cosine_is_one_zero_minus_one_and_the_angle_between():
    assert cosine(3 * X, X) == 1 and cosine(X, Y) == 0 and cosine(X, -2 * X) == -1
    assert cosine(X + Y, X) == pytest.approx(np.sqrt(0.5))
    one, other = np.random.default_rng(0).normal(size=(2, 50, 7)).astype(np.float32)
    expected = torch.nn.functional.cosine_similarity(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    assert cosine(one, other) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("bad", [0 * X, X * np.nan])
def test_an_embedding_without_a_direction_is_refused(bad: np.ndarray):
    with pytest.raises(ValueError, match="no direction"):
        cosine(bad, X)


def test_clip_t_is_the_mean_over_frames():
    assert text_similarity(np.stack([X, X]), X) == 1
    assert text_similarity(np.stack([Y, Y]), X) == 0
    assert text_similarity(np.stack([X, Y, -X, X + Y]), X) == pytest.approx((1 + 0 - 1 + np.sqrt(0.5)) / 4)


def test_temporal_consistency_looks_at_frames_that_follow_one_another():
    assert temporal_consistency(np.stack([X, 2 * X, X])) == 1
    assert temporal_consistency(np.stack([X, Y, X])) == 0
    assert temporal_consistency(np.stack([X, X, Y])) == 0.5
    assert np.isnan(temporal_consistency(X[None]))


def test_subject_similarity_is_the_mean_over_frames_and_subject_images():
    assert subject_similarity(np.stack([X, X]), X[None]) == 1
    assert subject_similarity(np.stack([X, X]), Y[None]) == 0
    assert subject_similarity(np.stack([X, Y]), X[None]) == 0.5
    assert subject_similarity(np.stack([X, Y]), np.stack([X, Y])) == 0.5
    assert subject_similarity(np.stack([X, X]), np.stack([X, -X])) == 0


def test_similarities_are_those_of_the_authors_earlier_code():
    """VGen normalises, averages the frames and then takes products: the same numbers by another way."""
    rng = np.random.default_rng(1)
    frames, text, subjects = rng.normal(size=(16, 8)), rng.normal(size=8), rng.normal(size=(3, 8))

    def unit(a: np.ndarray) -> np.ndarray:
        return a / np.linalg.norm(a, axis=-1, keepdims=True)

    mean = unit(frames).mean(0)
    assert text_similarity(frames, text) == pytest.approx(unit(text) @ mean, abs=1e-9)
    assert subject_similarity(frames, subjects) == pytest.approx(np.mean([s @ mean for s in unit(subjects)]), abs=1e-9)
    steps = (unit(frames)[:-1] * unit(frames)[1:]).sum(-1)
    assert temporal_consistency(frames) == pytest.approx(steps.mean(), abs=1e-9)


def test_regions_are_the_pixels_inside_the_boxes_of_the_frames_that_have_one():
    frames = np.arange(3 * 4 * 8).reshape(3, 4, 8, 1).repeat(3, -1).astype(np.uint8)
    found = regions(frames, np.array([[0.25, 0.5, 0.75, 1.0], NOTHING, [0.5, 0.5, 0.51, 0.51]]))
    assert [picture.shape for picture in found] == [(2, 4, 3), (1, 1, 3)]
    assert np.array_equal(found[0], frames[0, 2:4, 2:6]) and np.array_equal(found[1], frames[2, 2:3, 4:5])
    assert np.isnan(subject_similarity(np.zeros((0, 2)), X[None]))


def test_r_clip_and_r_dino_see_only_what_the_requested_boxes_show():
    """With mean colours in the place of embeddings: red is one direction, green another."""
    red, green = np.array([255, 0, 0], np.uint8), np.array([0, 255, 0], np.uint8)
    frames = np.broadcast_to(green, (2, 20, 40, 3)).copy()
    frames[:, 5:15, 10:20] = red
    inside, beside = np.array([[0.25, 0.25, 0.5, 0.75]] * 2), np.array([[0.5, 0.25, 0.75, 0.75]] * 2)

    def similarity(boxes: np.ndarray) -> float:
        shown = np.array([region.reshape(-1, 3).mean(0) for region in regions(frames, boxes)])
        return subject_similarity(shown, red[None].astype(float))

    assert similarity(inside) == pytest.approx(1) and similarity(beside) == pytest.approx(0)
    assert similarity(np.stack([inside[0], beside[1]])) == pytest.approx(0.5)
    halfway = np.array([[0.375, 0.25, 0.625, 0.75]] * 2)  # half red and half green: 45 degrees from red
    assert similarity(halfway) == pytest.approx(np.sqrt(0.5))


# --- flow -------------------------------------------------------------------------------------------------------------


def flow_of(*speeds: float, side: int = 256) -> np.ndarray:
    """Every pixel moves by so many pixels to the right, one number per step."""
    flow = np.zeros((len(speeds), 2, side, side), np.float32)
    flow[:, 0] = np.array(speeds)[:, None, None]
    return flow


def test_the_speed_of_a_step_is_the_mean_of_its_fastest_twentieth():
    flow = flow_of(0, side=20)
    flow[0, 1, 0, :10] = -4.0  # 10 of 400 pixels up by 4: half of the fastest twentieth
    assert step_speeds(flow).tolist() == [2.0]
    assert step_speeds(flow_of(3, 5)).tolist() == [3.0, 5.0]


def test_dynamic_degree_is_one_when_a_quarter_of_the_frames_move_and_zero_below():
    still, moving = [0.0] * 12, [6.1] * 3
    assert dynamic_degree(flow_of(*still, *moving[:3])) == 0  # 16 frames need 4 moving steps
    assert dynamic_degree(flow_of(*still[:11], *moving, 6.1)) == 1
    assert dynamic_degree(flow_of(*[5.9] * 15)) == 0  # above 6 pixels at a side of 256
    assert dynamic_degree(flow_of(*[5.9] * 15, side=128)) == 1
    assert dynamic_degree(flow_of(*[6.1] * 15), fps=4) == 0  # twice the time between frames, twice the way
    assert dynamic_degree(flow_of(0.0)) == 0 and dynamic_degree(flow_of(9.0)) == 1
    assert np.mean([dynamic_degree(flow_of(speed)) for speed in (0.0, 9.0, 9.0, 1.0)]) == 0.5  # of four clips


def test_dynamic_degree_is_that_of_vbench():
    """Its rules written out: thresholds of vbench/dynamic_degree.py, counted as it counts."""
    rng = np.random.default_rng(5)
    answers = set()
    for _ in range(60):
        steps, fps = int(rng.integers(3, 20)), float(rng.choice([4.0, 8.0, 24.0]))
        flow = rng.normal(0, rng.uniform(1.2, 3.2), (steps, 2, 32, 40)) * 32 / 256
        count = 0
        for u, v in flow:
            fastest = -np.sort(-np.sqrt(u**2 + v**2).flatten())[: int(32 * 40 * 0.05)]
            count += fastest.mean() > max(1.0, 8.0 / fps) * 6.0 * (32 / 256.0)
        expected = count >= round(4 * ((steps + 1) / 16.0))
        assert dynamic_degree(flow, fps) == expected
        answers.add(expected)
    assert answers == {True, False}


def test_frames_are_looked_at_eight_times_a_second():
    frames = np.arange(24)
    assert every_eighth_second(frames, 24).tolist() == list(range(0, 24, 3))
    assert every_eighth_second(frames, 8).tolist() == every_eighth_second(frames, 4).tolist() == frames.tolist()


def moving_box(step: float, frames: int = 3) -> np.ndarray:
    """A box of 20 of 100 pixels that moves right by `step` pixels a frame."""
    return np.array([[0.4, 0.4, 0.6, 0.6]] * frames) + np.arange(frames)[:, None] * [step / 100, 0, step / 100, 0]


def test_a_still_background_makes_all_motion_the_subjects_and_a_pan_over_a_still_subject_the_cameras():
    walks = camera_motion(flow_of(0, 0, side=100), moving_box(5))
    assert walks.background == 0 and walks.share == 0
    assert walks.subject == pytest.approx(5 / np.hypot(100, 100))
    pans = camera_motion(flow_of(5, 5, side=100), moving_box(5))
    assert pans.share == pytest.approx(1) and pans.subject == pytest.approx(0, abs=1e-9)
    follows = camera_motion(flow_of(-5, -5, side=100), moving_box(0))  # the camera goes along with the subject
    assert follows.share == pytest.approx(0.5)
    assert np.isnan(camera_motion(flow_of(0, 0, side=100), moving_box(0)).share)


def test_the_subjects_own_flow_is_no_background_and_steps_without_a_box_are_left_out():
    flow = flow_of(0, 0, side=100)
    flow[:, 0, 40:60, 40:70] = 5
    boxes = moving_box(5)
    assert camera_motion(flow, boxes).background == 0
    flow[1] = 9.0  # a jump in the step whose box was not found
    boxes[2] = np.nan
    assert camera_motion(flow, boxes).share == 0
    assert np.isnan(camera_motion(flow, np.full((3, 4), np.nan)).background)
    assert np.isnan(camera_motion(flow, np.array([[0, 0, 1, 1.0]] * 3)).share)  # no background is ever seen


# --- copy and paste ---------------------------------------------------------------------------------------------------


def test_copy_paste_is_one_for_the_subjects_own_picture_minus_one_for_its_negative_and_zero_without_detail():
    colour = torch.rand(3, CROP, CROP, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(CROP, CROP)
    weight[:, 0] = 0
    subject = SubjectCrop(colour, weight)
    pasted = 0.5 * colour + 0.2  # another light
    pasted[:, :, 0] = 0.9  # beside the subject
    assert copy_paste(pasted[None], subject) == pytest.approx(1)
    assert copy_paste((1 - colour)[None], subject) == pytest.approx(-1)
    assert copy_paste(torch.full((1, 3, CROP, CROP), 0.3), subject) == 0
    assert copy_paste(torch.stack([pasted, torch.full_like(pasted, 0.3)]), subject) == pytest.approx(0.5)


def test_copy_paste_falls_when_the_subject_is_turned_and_ignores_a_flat_colour():
    colour = torch.rand(3, CROP, CROP, generator=torch.Generator().manual_seed(0))
    subject = SubjectCrop(colour, torch.ones(CROP, CROP))
    assert abs(copy_paste(colour.rot90(1, (1, 2))[None], subject)) < 0.3
    flat = SubjectCrop(torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, CROP, CROP), torch.ones(CROP, CROP))
    assert copy_paste(flat.colour[None], flat) == 0


# --- two runs ---------------------------------------------------------------------------------------------------------


def test_a_paired_comparison_sees_a_small_gain_that_every_clip_shows():
    other = np.random.default_rng(0).uniform(size=40)
    gain = paired(other + 0.01, other)
    assert gain.difference == pytest.approx(0.01) and gain.low > 0.0099 and gain.high < 0.0101 and gain.higher == 1
    same = paired(other, other)
    assert (same.difference, same.low, same.high, same.higher) == (0, 0, 0, 0.5)
    worse = paired(other - 0.2, other)
    assert worse.high < 0 and worse.higher == 0


def test_clips_without_a_value_are_left_out_of_a_comparison_and_runs_of_other_clips_are_refused():
    found = paired(np.array([1.0, np.nan, 3.0]), np.array([0.0, 5.0, np.nan]))
    assert found.clips == 1 and found.difference == 1
    with pytest.raises(ValueError, match="of the same clips"):
        paired(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="share no clip"):
        paired(np.full(2, np.nan), np.zeros(2))
