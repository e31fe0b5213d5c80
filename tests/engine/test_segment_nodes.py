"""Segment Subject and Boxes from Video: whole runs with tiny models, and sentences for what is missing or wrong."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.tiny_segment import moving_blob, save_grounding_dino, save_sam2

FRAMES, HEIGHT, WIDTH = 6, 48, 64
BOX = "[16, 12, 48, 36]"


@pytest.fixture
def no_models(lab: Any) -> Iterator[None]:
    for folder in ("grounding-dino", "sam2"):
        shutil.rmtree(lab.models / folder, ignore_errors=True)
    yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tiny")
    save_grounding_dino(folder / "grounding-dino")
    save_sam2(folder / "sam2")
    return folder


@pytest.fixture
def models(lab: Any, made: Any) -> Iterator[Any]:
    """The tiny models in ComfyUI's folders, for one test."""
    for folder in ("grounding-dino", "sam2"):
        shutil.copytree(made / folder, lab.models / folder / "tiny")
    yield lab.models
    for folder in ("grounding-dino", "sam2"):
        shutil.rmtree(lab.models / folder)


def widgets(**changes: Any) -> dict[str, Any]:
    return {"word": "", "box_or_point": "", "threshold": 0.35, "detector": "auto", "segmenter": "auto", **changes}


def segment(lab: Any, **changes: Any) -> tuple[Any, str]:
    """A prompt that cuts out a subject of ComfyUI's input folder, and the node's id."""
    graph = type(lab.graph()[0])()
    image = graph.add("LoadImage", image="subject.png")
    inputs = widgets(feather=0, width=32, height=24) | changes
    node = graph.add("DV2SegmentSubject", image=(image, 0), **inputs)
    graph.add("PreviewImage", images=(node, 0))
    return graph, node


def follow(lab: Any, **changes: Any) -> tuple[Any, str]:
    """A prompt that follows a subject through six frames, and the node's id."""
    graph = type(lab.graph()[0])()
    image = graph.add("LoadImage", image="subject.png")
    frames = graph.add("RepeatImageBatch", image=(image, 0), amount=FRAMES)
    inputs = widgets(fill_gaps=4, smoothing=0, fps=8.0) | changes
    node = graph.add("DV2BoxesFromVideo", frames=(frames, 0), **inputs)
    graph.add("PreviewImage", images=(node, 5))
    return graph, node


def test_missing_weights_are_told_with_their_files_folder_and_where_they_are_published(
    lab: Any, no_models: None
) -> None:
    graph, node = segment(lab, box_or_point=BOX)
    where, sentence = lab.complaint(lab.run(graph))
    assert where == node
    for part in ("There is no SAM 2 model in", str(lab.models / "sam2"), "config.json, model.safetensors",
                 "https://huggingface.co/facebook/sam2.1-hiera-tiny", "Nothing is downloaded by itself"):  # fmt: skip
        assert part in sentence, sentence


def test_a_word_without_a_detector_is_told_but_a_box_needs_none(lab: Any, models: Any) -> None:
    shutil.rmtree(models / "grounding-dino" / "tiny")
    graph, node = follow(lab, word="dog")
    where, sentence = lab.complaint(lab.run(graph))
    assert where == node
    for part in ("There is no Grounding DINO model", str(models / "grounding-dino"), "tokenizer.json or vocab.txt",
                 "https://huggingface.co/IDEA-Research/grounding-dino-tiny"):  # fmt: skip
        assert part in sentence, sentence
    graph, node = segment(lab, box_or_point=BOX, detector="a model of another machine")
    assert lab.run(graph)["ok"]


def test_a_picture_is_cut_out_by_a_box_and_placed_on_the_canvas(lab: Any, models: Any) -> None:
    graph, node = segment(lab, box_or_point=BOX, feather=2)
    result = lab.run(graph)
    assert result["ok"], result
    subject, mask, whole = (lab.output(result, node, slot) for slot in range(3))
    assert subject.shape == (1, 24, 32, 3) and mask.shape == (1, 24, 32) and whole.shape == (1, 64, 64)
    assert 0 < whole.mean() < 1 and ((whole > 0) & (whole < 1)).any()
    assert torch.equal(subject[mask == 0], torch.ones_like(subject[mask == 0]))
    shown = result["ui"][node]["images"]
    assert len(shown) == 2 and {image["type"] for image in shown} == {"temp"}
    assert not [m for m in loaded() if type(m.real_model()).__name__ == "ModuleList"]


def loaded() -> list[Any]:
    import comfy.model_management

    return comfy.model_management.current_loaded_models


def test_the_cut_out_by_a_word_is_that_of_the_detectors_best_box(lab: Any, models: Any) -> None:
    core = lab.pack("dv2_core.segment")
    image = moving_blob(1, HEIGHT, WIDTH)
    detector, segmenter = core.Detector.load(models / "grounding-dino/tiny"), core.Segmenter.load(models / "sam2/tiny")
    expected, _ = core.subject_mask(image[0], "dog", segmenter, detector)
    result = lab.call("DV2SegmentSubject", image=image, **widgets(word="dog", feather=0, width=32, height=24))
    assert torch.equal(result[2][0] > 0.5, expected)


