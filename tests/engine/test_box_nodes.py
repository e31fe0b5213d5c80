"""The box converter in ComfyUI: what goes in, what comes out, and what it says before anything heavy runs."""

import json

import pytest
import torch

KEYFRAMES = {
    "version": 1, "width": 64, "height": 64, "length": 8, "fps": 12,
    "tracks": [
        {"id": "dog", "keyframes": [{"frame": 0, "box": [0, 0, 0.5, 0.5]}, {"frame": 7, "box": [0.5, 0.5, 1, 1]}]},
        {"id": "cat", "keyframes": [{"frame": 0, "box": [0.5, 0, 1, 0.5], "easing": "hold"},
                                    {"frame": 4, "box": [0.5, 0.5, 1, 1], "visible": False}]},
    ],
}  # fmt: skip
SIZE = dict(length=8, width=64, height=64)
STAYING = [{"x": 8, "y": 8, "width": 32, "height": 24}]


def convert(lab, **inputs):
    names = ("masks", "bounding_boxes", "length", "tracks", "keyframes", "preview", "points")
    return dict(zip(names, lab.call("DV2BoxesToMask", **{"boxes": lab.BOXES, **SIZE, **inputs}), strict=True))


def core_tracks(text):
    """The points as the core's own Wan Track To Video reads them."""
    from comfy_extras.nodes_wan import parse_json_tracks

    return parse_json_tracks(text)


def box(left, top, right, bottom, width=64, height=64):
    mask = torch.zeros(height, width)
    mask[top:bottom, left:right] = 1
    return mask


def test_every_output_tells_the_same_boxes(lab):
    out = convert(lab)
    assert out["length"] == 8 and out["masks"].shape == (8, 64, 64)
    for t, (entry,) in enumerate(out["bounding_boxes"]):
        x, y, w, h = (entry[key] for key in ("x", "y", "width", "height"))
        assert torch.equal(out["masks"][t], box(x, y, x + w, y + h))
        centre = out["tracks"]["track_path"][t, 0]
        assert torch.allclose(centre, torch.tensor([x + w / 2, y + h / 2]), atol=1.01)
    assert out["tracks"]["track_visibility"].all()
    (points,) = core_tracks(out["points"])
    middles = torch.tensor([[point["x"], point["y"]] for point in points])
    assert torch.allclose(middles, out["tracks"]["track_path"][:, 0], atol=1e-3)
    again = convert(lab, boxes=out["keyframes"])
    assert torch.equal(again["masks"], out["masks"])
    assert out["preview"].shape == (8, 256, 256, 3)  # 64 pixels enlarged, so that the numbers can be read


def test_several_subjects_are_kept_and_the_track_chooses_the_one_for_the_model(lab):
    text = json.dumps(KEYFRAMES)
    first, cat = convert(lab, boxes=text), convert(lab, boxes=text, track="cat")
    assert torch.equal(first["masks"][0], box(0, 0, 32, 32))
    assert torch.equal(cat["masks"][0], box(32, 0, 64, 32))
    assert [len(frame) for frame in cat["bounding_boxes"]] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert not cat["masks"][4:].any()
    for out in (first, cat):
        assert out["tracks"]["track_path"].shape == (8, 2, 2)
        assert [track["id"] for track in json.loads(out["keyframes"])["tracks"]] == ["dog", "cat"]
    with pytest.raises(ValueError, match="no track 'bird'.*'dog', 'cat'"):
        convert(lab, boxes=text, track="bird")


