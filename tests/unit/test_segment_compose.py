"""From a word to a cut-out and to a box plan, with networks that see nothing but red."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dv2_core.boxes import BoxTrack
from dv2_core.segment import (
    Detector,
    Prompt,
    Segmenter,
    VideoSegmenter,
    boxes_from_video,
    feather,
    overlay,
    subject_mask,
)
from dv2_core.segment import sam2 as sam2_module

HEIGHT, WIDTH, FRAMES = 40, 80, 8
GREY, RED = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([1.0, 0.0, 0.0])


def video(boxes: list[tuple[int, int, int, int] | None]) -> Tensor:
    """[F, H, W, 3]: red boxes (pixels) on grey; None: no red."""
    frames = GREY.repeat(len(boxes), HEIGHT, WIDTH, 1)
    for frame, box in zip(frames, boxes, strict=True):
        if box:
            frame[box[1] : box[3], box[0] : box[2]] = RED
    return frames


MOVING = [(4 + 7 * t, 8 + t, 24 + 7 * t, 28 + t) for t in range(FRAMES)]


class RedDetector(nn.Module):
    """Grounding DINO's outputs: one query with the box of all red pixels, scored by how red they are; one of noise."""

    config = SimpleNamespace(max_text_len=256)

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Any:
        boxes, scores = [], []
        for picture in pixel_values:  # [3, H, W], 0..1
            red = (picture[0] - picture[1]).clamp(0, 1)
            rows, columns = (red > 0.2).any(1).nonzero(), (red > 0.2).any(0).nonzero()
            if len(rows):
                y1, y2 = rows[0] / picture.shape[1], (rows[-1] + 1) / picture.shape[1]
                x1, x2 = columns[0] / picture.shape[2], (columns[-1] + 1) / picture.shape[2]
                boxes.append(torch.cat([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]))
            else:
                boxes.append(torch.tensor([0.5, 0.5, 1.0, 1.0]))
            scores.append(red.max())
        noise = torch.tensor([0.1, 0.1, 0.1, 0.1]).expand(len(boxes), 4)
        probability = torch.stack([torch.full((len(boxes),), 0.12), torch.stack(scores)], 1).clamp(0.12, 0.9)
        return SimpleNamespace(
            logits=probability.logit()[..., None], pred_boxes=torch.stack([noise, *[torch.stack(boxes)]], 1)
        )


class Words:
    """A tokenizer that knows every word."""

    unk_token_id = -1

    def __call__(self, text: str | list[str], padding: bool = False, return_tensors: str = "") -> Any:
        if not return_tensors:
            return {"input_ids": [1, 2, 3]}
        return Inputs(input_ids=torch.ones(len(text), 3, dtype=torch.long))


class Inputs(dict[str, Tensor]):
    def to(self, device: torch.device) -> "Inputs":
        return self


def pixels(images: list[Any], return_tensors: str) -> Inputs:
    return Inputs(pixel_values=torch.stack([torch.from_numpy(i).movedim(-1, 0) / 255 for i in images]))


def red_in(picture: Tensor, box: Tensor | None) -> Tensor:
    """Normalised picture [3, S, S], box of the prompt in its pixels [2, 2] -> logits [S / 4, S / 4]."""
    plain = picture * torch.tensor(sam2_module.STD).view(3, 1, 1) + torch.tensor(sam2_module.MEAN).view(3, 1, 1)
    logits = plain[0] - plain[1] - 0.5
    if box is not None:
        (x1, y1), (x2, y2) = (box.round().long()).tolist()
        outside = torch.ones_like(logits, dtype=torch.bool)
        outside[y1:y2, x1:x2] = False
        logits = logits.masked_fill(outside, -1.0)
    return nn.functional.avg_pool2d(logits[None], 4)[0]


class RedSam(nn.Module):
    """SAM 2's outputs, for pictures and for a session over a video."""

    config = SimpleNamespace(
        prompt_encoder_config=SimpleNamespace(image_size=160), num_maskmem=7, max_object_pointers_in_encoder=16
    )

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, **given: Any) -> Any:
        if "inference_session" in given:
            session, t = given["inference_session"], given["frame_idx"]
            box = session.points["point_coords"][0, 0, :2] if t == 0 else None
            return SimpleNamespace(pred_masks=red_in(session.processed_frames[t], box)[None, None])
        masks = torch.stack(
            [red_in(p, c[0, :2]) for p, c in zip(given["pixel_values"], given["input_points"], strict=True)]
        )
        return SimpleNamespace(pred_masks=masks[:, None, None], iou_scores=torch.ones(len(masks), 1, 1))


