"""The main-job command as a newcomer runs it, in its own process."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import av
import pytest
from PIL import Image, ImageDraw

REPO = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or REPO / ".cache" / "comfyui").resolve()
BOXES = '{"first": [4, 20, 28, 44], "last": [36, 20, 60, 44]}'


@pytest.fixture
def quickstart(tmp_path):
    """Run the command; its results go to tmp_path/out, its private server's files below tmp_path/tmp."""
    (tmp_path / "tmp").mkdir()
    variables = {"COMFYUI_PATH": COMFYUI, "COMFYUI_PYTHON": sys.executable, "TMPDIR": tmp_path / "tmp"}
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(REPO / "scripts" / "quickstart.py"), "--out", str(tmp_path / "out"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def subject(tmp_path) -> str:
    picture = Image.new("RGB", (200, 150), "white")
    ImageDraw.Draw(picture).ellipse((60, 30, 150, 120), fill=(200, 40, 40))
    picture.save(tmp_path / "ball.png")
    return str(tmp_path / "ball.png")


def test_one_command_makes_a_video_and_a_contact_sheet_of_my_subject(quickstart, subject, tmp_path):
    (tmp_path / "path.json").write_text(BOXES)
    boxes = str(tmp_path / "path.json")
    done = quickstart("--subject", subject, "--boxes", boxes, "--prompt", "a red ball on the grass", "--seed", "7")
    assert done.returncode == 0, done.stderr
    video, sheet = tmp_path / "out" / "dreamvideo2_001.mp4", tmp_path / "out" / "dreamvideo2_001.png"
    assert str(video) in done.stdout and str(sheet) in done.stdout
    assert re.search(r"Time: .* s .*\nMemory: .* MB", done.stdout)
    with av.open(str(video)) as container:
        saved = json.loads(container.metadata["workflow"])
        frames = sum(1 for _ in container.decode(video=0))
    assert frames >= 8
    with Image.open(sheet) as picture:
        assert picture.width > 8 * 64
    # The workflow in the video is the one that was run: dropping the file on ComfyUI's page brings it back.
    values = [(node["type"], value) for node in saved["nodes"] for value in node.get("widgets_values") or []]
    assert ("DV2BoxesToMask", BOXES) in values
    assert ("DV2Sampler", 7) in values
    assert ("CLIPTextEncode", "a red ball on the grass") in values
    assert list((tmp_path / "tmp").glob("dreamvideo2-*")) == []


def test_boxes_that_a_node_refuses_end_the_command_with_its_sentence(quickstart, tmp_path):
    done = quickstart("--boxes", "[]")
    assert done.returncode == 1
    assert "empty" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "tmp").glob("dreamvideo2-*")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--subject", "no/such/picture.png"), "there is no file"),
        (("--boxes", "{bad"), "neither a file nor JSON"),
        (("--seed", "-1"), "no whole number"),
        (("--port", "70000"), "no whole number"),
        (("--subject", __file__), "no picture that can be read"),
    ],
)
def test_arguments_that_cannot_work_are_refused_before_the_server_starts(quickstart, arguments, words):
    done = quickstart(*arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "Starting ComfyUI" not in done.stdout


def test_keep_leaves_a_server_with_the_template_at_the_printed_address(quickstart):
    done = quickstart("--keep")
    assert done.returncode == 0, done.stderr
    url = re.search(r"open (http://127\.0\.0\.1:\d+)", done.stdout)
    pid = re.search(r"kill (\d+)", done.stdout)
    assert url and pid
    try:
        with urllib.request.urlopen(f"{url[1]}/workflow_templates", timeout=30) as answer:
            assert "dv2_subject_on_a_path" in json.load(answer)["dreamvideo2"]
    finally:
        os.kill(int(pid[1]), signal.SIGTERM)


def interruptible() -> None:
    """Children of what a shell starts in the background ignore SIGINT: undo it, as for a command in front."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_the_server_and_removes_its_files(subject, tmp_path):
    (tmp_path / "tmp").mkdir()
    variables = {"COMFYUI_PATH": str(COMFYUI), "COMFYUI_PYTHON": sys.executable, "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-u", str(REPO / "scripts" / "quickstart.py"), "--subject", subject]
    process = subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=interruptible,
    )  # fmt: skip
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    url = next(found[1] for line in lines if (found := re.search(r"ready at (http://\S+)", line)))
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 130
    assert "Stopped." in rest and "Traceback" not in rest
    assert list((tmp_path / "tmp").glob("dreamvideo2-*")) == []
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=5)