@pytest.mark.parametrize(
    ("value", "settings"),
    [
        (STAYING, {}),
        ([(8, 8, 40, 32)], {"format": "bbox_xyxy"}),
        ([(8, 8, 32, 24)], {"format": "bbox_xywh"}),
        ([{"startX": 40, "startY": 32, "endX": 8, "endY": 8}], {}),
        ({"track_path": torch.tensor([[[24.0, 20.0]]] * 8)}, {"box_width": 32, "box_height": 24}),
        (json.dumps([[{"x": 24, "y": 20}] * 8]), {"box_width": 32, "box_height": 24}),
        ([{"x": 16, "y": 16, "width": 64, "height": 48}], {"source_width": 128, "source_height": 128}),
        ([[{"bbox": [125, 125, 500, 625]}]] * 8, {}),
    ],
    ids=["BOUNDING_BOX", "xyxy", "xywh", "dragged", "TRACKS", "KJ string", "other size", "elements"],
)
def test_boxes_of_other_packs_give_the_same_mask(lab, value, settings):
    out = convert(lab, bounding_boxes=value, **settings)
    assert torch.equal(out["masks"], box(8, 8, 40, 32).expand(8, 64, 64))


def test_a_box_with_two_readings_is_refused_with_both_until_one_is_chosen(lab):
    with pytest.raises(ValueError, match="two readings.*bbox_xyxy.*bbox_xywh"):
        convert(lab, bounding_boxes=[(8, 8, 32, 24)])


def test_another_number_of_frames_is_refused_unless_resampling_is_on(lab):
    frames = [[{"x": 2 * t, "y": 8, "width": 16, "height": 16}] for t in range(17)]
    with pytest.raises(ValueError, match="17 boxes for 8 frames"):
        convert(lab, bounding_boxes=frames)
    out = convert(lab, bounding_boxes=frames, resample=True)
    assert torch.equal(out["masks"][0], box(0, 8, 16, 24)) and torch.equal(out["masks"][7], box(32, 8, 48, 24))
    # A text without a length of its own means the same as without resampling.
    assert torch.equal(convert(lab, resample=True)["masks"], convert(lab)["masks"])


def test_a_mask_of_another_size_and_length_is_taken_once_that_is_said(lab):
    masks = convert(lab)["masks"].repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    with pytest.raises(ValueError, match="16 frames of 128x128.*8 of 64x64.*resample.*source_width"):
        convert(lab, mask=masks)
    out = convert(lab, mask=masks, resample=True, source_width=128, source_height=128)
    assert torch.equal(out["masks"][0], convert(lab)["masks"][0])


def test_the_preview_lies_over_the_background_in_its_own_size(lab):
    background = torch.rand(3, 96, 160, 4, generator=torch.Generator().manual_seed(0))
    out = convert(lab, background=background)
    assert out["preview"].shape == (8, 96, 160, 3)
    corner = out["preview"][:, -1, 0]  # no box comes here
    assert torch.equal(corner[0], background[0, -1, 0, :3]) and torch.equal(corner[7], background[2, -1, 0, :3])


def test_a_workflow_of_the_first_version_gives_what_it_gave(lab):
    graph = type(lab.graph()[0])()
    old = graph.add("DV2BoxesToMask", boxes=lab.BOXES, length=8, width=64, height=64)
    graph.add("PreviewImage", images=(graph.add("MaskToImage", mask=(old, 0)), 0))
    result = lab.run(graph)
    assert result["ok"], result
    assert torch.equal(lab.output(result, old), lab.masks())
    assert lab.output(result, old, 2) == 8


def say_in_a_run(lab, **inputs):
    """What the node showed in the page after a run, and how the run ended."""
    graph = type(lab.graph()[0])()
    node = graph.add("DV2BoxesToMask", **{"boxes": lab.BOXES, **SIZE, **inputs})
    graph.add("PreviewImage", images=(node, 5))
    result = lab.run(graph)
    return result.get("ui", {}).get(node, {}).get("dv2_said"), result


def test_the_node_says_what_it_read_and_warns_without_stopping(lab):
    small = '{"first": [4, 4, 9, 9], "last": [50, 50, 55, 55]}'
    (text, warning), result = say_in_a_run(lab, boxes=small)
    assert result["ok"]
    assert text == "1 subject, 8 frames, 64x64"
    assert "under one latent cell of 8 pixels" in warning
    assert say_in_a_run(lab)[0] == ["1 subject, 8 frames, 64x64"]