class Session:
    """What the library's session is asked for here; the real one is tested with the tiny networks."""

    def __init__(self, frames: Tensor) -> None:
        self.processed_frames = sam2_module.PreparedFrames(frames, 160)
        self.output_dict_per_obj = {0: {"non_cond_frame_outputs": {}}}

    def obj_id_to_idx(self, number: int) -> int:
        return 0

    def add_point_inputs(self, subject: int, frame: int, points: dict[str, Tensor]) -> None:
        self.points = points


@pytest.fixture
def detector() -> Detector:
    return Detector(RedDetector(), Words(), pixels)


@pytest.fixture
def follower(monkeypatch: pytest.MonkeyPatch) -> VideoSegmenter:
    monkeypatch.setattr(VideoSegmenter, "_session", lambda self, frames, device: Session(frames))
    return VideoSegmenter(RedSam())


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    def area(box: tuple[float, ...]) -> float:
        return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])

    shared = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return shared / (area(a) + area(b) - shared)


def fractions(box: tuple[int, int, int, int]) -> tuple[float, ...]:
    return box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT


def test_a_word_and_a_video_give_the_box_of_every_frame_where_the_subject_is(
    detector: Detector, follower: VideoSegmenter
) -> None:
    masks, plan = boxes_from_video(video(list(MOVING)), "red box", follower, detector, fps=12)
    assert masks.dtype == torch.bool and masks.shape == (FRAMES, HEIGHT, WIDTH)
    assert (plan.width, plan.height, plan.length, plan.fps) == (WIDTH, HEIGHT, FRAMES, 12)
    assert plan.track().label == "red box" and all(plan.track().visible)
    for found, true in zip(plan.track().boxes, MOVING, strict=True):
        assert overlap(found, fractions(true)) > 0.9


def test_where_the_subject_is_hidden_the_track_is_invisible_and_keeps_its_way(
    detector: Detector, follower: VideoSegmenter
) -> None:
    boxes: list[tuple[int, int, int, int] | None] = [*MOVING]
    boxes[3] = boxes[4] = None
    masks, plan = boxes_from_video(video(boxes), "box", follower, detector, gaps=0)
    track = plan.track()
    assert track.visible == tuple(t not in (3, 4) for t in range(FRAMES))
    assert all(boxes_from_video(video(boxes), "box", follower, detector, gaps=2)[1].track().visible)
    assert not masks[3].any() and overlap(track.boxes[3], fractions(MOVING[3])) > 0.8