def test_a_video_gives_masks_boxes_and_keyframes_that_agree(lab: Any, models: Any) -> None:
    boxes = lab.pack("dv2_core.boxes")
    frames = moving_blob(FRAMES, HEIGHT, WIDTH)
    masks, found, length, keyframes, subject, shown = lab.call(
        "DV2BoxesFromVideo", frames=frames, **widgets(word="dog", fill_gaps=4, smoothing=0, fps=12.0)
    )
    assert length == FRAMES and masks.shape == subject.shape == (FRAMES, HEIGHT, WIDTH)
    assert shown.shape == frames.shape and not torch.equal(shown, frames)
    plan = boxes.KeyframePlan.from_json(keyframes).evaluate()
    assert (plan.width, plan.height, plan.fps, plan.track().label) == (WIDTH, HEIGHT, 12.0, "dog")
    assert torch.equal(boxes.rasterize(plan.track(), WIDTH, HEIGHT), masks)
    again = boxes.from_bounding_boxes(found, WIDTH, HEIGHT, FRAMES)
    assert torch.equal(boxes.rasterize(again, WIDTH, HEIGHT), masks)
    assert bool((masks >= subject).all()) and 0 < subject.mean() < 1


def test_a_connected_box_or_mask_replaces_the_word(lab: Any, models: Any) -> None:
    frames = moving_blob(2, HEIGHT, WIDTH)
    inputs = widgets(fill_gaps=4, smoothing=0, fps=8.0)
    typed = lab.call("DV2BoxesFromVideo", frames=frames, **inputs | {"box_or_point": BOX})
    box = {"x": 16, "y": 12, "width": 32, "height": 24}
    for bounding_box in (box, [box], [[box], [box]]):
        connected = lab.call("DV2BoxesFromVideo", frames=frames, **inputs, bounding_box=bounding_box)
        assert torch.equal(connected[4], typed[4])
    mask = torch.zeros(1, HEIGHT, WIDTH)
    mask[:, 8:40, 16:48] = 1
    followed = lab.call("DV2BoxesFromVideo", frames=frames, **inputs, first_mask=mask)[4]
    assert (followed[0] == mask[0]).float().mean() > 0.97


def test_an_interrupted_run_stops_at_that_frame_and_leaves_no_model_behind(
    lab: Any, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management
    import comfy.utils

    steps: list[int] = []

    def cancel(value: int, *_: Any, **__: Any) -> None:
        steps.append(value)
        if value == 3:
            comfy.model_management.interrupt_current_processing()

    graph, node = follow(lab, box_or_point=BOX)
    with monkeypatch.context() as patch:
        patch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
        stopped = lab.run(graph)
    assert not stopped["ok"]
    assert [event for event, _ in stopped["messages"]][-1] == "execution_interrupted"
    assert steps == [0, 1, 2, 3]  # search, then frames 1, 2, ...
    assert not [m for m in loaded() if type(m.real_model()).__name__ == "ModuleList"]
    assert lab.run(graph)["ok"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Nothing says what the subject is"),
        ({"word": "   "}, "Nothing says what the subject is"),
        ({"box_or_point": BOX, "segmenter": "absent"}, "There is no SAM 2 model 'absent'"),
        ({"box_or_point": BOX, "segmenter": "../sam2/tiny"}, "There is no SAM 2 model '../sam2/tiny'"),
        ({"word": "dog", "detector": "absent"}, "There is no Grounding DINO model 'absent'"),
        ({"word": "dog", "threshold": 1.0}, "No 'dog' found in frame 1: the best score is 0."),
        ({"word": "cat. dog."}, "names several things"),
        ({"box_or_point": "[16, 12"}, "is not valid JSON"),
        ({"box_or_point": "[16, 12, 480, 36]"}, "does not lie in the picture of 64x64 pixels"),
        ({"box_or_point": BOX, "smoothing": 4}, "give an odd number from 5 to 99"),
    ],
)
def test_what_is_wrong_is_told_on_the_node(lab: Any, models: Any, changes: dict[str, Any], sentence: str) -> None:
    graph, node = follow(lab, **changes)
    where, said = lab.complaint(lab.run(graph))
    assert where == node and sentence in said, said


def test_two_ways_of_saying_where_the_subject_is_are_refused(lab: Any, models: Any) -> None:
    frames = moving_blob(2, HEIGHT, WIDTH)
    inputs = widgets(box_or_point=BOX, fill_gaps=4, smoothing=0, fps=8.0)
    with pytest.raises(ValueError, match="A bounding_box is connected and box_or_point is filled in"):
        lab.call("DV2BoxesFromVideo", frames=frames, **inputs, bounding_box={"x": 1, "y": 1, "width": 9, "height": 9})
    with pytest.raises(ValueError, match="A first_mask is connected and a box or a point given"):
        lab.call("DV2BoxesFromVideo", frames=frames, **inputs, first_mask=torch.ones(1, HEIGHT, WIDTH))


def test_a_folder_of_another_model_is_not_listed_and_a_damaged_one_is_told(lab: Any, models: Any) -> None:
    host = lab.pack("nodes.host.segment_models")
    other = models / "sam2" / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "sam"}))
    assert host.choices(host.SAM2) == ["auto", "tiny"]
    weights = models / "sam2" / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    graph, node = follow(lab, box_or_point=BOX)
    where, said = lab.complaint(lab.run(graph))
    assert where == node and "cannot be loaded" in said and "damaged" in said, said
