"""Sockets on a newer core, which has types that this one lacks: its own nodes connect without a converter.

The types, and the inputs and outputs of its nodes, are those of ComfyUI 0.28 (`comfy_api/latest/_io.py`,
`comfy_extras/nodes_{bounding_boxes,sam3,rtdetr,wan,wanmove,images}.py`).
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

#: Output of a node of the core -> inputs of ours that take it.
FROM_THE_CORE = {
    "SAM3_Detect bboxes: BOUNDING_BOX": ["DV2BoxesToMask bounding_boxes", "DV2BoxEditor bounding_boxes",
                                         "DV2DrawBoxes bounding_boxes", "DV2SegmentSubject bounding_box",
                                         "DV2BoxesFromVideo bounding_box"],
    "CreateBoundingBoxes elements: ARRAY": ["DV2BoxesToMask bounding_boxes", "DV2BoxEditor bounding_boxes"],
    "GenerateTracks: TRACKS": ["DV2BoxesToMask bounding_boxes", "DV2BoxEditor bounding_boxes"],
    "SAM3_TrackToMask: MASK": ["DV2BoxesFromMasks masks", "DV2BoxesToMask mask", "DV2BoxesFromVideo first_mask"],
    "GetVideoComponents images: IMAGE": ["DV2BoxesFromVideo frames", "DV2BoxEditor background"],
    "CreateVideo: VIDEO": ["DV2EmbedBoxes video"],
}  # fmt: skip

#: Input of a node of the core -> outputs of ours that it takes.
TO_THE_CORE = {
    "SAM3_Detect, DrawBBoxes, CropByBBoxes bboxes: BOUNDING_BOX": ["DV2BoxesToMask bounding_boxes",
                                                                   "DV2BoxEditor bounding_boxes",
                                                                   "DV2BoxesFromVideo bounding_boxes",
                                                                   "DV2BoxesFromMasks bounding_boxes",
                                                                   "DV2LoadBoxes bounding_boxes"],
    "CreateBoundingBoxes, LayersFromBoundingBoxes bboxes: BOUNDING_BOX,ARRAY,STRING": ["DV2BoxesToMask bounding_boxes"],
    "WanMoveTrackToVideo tracks: TRACKS": ["DV2BoxesToMask tracks"],
    "WanTrackToVideo tracks: STRING": ["DV2BoxesToMask points"],
    "SAM3_VideoTrack initial_mask: MASK": ["DV2BoxesToMask masks", "DV2SegmentSubject picture_mask"],
    "SaveVideo video: VIDEO": ["DV2EmbedBoxes video"],
}  # fmt: skip


@pytest.fixture
def newer(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Schemas of our nodes, made on a core that has the types."""
    compat = lab.pack("nodes.host.compat")
    io = compat.io

    @io.comfytype(io_type="BOUNDING_BOX")
    class BoundingBox(io.ComfyTypeIO):
        Type = dict

        class Input(io.WidgetInput):
            def __init__(self, id: str, display_name: str | None = None, optional: bool = False,
                         tooltip: str | None = None, socketless: bool = True, default: Any = None,
                         component: str | None = None, force_input: bool | None = None) -> None:  # fmt: skip
                super().__init__(id, display_name, optional, tooltip, None, default, socketless)
                self.force_input = force_input

            def as_dict(self) -> dict[str, Any]:
                return super().as_dict() | {"forceInput": self.force_input}

    @io.comfytype(io_type="TRACKS")
    class Tracks(io.ComfyTypeIO):
        Type = dict

    @io.comfytype(io_type="ARRAY")
    class Array(io.ComfyTypeIO):
        Type = list

    def schema(**settings: Any) -> Any:
        return SimpleNamespace(**settings)

    class Newer:
        def __getattr__(self, name: str) -> Any:
            return getattr(io, name)

    core: Any = Newer()
    core.BoundingBox, core.Tracks, core.Array = BoundingBox, Tracks, Array
    monkeypatch.setattr(compat, "io", core)
    monkeypatch.setattr(compat, "schema", schema)
    return {name: cls.define_schema() for name, cls in lab.classes.items() if name.startswith("DV2")}


def types(sockets: list[Any], key: str) -> dict[str, str]:
    return {getattr(socket, key): socket.get_io_type() for socket in sockets}


def fits(received: str, wanted: str) -> bool:
    from comfy_execution.validation import validate_node_input

    return validate_node_input(received, wanted)


def test_the_cores_own_boxes_tracks_and_masks_connect_to_our_nodes(newer: Any) -> None:
    for theirs, ours in FROM_THE_CORE.items():
        for name in ours:
            node, socket = name.split()
            assert fits(theirs.split(": ")[1], types(newer[node].inputs, "id")[socket]), (theirs, name)


def test_our_boxes_tracks_points_and_masks_connect_to_the_cores_nodes(newer: Any) -> None:
    for theirs, ours in TO_THE_CORE.items():
        for name in ours:
            node, socket = name.split()
            assert fits(types(newer[node].outputs, "display_name")[socket], theirs.split(": ")[1]), (theirs, name)


def test_a_box_input_is_a_socket_there_and_no_widget_of_one_box(newer: Any) -> None:
    for node in ("DV2SegmentSubject", "DV2BoxesFromVideo"):
        (box,) = (socket for socket in newer[node].inputs if socket.id == "bounding_box")
        assert box.as_dict()["forceInput"] is True


def test_nodes_that_say_or_show_something_ask_that_core_to_say_it_again_from_its_cache(newer: Any) -> None:
    speakers = ("DV2BoxesToMask", "DV2BoxesFromMasks", "DV2BoxesFromVideo", "DV2LoadBoxes", "DV2SegmentSubject",
                "DV2LoadSubject", "DV2PrepareSubject")  # fmt: skip
    assert all(newer[node].has_intermediate_output for node in speakers)


def test_what_a_detector_of_the_core_finds_is_followed(lab: Any) -> None:
    """As RTDETR_detect puts it out: floats, every object of a frame, the surest first."""

    def found(x: float, score: float, label: str = "dog") -> dict[str, Any]:
        return {"x": x, "y": 8.0, "width": 16.0, "height": 16.0, "label": label, "score": score}

    frames = [[found(4.0 * t, 0.9 - 0.05 * t), found(44.0, 0.5, "cat")] for t in range(8)]
    inputs: dict[str, Any] = dict(boxes="", length=8, width=64, height=64, bounding_boxes=frames)
    masks = lab.call("DV2BoxesToMask", **inputs, format="detections")[0]
    assert [int(torch.nonzero(mask.any(0))[0]) for mask in masks] == [4 * t for t in range(8)]
    with pytest.raises(ValueError, match="choose the format detections"):
        lab.call("DV2BoxesToMask", **inputs)