def test_specks_far_from_the_subject_do_not_widen_its_box_but_a_part_behind_a_pole_counts(
    detector: Detector, follower: VideoSegmenter
) -> None:
    frames = video(list(MOVING))
    frames[2:, 36:38, 76:78] = RED  # a speck
    left, _, right, _ = MOVING[5]
    frames[5, :, (left + right) // 2 : (left + right) // 2 + 3] = GREY  # a pole
    masks, plan = boxes_from_video(frames, "box", follower, detector, smoothing=0)
    assert not masks[:, 36:38, 74:].any()
    assert overlap(plan.track().boxes[5], fractions(MOVING[5])) > 0.9


def test_a_given_box_needs_no_detector_and_progress_counts_the_search_and_every_frame(
    follower: VideoSegmenter,
) -> None:
    told: list[tuple[int, int]] = []
    prompt = Prompt(box=(0.0, 0.1, 0.5, 0.9))
    _, plan = boxes_from_video(video(list(MOVING)), prompt, follower, progress=lambda d, t: told.append((d, t)))
    assert told == [(n, FRAMES + 1) for n in range(FRAMES + 2)]
    assert overlap(plan.track().boxes[-1], fractions(MOVING[-1])) > 0.9


def test_a_word_that_is_not_in_the_first_frame_is_told_with_the_frame_and_the_best_score(
    detector: Detector, follower: VideoSegmenter
) -> None:
    boxes: list[tuple[int, int, int, int] | None] = [None, *MOVING[1:]]
    with pytest.raises(ValueError) as refusal:
        boxes_from_video(video(boxes), "dog", follower, detector)
    assert str(refusal.value) == (
        "No 'dog' found in frame 1: the best score is 0.12, below the threshold of 0.35. Use another word for it, "
        "lower the threshold, or give a box or a point instead."
    )


def test_a_word_without_a_detector_and_a_box_of_nothing_are_told(follower: VideoSegmenter) -> None:
    with pytest.raises(ValueError, match="A detector is needed to find 'dog'"):
        boxes_from_video(video(list(MOVING)), "dog", follower)
    with pytest.raises(ValueError, match="finds no subject in any of the 2 frames"):
        boxes_from_video(video([None, None]), Prompt(box=(0.1, 0.1, 0.5, 0.5)), follower)
    with pytest.raises(ValueError, match="finds no subject there"):
        subject_mask(video([None])[0], Prompt(box=(0.1, 0.1, 0.5, 0.5)), Segmenter(RedSam()))


def test_the_subject_of_a_picture_is_cut_out_where_the_word_finds_it(detector: Detector) -> None:
    picture = video([(10, 5, 50, 35)])[0]
    mask, prompt = subject_mask(picture, "box", Segmenter(RedSam()), detector)
    assert prompt.box is not None and overlap(prompt.box, fractions((10, 5, 50, 35))) > 0.99
    assert ((picture[..., 1] < 0.25) == mask).float().mean() > 0.98


def test_the_first_red_thing_of_two_is_followed_only_inside_its_box(detector: Detector) -> None:
    picture = video([(10, 5, 30, 35)])[0]
    picture[5:35, 50:70] = RED
    mask, _ = subject_mask(picture, Prompt(box=(0.1, 0.0, 0.45, 1.0)), Segmenter(RedSam()))
    assert mask[:, :40].any() and not mask[:, 40:].any()


@pytest.mark.parametrize("pixels_", [1, 3, 8.5])
def test_a_feather_softens_inside_the_outline_and_leaves_outside_and_the_middle_alone(pixels_: float) -> None:
    mask = torch.zeros(60, 80)
    mask[10:50, 20:70] = 1
    soft = feather(mask, pixels_)
    assert soft.shape == mask.shape and bool((soft <= mask).all()) and bool((soft >= 0).all())
    row = soft[30, 20:45]
    assert bool((row.diff() >= -1e-6).all()) and row[0] < 0.8 and row[-1] > 0.999
    reached = int((row < 0.97).sum())
    assert 0.4 * pixels_ <= reached <= 1.5 * pixels_ + 1


def test_a_feather_of_none_changes_nothing_and_the_picture_s_border_is_no_outline() -> None:
    mask = torch.zeros(20, 30)
    mask[5:, :10] = 1
    assert torch.equal(feather(mask, 0), mask)
    soft = feather(mask, 4)
    assert soft[19, 0] > 0.999 and soft[19, 9] < 0.6 and soft[5, 0] < 0.6
    with pytest.raises(ValueError, match="must be 0 or more"):
        feather(mask, -1)


def test_the_overlay_tints_the_mask_draws_the_box_and_leaves_its_inputs_alone() -> None:
    frames = video([None, None])
    before = frames.clone()
    masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    masks[:, 10:20, 10:20] = True
    shown = overlay(frames, masks, BoxTrack(((0.5, 0.5, 0.9, 0.9),) * 2))
    assert torch.equal(frames, before)
    changed = (shown - frames).abs().sum(-1) > 0.01
    assert changed[:, 10:20, 10:20].all() and changed[0, 20, 40] and not changed[0, :10].any()


def test_an_interrupt_during_the_search_ends_before_anything_is_followed(
    detector: Detector, follower: VideoSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[int] = []
    monkeypatch.setattr(VideoSegmenter, "track", lambda *a, **k: followed.append(1))

    def stop(done: int, total: int) -> None:
        if done == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        boxes_from_video(video(list(MOVING)), "box", follower, detector, progress=stop)
    assert not followed
