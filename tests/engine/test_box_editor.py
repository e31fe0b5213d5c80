"""The box editor's node: what is drawn, what it starts from, and what it says when the two do not fit."""

import json
from typing import Any

import torch

DOCUMENT: dict[str, Any] = {
    "version": 1, "width": 64, "height": 48, "length": 6, "fps": 8,
    "tracks": [
        {"id": "cat", "keyframes": [
            {"frame": 0, "box": [-0.2, 0.1, 0.2, 0.5]}, {"frame": 5, "box": [0.6, 0.4, 1.1, 1.0]},
        ]},
        {"id": "dog", "keyframes": [{"frame": 2, "box": [0.25, 0.25, 0.5, 0.5], "visible": False}]},
    ],
}  # fmt: skip
DRAWN = json.dumps(DOCUMENT)
INPUTS: dict[str, Any] = {"length": 6, "width": 64, "height": 48, "fps": 8.0, "track": "", "document": DRAWN}


def edit(lab: Any, **inputs: Any) -> Any:
    """The node's own output; with ``bounding_boxes`` and ``background`` as other nodes give them."""
    with torch.inference_mode():
        return lab.classes["DV2BoxEditor"].execute(**{**INPUTS, **inputs})


def run(lab: Any, boxes: bool = False, **inputs: Any) -> dict[str, Any]:
    """The editor in a graph with a preview behind it; ``boxes`` connects another node's."""
    graph, _ = lab.graph()
    graph.clear()
    if boxes:
        text = '{"x": 8, "y": 8, "width": 16, "height": 16}'
        other = graph.add("DV2BoxesToMask", boxes=text, length=6, width=64, height=48)
        inputs["bounding_boxes"] = (other, 1)
    editor = graph.add("DV2BoxEditor", **{**INPUTS, **inputs})
    graph.add("MaskPreview", mask=(editor, 0))
    return {**lab.run(graph), "editor": editor}


def test_the_masks_and_boxes_are_those_of_the_keyframes_and_of_the_track_that_is_named(lab):
    core = lab.pack("dv2_core.boxes")
    document = core.KeyframePlan.from_json(DRAWN)
    for name, track in (("", "cat"), ("cat", "cat"), ("dog", "dog")):
        masks, boxes, keyframes, length = edit(lab, track=name).result
        expected = document.evaluate().track(track)
        assert torch.equal(masks, core.rasterize(expected, 64, 48))
        assert boxes == core.to_bounding_boxes(expected, 64, 48)
        assert core.KeyframePlan.from_json(keyframes) == document and length == 6


def test_another_canvas_scales_the_boxes(lab):
    core = lab.pack("dv2_core.boxes")
    masks, _, keyframes, _ = edit(lab, width=128, height=96, fps=24.0).result
    scaled = core.KeyframePlan.from_json(json.dumps({**DOCUMENT, "width": 128, "height": 96, "fps": 24}))
    assert torch.equal(masks, core.rasterize(scaled.evaluate().track(), 128, 96))
    assert core.KeyframePlan.from_json(keyframes) == scaled


def test_another_length_is_refused_with_both_numbers_and_what_to_do(lab):
    _, sentence = lab.complaint(run(lab, length=9))
    assert "drawn for 6 frames, but length is 9" in sentence
    assert "Stretch" in sentence and "set length to 6" in sentence


def test_a_length_of_another_node_is_told_to_the_page_and_to_who_waits_for_masks(lab):
    """Of an input that is connected nothing is known before the run."""
    output = edit(lab, length=9)
    assert output.ui["dv2_canvas"] == [{"width": 64, "height": 48, "length": 9, "fps": 8.0}]
    assert "drawn for 6 frames, but length is 9" in output.block_execution


def test_an_empty_editor_is_refused_before_the_run_and_starts_from_connected_boxes(lab):
    _, sentence = lab.complaint(run(lab, document=""))
    assert "The box editor is empty: drag a box" in sentence
    result = run(lab, boxes=True, document="")
    assert result["ok"], result
    masks, keyframes = (lab.output(result, result["editor"], slot) for slot in (0, 2))
    assert masks[:, 8:24, 8:24].all() and masks.sum() == 6 * 16 * 16
    assert result["ui"][result["editor"]]["dv2_seed"] == [keyframes]


def test_what_is_drawn_wins_over_connected_boxes_and_a_connected_document_keeps_its_keyframes(lab):
    core = lab.pack("dv2_core.boxes")
    other = [[{"x": 8, "y": 8, "width": 16, "height": 16}]] * 6
    assert torch.equal(edit(lab, bounding_boxes=other).result[0], edit(lab).result[0])
    keyframes = edit(lab, document="", bounding_boxes=DRAWN).result[2]
    assert core.KeyframePlan.from_json(keyframes) == core.KeyframePlan.from_json(DRAWN)


def test_with_nothing_drawn_a_run_still_shows_the_background_in_the_frames_of_the_boxes(lab):
    output = edit(lab, document="", background=torch.rand(3, 30, 40, 3))
    assert "The box editor is empty" in output.block_execution
    shown = output.ui["dv2_background"]
    assert [entry["frame"] for entry in shown] == [0, 1, 2, 3, 4, 5]
    for entry in shown:
        assert (lab.engine.base_dir / entry["type"] / entry["subfolder"] / entry["filename"]).is_file()
    (still,) = edit(lab, background=torch.rand(1, 30, 40, 4)).ui["dv2_background"]
    assert still["frame"] == 0
