"""Clips that go through a model together: each gets what it would get alone, and the company is always the same."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dv2_core import rle
from dv2_core.curate.clip import Clip
from dv2_core.curate.run import Counts
from dv2_core.curate.video import pictures
from dv2_core.segment import Detection, Detector, Prompt, Segmenter
from dv2_core.segment.compose import without_specks
from tests.curation import NAMES, reasons_of, run, write_folder
from tests.drawn_clips import draw_frames, write_video

WORDS = ("ball", "a red dog", "dog", "red", "a")
WIDE = NAMES[4]  # its video has another size
OPEN = {
    "size": {"width": [0.0, 1.0], "height": [0.0, 1.0], "area": [0.0, 1.0]}, "visible": {"least": 0.0},
    "motion": {"overlap": 1.0}, "detect": {"threshold": 0.0, "same": 0.0},
}  # fmt: skip


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Five clips with a word each."""
    folder = write_folder(tmp_path / "videos", masks=False)
    write_video(folder / f"{WIDE}.mp4", draw_frames(WIDE)[0][:, :32])
    for name, word in zip(NAMES, WORDS, strict=True):
        (folder / f"{name}.word.txt").write_text(word)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of every call of the detector from now on; it finds the best box only."""
    calls: list[list[str]] = []
    detect = Detector.detect

    def listen(self: Detector, frames: torch.Tensor, words: Sequence[str], threshold: float) -> list[list[Detection]]:
        calls.append(list(words))
        return [found[:1] for found in detect(self, frames, words, threshold)]

    monkeypatch.setattr(Detector, "detect", listen)
    return calls


def located(out: Path) -> dict[str, Any]:
    """{name: what the stage "detect" and the stage "segment" added} of every clip, out of the state."""
    found = {}
    for file in (out / "state").rglob("*.json"):
        kept = json.loads(file.read_text())
        if "detect" in kept["stages"]:
            name = Path(kept["id"].split(":")[0]).stem
            found[name] = {stage: kept["stages"][stage].get("adds", {}) for stage in ("detect", "segment")}
    return found


def curated(videos: Path, out: Path, models: dict[str, str], **values: Any) -> Counts:
    return run(videos, out, models=models, **{**OPEN, **values})


def test_clips_of_several_words_and_sizes_are_looked_at_together_and_each_finds_what_it_finds_alone(
    videos: Path, models: dict[str, str], asked: list[list[str]], tmp_path: Path
) -> None:
    curated(videos, tmp_path / "out", models)
    words = dict(zip(NAMES, WORDS, strict=True))
    assert sorted(asked, key=len) == [[words[WIDE]], [words[name] for name in sorted(NAMES) if name != WIDE]]
    detector, segmenter = Detector.load(models["detector"]), Segmenter.load(models["segmenter"])
    for name, adds in located(tmp_path / "out").items():
        width, height = 64, 32 if name == WIDE else 48
        clip = Clip(f"{name}.mp4", "", length=10, width=width, height=height)
        frame = pictures(videos / f"{name}.mp4", clip, [0], side=640)
        (best,) = detector.detect(frame, [words[name]], 0.0)[0]
        pixels = [best.box[0] * width, best.box[1] * height, best.box[2] * width, best.box[3] * height]
        assert adds["detect"]["start"] == pytest.approx(pixels, abs=0.02)
        assert adds["detect"]["scores"]["grounding"] == pytest.approx(best.score, abs=2e-4)
        start = adds["detect"]["start"]
        prompt = Prompt(box=(start[0] / width, start[1] / height, start[2] / width, start[3] / height))
        alone = without_specks(segmenter.segment(frame, [prompt]))[0].numpy()
        assert (rle.decode(adds["segment"]["start_mask"]) == alone).mean() > 0.99
    assert located(tmp_path / "out").keys() == set(NAMES)


def test_a_word_that_the_detector_does_not_know_rejects_its_own_clip_only(
    videos: Path, models: dict[str, str], tmp_path: Path
) -> None:
    (videos / f"{NAMES[1]}.word.txt").write_text("犬")
    curated(videos, tmp_path / "out", models)
    broken = {name: reason for name, reason in reasons_of(tmp_path / "out").items() if reason.startswith("broken")}
    assert broken.keys() == {f"{NAMES[1]}.mp4"} and "does not know" in broken[f"{NAMES[1]}.mp4"]


def test_a_clip_that_was_lost_is_looked_at_again_in_the_same_company_and_the_others_stay_as_they_were(
    videos: Path, models: dict[str, str], asked: list[list[str]], tmp_path: Path
) -> None:
    """As after a kill in the middle of a batch: with fewer pictures the last digits might be others."""
    out = tmp_path / "out"
    curated(videos, out, models)
    first, manifest = list(asked), (out / "clips.jsonl").read_bytes()
    files = {file: json.loads(file.read_text()) for file in (out / "state").rglob("*.json")}
    lost = next(file for file, kept in files.items() if kept["id"] == f"videos/{NAMES[0]}.mp4:0-10:0")
    lost.unlink()
    kept = {file: file.stat().st_mtime_ns for file in files if file != lost}
    asked.clear()
    curated(videos, out, models)
    assert asked == first
    assert (out / "clips.jsonl").read_bytes() == manifest
    assert kept == {file: file.stat().st_mtime_ns for file in kept}
    asked.clear()
    curated(videos, out, models)
    assert asked == []


def test_batches_are_no_larger_than_asked_for(
    videos: Path, models: dict[str, str], asked: list[list[str]], tmp_path: Path
) -> None:
    curated(videos, tmp_path / "out", models, batch=2, skip=["blur", "cut"], quality={"text": ["red", "dog"]})
    assert len(asked) > 5 and max(map(len, asked)) == 2
