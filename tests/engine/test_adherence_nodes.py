"""Box Adherence and Best of N Seeds: runs on the shipped detector and tiny models, and what is said when one lacks."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.drawn_clips import FRAMES, HEIGHT, WIDTH, draw_frames
from tests.tiny_features import save_dino
from tests.tiny_segment import save_grounding_dino

REQUEST = {"width": WIDTH, "height": HEIGHT}


@pytest.fixture(scope="module")
def clip() -> tuple[torch.Tensor, torch.Tensor]:
    """A drawn subject that moves right: frames [F, H, W, 3], its masks [F, H, W]."""
    frames, masks = draw_frames("toadstool")
    return torch.from_numpy(frames).float() / 255, torch.from_numpy(masks).float()


@pytest.fixture
def request_of(lab: Any, clip: Any) -> Any:
    """The boxes of the clip's own subject, as Boxes from Masks makes them."""
    return lab.call("DV2BoxesFromMasks", masks=clip[1], component="all", fill_gaps=0, smoothing=0, fps=8.0)[1]


def finding(**changes: Any) -> dict[str, Any]:
    return {"word": "", "detector": "miniature", "threshold": 0.35, **changes}


def prompt(lab: Any, node: str, length: int = 6, **changes: Any) -> tuple[Any, str]:
    """A prompt that holds six equal pictures against boxes for `length` frames, and the node's id."""
    graph = type(lab.graph()[0])()
    image = graph.add("LoadImage", image="subject.png")
    frames = graph.add("RepeatImageBatch", image=(image, 0), amount=6)
    boxes = graph.add("DV2BoxesToMask", boxes='{"first": [8, 8, 40, 40], "last": [16, 16, 56, 56]}', length=length,
                      width=64, height=64)  # fmt: skip
    inputs = {**finding(), **changes}
    found = graph.add(node, frames=(frames, 0), bounding_boxes=(boxes, 1), width=64, height=64, **inputs)
    graph.add("PreviewImage", images=(found, 3 if node == "DV2BoxAdherence" else 4))
    return graph, found


def test_the_included_detector_finds_a_drawn_subject_where_it_is(lab: Any, clip: Any, request_of: Any) -> None:
    frames, _ = clip
    miou, distance, rate, shown, plot, found = lab.call(
        "DV2BoxAdherence", frames=frames, bounding_boxes=request_of, **REQUEST, **finding()
    )
    assert miou > 0.7 and distance < 0.05 and rate > 0.9
    assert shown.shape == (FRAMES, HEIGHT * 6, WIDTH * 6, 3) and plot.shape[0] == 1 and plot.shape[-1] == 3
    assert len(found) == FRAMES and {len(frame) for frame in found} <= {0, 1}


def test_masks_and_boxes_of_another_node_take_the_detectors_place(lab: Any, clip: Any, request_of: Any) -> None:
    frames, masks = clip
    inputs = dict(frames=frames, bounding_boxes=request_of, **REQUEST, **finding(detector="absent"))
    for own in ({"detected_masks": masks}, {"detected_boxes": request_of}):
        miou, distance, rate, *_, found = lab.call("DV2BoxAdherence", **inputs, **own)
        assert (miou, distance, rate) == (1.0, 0.0, 1.0)
        assert [frame[0]["x"] for frame in found] == [frame[0]["x"] for frame in request_of]
    with pytest.raises(ValueError, match="Both detected_boxes and detected_masks are connected"):
        lab.call("DV2BoxAdherence", **inputs, detected_masks=masks, detected_boxes=request_of)


def test_a_missed_frame_counts_as_the_worst_unless_it_is_skipped(lab: Any, clip: Any, request_of: Any) -> None:
    frames, masks = clip[0], clip[1].clone()
    masks[:3] = 0
    inputs = dict(frames=frames, bounding_boxes=request_of, **REQUEST, **finding(), detected_masks=masks)
    share = 3 / FRAMES
    worst, skipped = lab.call("DV2BoxAdherence", **inputs), lab.call("DV2BoxAdherence", **inputs, misses="skip")
    assert worst[:3] == pytest.approx((1 - share, share, 1 - share))
    assert skipped[:3] == pytest.approx((1, 0, 1 - share))


def test_a_whole_prompt_says_its_values_on_the_node_and_gives_pictures(lab: Any) -> None:
    graph, node = prompt(lab, "DV2BoxAdherence")
    result = lab.run(graph)
    assert result["ok"], result
    assert result["ui"][node]["dv2_said"][0].startswith("mIoU ")
    assert lab.output(result, node, 3).shape == (6, 256, 256, 3)


