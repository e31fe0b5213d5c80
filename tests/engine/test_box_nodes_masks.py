"""Source (c) of the paper in ComfyUI: a reference video's masks become boxes."""

import json

import pytest
import torch

OUTPUTS = ("keyframes", "bounding_boxes", "width", "height", "length")


def moving(frames=24, side=128, stray=False):
    """A disc on its way to the right; in frames 10 and 11 it is not there."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    masks = torch.stack([((x - 30 - 3 * t) ** 2 + (y - 64) ** 2 < 20**2).float() for t in range(frames)])
    masks[10:12] = 0
    if stray:
        masks[:, 2:5, 2:5] = 1
    return masks


def trace(lab, masks, **inputs):
    settings = {"component": "all", "fill_gaps": 4, "smoothing": 9, "fps": 12.0, **inputs}
    return dict(zip(OUTPUTS, lab.call("DV2BoxesFromMasks", masks=masks, **settings), strict=True))


def test_short_gaps_are_filled_and_long_ones_hide_the_subject(lab):
    filled, hidden = trace(lab, moving()), trace(lab, moving(), fill_gaps=1)
    assert all(filled["bounding_boxes"])
    assert [t for t, boxes in enumerate(hidden["bounding_boxes"]) if not boxes] == [10, 11]
    assert [filled[name] for name in OUTPUTS[2:]] == [128, 128, 24]
    assert json.loads(filled["keyframes"])["fps"] == 12


def test_a_stray_piece_counts_only_where_everything_in_the_mask_does(lab):
    clean, everything = trace(lab, moving()), trace(lab, moving(stray=True))
    largest = trace(lab, moving(stray=True), component="largest", fill_gaps=0)
    assert everything["bounding_boxes"][0][0]["x"] == 2
    # Where the disc is away, the stray piece is the largest there is.
    assert [largest["bounding_boxes"][t] for t in range(6)] == [clean["bounding_boxes"][t] for t in range(6)]
    follow = trace(lab, moving(stray=True), component="follow")
    assert follow["bounding_boxes"] == clean["bounding_boxes"]


def test_a_point_says_which_piece_is_followed(lab):
    piece = trace(lab, moving(stray=True), component="follow", point="[3, 3]", smoothing=0)["bounding_boxes"]
    assert all(entry["x"] == entry["y"] == 2 and entry["width"] == 3 for (entry,) in piece[:10] + piece[12:])
    with pytest.raises(ValueError, match="outside the picture of 128x128"):
        trace(lab, moving(), component="follow", point="[300, 3]")
    with pytest.raises(ValueError, match="not one point"):
        trace(lab, moving(), component="follow", point="[1, 2, 30, 40]")
    with pytest.raises(ValueError, match='make it "follow"'):
        trace(lab, moving(), point="[3, 3]")


def test_the_box_neither_lags_nor_shrinks(lab):
    boxes = [entry for (entry,) in trace(lab, moving())["bounding_boxes"]]
    for t, entry in enumerate(boxes):
        assert abs(entry["x"] + entry["width"] / 2 - (30 + 3 * t)) <= 1
        assert abs(entry["width"] - 40) <= 1 and abs(entry["height"] - 40) <= 1


def test_the_keyframes_bring_the_motion_to_another_size_and_length(lab):
    keyframes = trace(lab, moving())["keyframes"]
    masks = lab.call("DV2BoxesToMask", boxes=keyframes, length=8, width=64, height=64, resample=True)[0]
    assert masks.shape == (8, 64, 64)
    columns = [torch.nonzero(mask.any(0)).flatten() for mask in masks]
    middles = [(c[0] + c[-1] + 1).item() / 2 for c in columns]
    assert middles[0] == pytest.approx(15, abs=1) and middles[7] == pytest.approx((30 + 3 * 23) / 2, abs=1)


@pytest.mark.parametrize("smoothing", [3, 8])
def test_a_window_that_is_no_window_is_refused_before_anything_runs(lab, smoothing):
    graph = type(lab.graph()[0])()
    masks = graph.add("DV2BoxesToMask", boxes=lab.BOXES, length=8, width=64, height=64)
    boxes = graph.add("DV2BoxesFromMasks", masks=(masks, 0), component="all", fill_gaps=4, smoothing=smoothing, fps=8.0)
    graph.add("DV2SaveBoxes", keyframes=(boxes, 0), filename_prefix="never", format="json")
    assert f"smoothing is {smoothing} frames" in lab.complaint(lab.run(graph))[1]


def test_empty_masks_are_refused_with_a_sentence(lab):
    with pytest.raises(ValueError, match="empty.*in all 4 frames"):
        trace(lab, torch.zeros(4, 64, 64))
