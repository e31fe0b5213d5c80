"""Detector and segmenters give what the library's own, longer way of calling the same networks gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dv2_core.segment import Detector, Prompt, Segmenter, VideoSegmenter
from dv2_core.segment import sam2 as sam2_module
from tests.tiny_segment import SIDE, moving_blob

BOX = Prompt(box=(0.2, 0.25, 0.8, 0.75))
POINT = Prompt(points=((0.5, 0.5),))
MIXED = Prompt(box=(0.1, 0.1, 0.9, 0.9), points=((0.5, 0.5),), outside=((0.95, 0.95),))


@pytest.fixture(scope="module")
def detector(networks: Path) -> Detector:
    return Detector.load(networks / "dino")


@pytest.fixture(scope="module")
def segmenter(networks: Path) -> Segmenter:
    return Segmenter.load(networks / "sam2")


@pytest.fixture(scope="module")
def video_segmenter(networks: Path) -> VideoSegmenter:
    return VideoSegmenter.load(networks / "sam2")


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return moving_blob(7, 48, 64)


@pytest.fixture
def half(request: pytest.FixtureRequest) -> Iterator[None]:
    models = [request.getfixturevalue(name) for name in ("detector", "segmenter", "video_segmenter")]
    for model in models:
        model.dtype = torch.bfloat16
    yield
    for model in models:
        model.dtype = torch.float32


def agreement(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a == b).float().mean().item()


def pictures(frames: torch.Tensor) -> list[np.ndarray]:
    return list((frames * 255).round().byte().numpy())


def test_the_detectors_boxes_and_scores_are_those_of_the_librarys_post_processing(
    detector: Detector, frames: torch.Tensor
) -> None:
    import transformers as tf

    height, width = frames.shape[1:3]
    scores = [d.score for picture in detector.detect(frames[:2], ["red ball"] * 2, 0.0) for d in picture]
    threshold = sorted(scores)[len(scores) // 2]  # tells some from others
    processor = tf.GroundingDinoProcessor(detector.image_processor, detector.tokenizer)
    inputs = processor(images=pictures(frames[:2]), text=["red ball."] * 2, return_tensors="pt")
    with torch.no_grad():
        out = detector.network(**inputs)
    expected = processor.post_process_grounded_object_detection(
        out, inputs["input_ids"], threshold=threshold, text_threshold=0.3, target_sizes=[(height, width)] * 2
    )
    found = detector.detect(frames[:2], ["Red  ball"] * 2, threshold + 1e-6)
    for mine, theirs in zip(found, expected, strict=True):
        assert 0 < len(mine) < 20
        order = theirs["scores"].argsort(descending=True)
        assert torch.allclose(torch.tensor([d.score for d in mine]), theirs["scores"][order], atol=1e-5)
        boxes = torch.tensor([d.box for d in mine]) * torch.tensor([width, height, width, height])
        limits = torch.tensor([width, height, width, height]).float()
        cut = torch.minimum(theirs["boxes"][order].clamp(min=0), limits)
        assert torch.allclose(boxes, cut, atol=1e-3)


def test_boxes_are_sorted_and_inside_the_picture_and_a_higher_threshold_keeps_the_best_of_them(
    detector: Detector, frames: torch.Tensor
) -> None:
    everything = detector.detect(frames[:1], ["dog"], threshold=0.0)[0]
    scores = [d.score for d in everything]
    some = detector.detect(frames[:1], ["dog"], threshold=sorted(scores)[len(scores) // 2])[0]
    assert scores == sorted(scores, reverse=True) and 0 < len(some) < len(everything)
    assert some == everything[: len(some)]
    for x1, y1, x2, y2 in (d.box for d in everything):
        assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1


def test_frames_in_one_pass_or_one_by_one_give_the_same_boxes(detector: Detector, frames: torch.Tensor) -> None:
    together, alone = (detector.detect(frames, ["dog"] * 7, threshold=0.5, batch=n) for n in (4, 1))
    for a, b in zip(together, alone, strict=True):
        assert [d.score for d in a] == pytest.approx([d.score for d in b], abs=1e-5)
        assert [x for d in a for x in d.box] == pytest.approx([x for d in b for x in d.box], abs=1e-5)


def test_pictures_with_different_words_in_one_pass_give_each_what_its_own_word_gives_alone(
    detector: Detector, frames: torch.Tensor
) -> None:
    words = ["a red ball", "dog", "red", "a red dog a ball", "dog", "a", "ball"]  # 1 to 5 tokens
    together = detector.detect(frames, words, 0.0, batch=7)
    alone = [detector.detect(frames[n : n + 1], [word], 0.0)[0] for n, word in enumerate(words)]
    of_one_word = detector.detect(frames, ["dog"] * 7, 0.0)
    for n, (mine, expected) in enumerate(zip(together, alone, strict=True)):
        assert [d.score for d in mine] == pytest.approx([d.score for d in expected], abs=1e-5)
        assert [x for d in mine for x in d.box] == pytest.approx([x for d in expected for x in d.box], abs=1e-5)
        differs = max(abs(a.score - b.score) for a, b in zip(mine, of_one_word[n], strict=True)) > 1e-3
        assert differs == (words[n] != "dog"), n


def test_progress_tells_the_frames_that_are_done(
    detector: Detector, segmenter: Segmenter, video_segmenter: VideoSegmenter, frames: torch.Tensor
) -> None:
    def told(compute: Any) -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []
        compute(lambda done, total: seen.append((done, total)))
        return seen

    assert told(lambda p: detector.detect(frames, ["dog"] * 7, batch=3, progress=p)) == [(3, 7), (6, 7), (7, 7)]
    assert told(lambda p: segmenter.segment(frames, [BOX] * 7, batch=3, progress=p)) == [(3, 7), (6, 7), (7, 7)]
    assert told(lambda p: video_segmenter.track(frames, BOX, progress=p)) == [(n, 7) for n in range(1, 8)]


def test_what_progress_raises_ends_the_computation_after_that_frame(
    video_segmenter: VideoSegmenter, frames: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    made: list[int] = []
    prepare = sam2_module.prepare
    monkeypatch.setattr(sam2_module, "prepare", lambda frame, size: made.append(1) or prepare(frame, size))

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        video_segmenter.track(frames, BOX, progress=stop)
    assert len(made) == 2


def sam2_image_processor() -> Any:
    import transformers as tf

    cls = getattr(tf, "Sam2ImageProcessor", None) or tf.Sam2ImageProcessorFast
    return cls(size={"height": SIDE, "width": SIDE}, mask_size={"height": SIDE // 4, "width": SIDE // 4})


@pytest.mark.parametrize("prompt", [BOX, POINT, MIXED], ids=["box", "point", "both"])
def test_a_pictures_mask_is_the_one_of_the_librarys_processor(
    segmenter: Segmenter, frames: torch.Tensor, prompt: Prompt
) -> None:
    import transformers as tf

    height, width = frames.shape[1:3]
    scale = torch.tensor([width, height]).float()
    points = [[(torch.tensor(p) * scale).tolist() for p in (*prompt.points, *prompt.outside)]]
    inside = [1] * len(prompt.points) + [0] * len(prompt.outside)
    given: dict[str, Any] = {"input_points": [points], "input_labels": [[inside]]} if inside else {}
    if prompt.box:
        given["input_boxes"] = [[(torch.tensor(prompt.box) * scale.repeat(2)).tolist()]]
    processor = tf.Sam2Processor(sam2_image_processor())
    inputs = processor(images=pictures(frames[:1])[0], return_tensors="pt", **given)
    sizes = inputs.pop("original_sizes")
    with torch.no_grad():
        out = segmenter.network(**inputs, multimask_output=prompt is POINT)
    masks = processor.post_process_masks(out.pred_masks, sizes)[0][0]  # [1 or 3, H, W]
    expected = masks[out.iou_scores[0, 0].argmax()]
    mine = segmenter.segment(frames[:1], [prompt])[0]
    assert 0.02 < mine.float().mean() < 0.98
    assert agreement(mine, expected) > 0.99  # the library rounds the scaled picture to 8 bits


def test_prompts_of_different_kinds_in_one_call_give_each_pictures_own_mask(
    segmenter: Segmenter, frames: torch.Tensor
) -> None:
    prompts = [BOX, BOX, POINT, MIXED, BOX]
    together = segmenter.segment(frames[:5], prompts, batch=2)
    alone = torch.cat([segmenter.segment(frames[i : i + 1], [p]) for i, p in enumerate(prompts)])
    assert agreement(together, alone) > 0.999


def test_a_video_is_followed_as_the_librarys_session_over_the_whole_video_does(
    video_segmenter: VideoSegmenter, frames: torch.Tensor
) -> None:
    import transformers as tf

    size = {"height": SIDE, "width": SIDE}
    processor = tf.Sam2VideoProcessor(sam2_image_processor(), tf.Sam2VideoVideoProcessor(size=size))
    session = processor.init_video_session(video=pictures(frames), inference_device="cpu", dtype=torch.float32)
    box = [0.2 * 64, 0.25 * 48, 0.8 * 64, 0.75 * 48]
    processor.add_inputs_to_inference_session(inference_session=session, frame_idx=0, obj_ids=1, input_boxes=[[box]])
    expected = torch.stack([
        processor.post_process_masks([out.pred_masks], original_sizes=[[48, 64]], binarize=True)[0][0, 0]
        for out in video_segmenter.network.propagate_in_video_iterator(session, start_frame_idx=0)
    ])  # fmt: skip
    mine = video_segmenter.track(frames, BOX)
    assert 0.02 < mine.float().mean() < 0.98
    assert agreement(mine, expected) > 0.99  # the library rounds the scaled frames to 8 bits


def test_a_first_mask_is_kept_in_the_first_frame_and_followed(
    video_segmenter: VideoSegmenter, frames: torch.Tensor
) -> None:
    mask = torch.zeros(48, 64)
    mask[8:40, 16:48] = 1
    masks = video_segmenter.track(frames, mask)
    assert agreement(masks[0], mask > 0.5) > 0.97
    assert not torch.equal(masks[1], video_segmenter.track(frames, BOX)[1])


def test_a_long_video_holds_no_more_than_the_frames_that_later_ones_look_back_to(
    video_segmenter: VideoSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[Any] = []
    make = video_segmenter._session
    monkeypatch.setattr(video_segmenter, "_session", lambda *a: sessions.append(make(*a)) or sessions[-1])
    held: list[int] = []

    def count(done: int, total: int) -> None:
        held.append(len(sessions[0].output_dict_per_obj[0]["non_cond_frame_outputs"]))

    video_segmenter.track(moving_blob(9, 48, 64), BOX, progress=count)
    assert held == [0, 1, 2, 3, 4, 4, 4, 4, 4]


def test_half_precision_changes_boxes_and_masks_a_little_only(
    detector: Detector, segmenter: Segmenter, video_segmenter: VideoSegmenter, frames: torch.Tensor,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    def run() -> tuple[Any, torch.Tensor, torch.Tensor]:
        boxes = sorted(d.box for d in detector.detect(frames[:1], ["dog"], 0.0)[0])
        return boxes, segmenter.segment(frames[:1], [BOX]), video_segmenter.track(frames, BOX)

    full = run()
    request.getfixturevalue("half")
    rough = run()
    assert full[0] != rough[0]
    assert agreement(full[1], rough[1]) > 0.97 and agreement(full[2], rough[2]) > 0.97


def test_a_precision_that_the_networks_cannot_compute_in_is_refused(networks: Path) -> None:
    with pytest.raises(ValueError, match="precision is torch.float16; use torch.float32, or torch.bfloat16"):
        VideoSegmenter.load(networks / "sam2", torch.float16)


def test_the_network_is_put_into_its_place_only_while_it_computes(networks: Path, frames: torch.Tensor) -> None:
    events: list[str] = []

    @contextmanager
    def place(network: nn.Module) -> Iterator[None]:
        events.append("in")
        yield
        events.append("out")

    Detector.load(networks / "dino", place=place).detect(frames[:1], ["dog"])
    assert events == ["in", "out"]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("", "The word is ''; name the subject"),
        (" . ", "name the subject"),
        ("?!", "name the subject"),
        ("cat. dog.", "'cat. dog.' names several things"),
        ("cat? dog", "names several things"),
        ("Hündchen 犬", "characters that the detector does not know"),
        ("a " * 300, "tokens long and the detector reads 256; use a few"),
    ],
)
def test_a_word_that_cannot_be_looked_for_is_refused(
    detector: Detector, frames: torch.Tensor, word: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=".") as refusal:
        detector.detect(frames[:1], [word])
    assert sentence in str(refusal.value)


def test_a_wrong_word_is_told_with_the_best_score_that_there_was(detector: Detector, frames: torch.Tensor) -> None:
    best = detector.detect(frames[:1], ["dog"], 0.0)[0][0]
    with pytest.raises(ValueError, match=rf"No 'dog' found in frame 1: the best score is {best.score:.2f}, below the "
                       r"threshold of 0.95. Use another word"):  # fmt: skip
        detector.find(frames[0], "dog", 0.95, "frame 1")
    assert detector.find(frames[0], "dog", best.score - 1e-4) == best


@pytest.mark.parametrize(
    ("shape", "fill", "sentence"),
    [
        ((48, 64, 3), 0.5, "has shape [48, 64, 3]"),
        ((0, 48, 64, 3), 0.5, "has shape [0, 48, 64, 3]"),
        ((2, 48, 64, 1), 0.5, "has shape [2, 48, 64, 1]"),
        ((2, 48, 64, 3), 255.0, "values outside 0..1 or NaN"),
        ((2, 48, 64, 3), float("nan"), "values outside 0..1 or NaN"),
    ],
)
def test_frames_that_are_no_pictures_are_refused(
    detector: Detector, video_segmenter: VideoSegmenter, shape: tuple[int, ...], fill: float, sentence: str
) -> None:
    for attempt in (lambda f: detector.detect(f, ["dog"] * len(f)), lambda f: video_segmenter.track(f, BOX)):
        with pytest.raises(ValueError) as refusal:
            attempt(torch.full(shape, fill))
        assert sentence in str(refusal.value)


def test_masks_and_prompts_that_do_not_fit_the_frames_are_refused(
    segmenter: Segmenter, video_segmenter: VideoSegmenter, frames: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match="There are 2 prompts for 7 pictures"):
        segmenter.segment(frames, [BOX, BOX])
    with pytest.raises(ValueError, match=r"has shape \[64, 48\] .* but the video is 48 high and 64 wide"):
        video_segmenter.track(frames, torch.ones(64, 48))
    with pytest.raises(ValueError, match="empty"):
        video_segmenter.track(frames, torch.zeros(48, 64))
    for words in (["dog"], "dogs run"):
        with pytest.raises(ValueError, match="There are 7 pictures and one text|There are 7 pictures and 1 words"):
            Detector.detect(Detector(None, None, None), frames, words)
    with pytest.raises(ValueError, match="threshold is 35"):
        Detector.detect(Detector(None, None, None), frames, ["dog"] * 7, threshold=35)