def test_the_best_of_several_videos_is_passed_on_whole(lab: Any, clip: Any, request_of: Any) -> None:
    frames, masks = clip
    three = torch.cat([frames.flip(2), frames, frames.roll(6, 2)])
    found = torch.cat([masks.flip(2), masks, masks.roll(6, 2)])
    inputs = dict(frames=three, bounding_boxes=request_of, **REQUEST, **finding(), detected_masks=found)
    best, index, score, text, sheet = lab.call("DV2BestOfN", **inputs)
    assert index == 1 and score == 1.0 and torch.equal(best, frames)
    assert [line.split(":")[0] for line in text.splitlines()] == ["1. video 1", "2. video 2", "3. video 0"]
    assert sheet.shape[0] == 1 and sheet.shape[1] > 3 * 128


def test_the_subject_decides_between_videos_that_follow_the_boxes_alike(
    lab: Any, clip: Any, request_of: Any, tmp_path: Path
) -> None:
    frames, masks = clip
    other = torch.from_numpy(draw_frames("fish")[0]).float() / 255
    subject = lab.call("DV2LoadSubject", image="dreamvideo2/toadstool.png", width=64, height=64)
    save_dino(lab.models / "dino" / "tiny")
    inputs = dict(frames=torch.cat([other, frames]), bounding_boxes=request_of, **REQUEST, **finding(),
                  detected_masks=torch.cat([masks, masks]), subject=subject[0], subject_mask=subject[1])  # fmt: skip
    try:
        assert lab.call("DV2BestOfN", **inputs)[1] == 1
        assert lab.call("DV2BestOfN", **inputs, subject_weight=0.0)[1] == 0  # of equals the first
        similarities = lab.call("DV2BestOfN", **inputs, similarity="tiny")[3]  # random weights: any order
        assert similarities.count("similarity") == 2
    finally:
        shutil.rmtree(lab.models / "dino")


def test_a_whole_prompt_ranks_the_videos_of_a_batch(lab: Any) -> None:
    graph, node = prompt(lab, "DV2BestOfN", length=3)
    result = lab.run(graph)
    assert result["ok"], result
    assert lab.output(result, node).shape == (3, 64, 64, 3)
    assert result["ui"][node]["dv2_said"][0].startswith("1. video 0: score ")


@pytest.fixture
def words(lab: Any) -> Iterator[None]:
    save_grounding_dino(lab.models / "grounding-dino" / "tiny")
    yield
    shutil.rmtree(lab.models / "grounding-dino")


def test_grounding_dino_finds_what_the_word_names(lab: Any, clip: Any, request_of: Any, words: None) -> None:
    core = lab.pack("dv2_core.segment")
    frames = clip[0][:3]
    best = core.Detector.load(lab.models / "grounding-dino/tiny").detect(frames, ["dog"] * len(frames), 0.0)
    expected = np.array([found[0].box for found in best]) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    inputs = dict(frames=frames, bounding_boxes=request_of[:3], **REQUEST)
    found = lab.call("DV2BoxAdherence", **inputs, **finding(detector="auto", word="dog", threshold=0.0))[5]
    assert [frame[0]["x"] for frame in found] == pytest.approx(expected[:, 0], abs=1)
    assert lab.call("DV2BoxAdherence", **inputs, **finding(detector="auto", word="dog", threshold=1.0))[2] == 0


@pytest.mark.parametrize("node", ["DV2BoxAdherence", "DV2BestOfN"])
def test_what_is_missing_is_told_before_anything_runs(lab: Any, node: str) -> None:
    where, said = lab.complaint(lab.run(prompt(lab, node, detector="absent")[0]))
    assert where and "There is no Grounding DINO model 'absent'" in said and "'miniature'" in said


def test_a_detector_without_a_word_is_told(lab: Any, words: None) -> None:
    _, said = lab.complaint(lab.run(prompt(lab, "DV2BoxAdherence", detector="auto")[0]))
    assert "The detector needs a word for the subject" in said


def test_frames_that_are_no_whole_number_of_videos_are_told(lab: Any, clip: Any, request_of: Any) -> None:
    with pytest.raises(ValueError, match="7 frames, which is not a whole number of videos of 10 frames"):
        lab.call("DV2BestOfN", frames=clip[0][:7], bounding_boxes=request_of, **REQUEST, **finding())