def test_keyframes_outside_the_canvas_are_cut_and_said(lab):
    leaving = {**KEYFRAMES, "tracks": [{"id": "0", "keyframes": [
        {"frame": 0, "box": [0, 0, 0.5, 0.5]}, {"frame": 7, "box": [1.1, 0, 1.6, 0.5]}]}]}  # fmt: skip
    said, result = say_in_a_run(lab, boxes=json.dumps(leaving))
    assert result["ok"]
    assert any("lies outside the 64x64 canvas" in line for line in said)
    assert any("is cut to it" in line for line in said)


def test_boxes_are_compared_with_what_the_adapter_says_it_was_trained_on(lab):
    adapter = lab.adapter()
    adapter.metadata["training.boxes"] = json.dumps({"fastest": 0.05, "area": [0.2, 0.3]})
    told = lab.pack("nodes.boxes").preflight("", lab.pack("nodes.boxes").read_plan(lab.BOXES, **SIZE), adapter)
    assert not told.errors
    assert any("trained on at most 0.05" in warning for warning in told.warnings)
    assert any("smaller than any that the adapter was trained on" in warning for warning in told.warnings)
    adapter.metadata["training.boxes"] = "not JSON"
    assert set(adapter.trained_boxes()) == {"trained_frames"}


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"track": "3"}, "no track '3'"),
        ({"boxes": json.dumps({**KEYFRAMES, "length": 9})}, "9 frames"),
        ({"boxes": '[[{"x": 24, "y": 20}]]', "length": 1}, "no box size"),
        ({"boxes": "[[24, 20, 10, 5]]", "length": 1, "format": "bbox_xyxy"}, "reversed corners"),
        ({"boxes": "frame,x1,y1\n0,1,2"}, "header of the CSV"),
    ],
    ids=["track", "frames", "points without a size", "corners", "CSV"],
)
def test_bad_text_is_refused_before_anything_runs(lab, inputs, sentence):
    said, result = say_in_a_run(lab, **inputs)
    assert said is None
    assert sentence in lab.complaint(result)[1]
    assert "node_errors" in result  # by validation: nothing was started


@pytest.mark.parametrize("class_type", ["DV2BoxesToMask", "DV2BoxEditor"])
def test_a_refusal_is_one_sentence_said_once_however_many_inputs_are_checked(lab, class_type):
    inputs = {"boxes": "[]"} if class_type == "DV2BoxesToMask" else {"document": "[]", "fps": 8.0, "track": ""}
    graph = type(lab.graph()[0])()
    node = graph.add(class_type, **SIZE, **inputs)
    graph.add("PreviewImage", images=(graph.add("MaskToImage", mask=(node, 0)), 0))
    graph.add("PreviewImage", images=(graph.add("MaskToImage", mask=(node, 0)), 0))
    errors = [error for found in lab.run(graph)["node_errors"].values() for error in found["errors"]]
    (error,) = errors
    assert error["details"].endswith(".")


def test_a_missing_input_is_named_by_comfyui_and_not_a_traceback_of_ours(lab):
    for class_type, picture in (("DV2BoxesToMask", 5), ("DV2SegmentSubject", 0), ("DV2LoadSubject", 0)):
        graph = type(lab.graph()[0])()
        node = graph.add(class_type)
        graph.add("PreviewImage", images=(node, picture))
        found = lab.run(graph)["node_errors"][node]["errors"]
        assert {error["type"] for error in found} == {"required_input_missing"}, found


def test_draw_boxes_draws_every_subject_in_its_own_colour(lab):
    frames = torch.zeros(8, 64, 64, 3)
    (drawn,) = lab.call("DV2DrawBoxes", frames=frames, bounding_boxes=json.dumps(KEYFRAMES), width=64, height=64,
                        numbers=False)  # fmt: skip
    assert not frames.any()
    dog, cat = drawn[0, 0, 0], drawn[0, 0, 40]
    assert dog.any() and cat.any() and not torch.equal(dog, cat)
    assert not drawn[5, 32:, 40].eq(cat).all(-1).any()  # hidden from frame 4 on
