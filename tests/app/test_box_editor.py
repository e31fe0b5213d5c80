"""The box editor in ComfyUI's own page, with a real mouse: both frontends, classic nodes and Nodes 2.0."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dv2_core.boxes import KeyframePlan, rasterize

SCRIPT = Path(__file__).with_name("box_editor.mjs")
WAIT_SECONDS = 300  # for any one thing in the page, on a busy machine
WIDTH, HEIGHT, LENGTH = 96, 64, 12  # of the node that the script builds
PIXEL = 1.01  # pixels that a mouse may miss a place by: screen pixels are not canvas pixels
COMBINATIONS = [
    pytest.param(("app", "1.32.9", False), id="1.32.9 classic"),
    pytest.param(("app", "1.32.9", True), id="1.32.9 Nodes 2.0"),
    pytest.param(("app_new_frontend", "1.58.1", False), id="1.58.1 classic"),
    pytest.param(("app_new_frontend", "1.58.1", True), id="1.58.1 Nodes 2.0"),
]


@dataclass
class Visit:
    """What happened in one page: its report, and the masks that the engine wrote, [frames, height, width] 0..255."""

    asked: tuple[str, bool]
    report: dict[str, Any]
    masks: np.ndarray

    def __getitem__(self, step: str) -> list[dict[str, Any]]:
        """The keyframes of the first track after a step."""
        return self.tracks(step)[0]["keyframes"]

    def tracks(self, step: str) -> list[dict[str, Any]]:
        text = self.report["documents"][step]
        return json.loads(text)["tracks"] if text else []


@pytest.fixture(scope="module", params=COMBINATIONS)
def visit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    fixture, frontend, nodes2 = request.param
    server = request.getfixturevalue(fixture).server
    Image.new("RGB", (WIDTH, HEIGHT), (20, 220, 40)).save(server.base / "input" / "green.png")
    folder = tmp_path_factory.mktemp("box_editor")
    config = {
        "url": server.url,
        "playwright": os.environ["DV2_PLAYWRIGHT"],
        "chromium": os.environ["DV2_CHROMIUM"],
        "nodes2": nodes2,
        "picture": "green.png",
        "screenshots": str(folder),
        "seconds": WAIT_SECONDS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    command = [os.environ["DV2_NODE"], str(SCRIPT), str(folder / "config.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * WAIT_SECONDS)
    assert done.returncode == 0, f"{done.stderr}\n{server.log_tail()}"
    report = json.loads(done.stdout)
    outputs = [data["output"] or {} for kind, data in report["events"] if kind == "executed"]
    saved = [image for output in outputs for image in output.get("images", [])]
    files = [server.base / image["type"] / image["subfolder"] / image["filename"] for image in saved]
    masks = np.stack([np.asarray(Image.open(file).convert("L")) for file in files]) if files else np.zeros((0, 1, 1))
    return Visit((frontend, nodes2), report, masks)


def centre(key: dict[str, Any]) -> tuple[float, float]:
    """In pixels."""
    x1, y1, x2, y2 = key["box"]
    return (x1 + x2) / 2 * WIDTH, (y1 + y2) / 2 * HEIGHT


def test_drawing_a_path_of_boxes_with_mouse_and_keys_and_running_it_in_the_page(visit):
    report = visit.report
    assert (report["frontend"], report["nodes2"]) == visit.asked
    # A box is drawn where the mouse was.
    (drawn,) = visit["drawn"]
    assert drawn["frame"] == 0
    for edge, at, size in zip(drawn["box"], (0.25, 0.55, 0.45, 0.8), (WIDTH, HEIGHT) * 2, strict=True):
        assert abs(edge - at) * size <= PIXEL
    # Moved on the last frame, it is a second keyframe; the first one and its size stay.
    first, second = visit["moved"]
    assert (first, second["frame"]) == (drawn, LENGTH - 1)
    assert centre(second) == pytest.approx((0.65 * WIDTH, 0.35 * HEIGHT), abs=2 * PIXEL)
    assert second["box"][2] - second["box"][0] == pytest.approx(first["box"][2] - first["box"][0], abs=1e-5)
    # On the timeline the keyframe goes to another frame and takes its box along.
    assert visit["dragged"] == [first, {**second, "frame": 9}]
    assert visit["eased"] == [{**first, "easing": "ease-in-out"}, {**second, "frame": 9}]
    # Scrubbing shows the frame under the mouse and changes nothing; undo takes back one thing, and only in the editor.
    assert report["seen"]["scrubbed"] == [f"{t + 1} / {LENGTH}" for t in range(6)]
    assert visit["scrubbed"] == visit["eased"]
    assert visit["undone"] == visit["dragged"]
    assert visit["redone"] == visit["eased"]
    assert report["seen"]["nodesAfterUndo"] == 4


def test_a_path_drawn_by_hand_a_second_subject_and_a_copied_box_arrive_in_the_document(visit):
    keys = visit["path"]
    assert [key["frame"] for key in keys] == [0, 9]
    assert len(keys[0]["path"]) >= 3 and (keys[0]["path"][0][0], keys[0]["path"][-1][0]) == (0, 1)
    assert centre(keys[1]) == pytest.approx((0.75 * WIDTH, 0.6 * HEIGHT), abs=4 * PIXEL)
    corner = next(u for u, x, y in keys[0]["path"] if y == min(y for _, _, y in keys[0]["path"]))
    assert corner > 0.5  # the first half of the way was drawn slowly
    first, second = visit.tracks("second")
    assert (first["id"], second["id"]) == ("0", "1") and first["keyframes"] == keys
    assert [key["frame"] for key in second["keyframes"]] == [0]
    nudged = visit.tracks("nudged")[1]["keyframes"]
    assert [key["frame"] for key in nudged] == [0, LENGTH - 1]
    assert (nudged[0]["box"][0] - nudged[1]["box"][0]) * WIDTH == pytest.approx(1, abs=1e-3)
    pasted = visit.tracks("pasted")[1]["keyframes"]
    assert pasted[1]["box"] == pasted[0]["box"]


def test_a_loaders_picture_shows_without_a_run_and_boxes_survive_collapse_copy_reload_and_subgraphs(visit):
    seen, documents = visit.report["seen"], visit.report["documents"]
    assert seen["background"] and seen["backgroundAfterRun"]
    assert len(visit.tracks("pasted")) == 2
    assert seen["copied"] == documents["expanded"] == documents["reloaded"] == documents["pasted"]
    assert seen["stageAfterReload"] == 1
    assert seen["inSubgraph"] == documents["reloaded"]


def test_the_masks_of_the_engine_are_those_of_the_same_keyframes_pixel_for_pixel(visit):
    assert visit.report["refused"] == {}
    assert visit.report["events"][-1][0] == "execution_success", visit.report["events"][-1]
    plan = KeyframePlan.from_json(visit.report["documents"]["reloaded"])
    expected = (rasterize(plan.evaluate().track(), WIDTH, HEIGHT) * 255).byte().numpy()
    assert visit.masks.shape == (LENGTH, HEIGHT, WIDTH) and 0 < expected.mean() < 255
    assert np.array_equal(visit.masks, expected)


def test_the_editor_asks_no_other_host_and_throws_nothing(visit):
    assert visit.report["elsewhere"] == []
    assert visit.report["pageErrors"] == []
