"""Benchmarks: the file that defines one, its videos, what measures them, and the whole command with a quick ComfyUI."""

import argparse
import csv
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from dv2_core.boxes import rasterize
from dv2_core.boxes.formats import read_any
from dv2_core.drawn import draw_subject
from dv2_core.evaluate import benchmark_run, run
from dv2_core.evaluate.benchmark import SHIPPED, Metrics, load_benchmark
from dv2_core.evaluate.benchmark_report import NAMES, vbench_names, write_mp4
from dv2_core.evaluate.judge import BEYOND, PAPER, Judge
from dv2_core.evaluate.paper import ROWS
from tests.tiny_features import save_clip, save_dino
from tests.tiny_segment import save_grounding_dino

pytestmark = pytest.mark.usefixtures("few_resamples")
SIZE, FRAMES = 64, 4
FILE = """
width = 64
height = 64
frames = 4
seeds = [0]
subjects = "subjects"
prompts = ["a {subject} on a plain background", "the {subject}"]

[boxes]
right = { first = [2, 18, 32, 48], last = [32, 18, 62, 48] }
stays = { first = [16, 16, 48, 48], last = [16, 16, 48, 48] }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A benchmark of two subjects, two paths and two prompts, measured by the included detector."""
    (tmp_path / "subjects").mkdir()
    for name, drawn in (("red-toadstool-2", "toadstool"), ("fish", "fish")):
        draw_subject(drawn).resize((96, 96)).save(tmp_path / "subjects" / f"{name}.png")
    (tmp_path / "small.toml").write_text(FILE + '\n[metrics]\ndetector = "miniature"\n')
    return tmp_path / "small.toml"


def painted(boxes: str, subject: Image.Image, length: int = FRAMES) -> np.ndarray:
    """What a perfect model makes: the subject in each of its boxes, on grey."""
    frames = []
    track = read_any(boxes, SIZE, SIZE, length).track()
    for mask in rasterize(track, SIZE, SIZE).numpy() > 0:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        picture = Image.new("RGB", (SIZE, SIZE), (120, 140, 130))
        small = subject.crop(subject.getbbox()).resize((len(columns), len(rows)))
        picture.paste(small, (int(columns[0]), int(rows[0])), small)
        frames.append(np.asarray(picture))
    return np.stack(frames)


class Painter:
    """A ComfyUI that answers a prompt with the perfect video, or with grey where no boxes were given."""

    prompts = 0

    def __init__(self, comfyui: Path, base_dir: Path, device: str):
        self.input_dir = base_dir

    def run(self, prompt: dict[str, Any], show: str) -> np.ndarray:
        type(self).prompts += 1
        if "boxes" not in prompt or "subject" not in prompt:
            return np.full((FRAMES, SIZE, SIZE, 3), 128, np.uint8)
        subject = Image.open(self.input_dir / prompt["subject"]["inputs"]["image"]).convert("RGBA")
        return painted(prompt["boxes"]["inputs"]["boxes"], subject)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_pictures_gives_subjects_whose_words_are_their_files_names(file: Path):
    found = load_benchmark(str(file))
    assert [(s.name, s.word) for s in found.subjects] == [("fish", "fish"), ("red-toadstool-2", "red toadstool")]
    assert found.combinations == 8 and found.fps == 8 and found.metrics.detector == "miniature"
    assert found.videos()[1].caption == "the red toadstool"


def test_every_combination_comes_once_and_a_beginning_has_every_subject_with_every_path(file: Path):
    videos = load_benchmark(str(file)).videos()
    assert [video.number for video in videos] == list(range(8))
    assert len({(v.subject.name, v.path, v.caption) for v in videos}) == 8
    assert len({(v.subject.name, v.path) for v in videos[:4]}) == 4
    assert len({v.subject.name for v in videos[:2]}) == len({v.caption[:4] for v in videos[:2]}) == 2


def test_the_included_small_benchmark_has_all_its_combinations_apart():
    found = load_benchmark("mini")
    assert len(found.videos()) == 24 and found.combinations == 12 * 6 * 5
    assert len({(v.subject.name, v.path, v.caption) for v in found.videos(360)}) == 360


def test_the_papers_layout_is_fifty_subjects_that_the_user_brings_thirty_six_paths_and_sixty_prompts(tmp_path: Path):
    shutil.copy(SHIPPED / "paper.toml", tmp_path)
    with pytest.raises(ValueError, match=r"There is nothing in .*subjects; put a picture per subject"):
        load_benchmark(str(tmp_path / "paper.toml"))
    (tmp_path / "subjects").mkdir()
    small = draw_subject("duck").resize((32, 32))
    for number in range(49):
        small.save(tmp_path / "subjects" / f"duck-{number}.png")
    with pytest.raises(ValueError, match="laid out for 50 x 36 x 60 .* there are 49 x 36 x 60"):
        load_benchmark(str(tmp_path / "paper.toml"))
    small.save(tmp_path / "subjects" / "goose.png")
    found = load_benchmark(str(tmp_path / "paper.toml"))
    videos = found.videos()
    assert (len(videos), found.combinations) == (1800, 108_000)
    assert len({(v.subject.name, v.path) for v in videos}) == 1800 and len({v.caption[-9:] for v in videos}) > 10
    assert (videos[0].width, videos[0].height, videos[0].length) == (448, 256, 16)


def test_boxes_may_come_from_a_folder_and_prompts_from_a_file(file: Path):
    (file.parent / "paths").mkdir()
    (file.parent / "paths" / "a.json").write_text(json.dumps([[0, 0, 32, 32], [32, 32, 64, 64]]))
    (file.parent / "prompts.txt").write_text("one\n\ntwo {subject}\n")
    text = (
        file.read_text()
        .partition("[boxes]")[0]
        .replace('prompts = ["a {subject} on a plain background", "the {subject}"]', "")
    )
    file.write_text('boxes = "paths"\nprompts = "prompts.txt"\n' + text)
    found = load_benchmark(str(file))
    assert found.prompts == ("one", "two {subject}") and list(found.paths) == ["a"]
    assert found.paths["a"].length == FRAMES  # of the file's two frames
    assert found.paths["a"].track().boxes[-1] == (0.5, 0.5, 1.0, 1.0)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("width = 64", "wide = 64", r"unknown setting \['wide'\] in small.toml"),
        ("frames = 4", "", "small.toml lacks a setting"),
        ('"subjects"', '"nowhere"', "There is nothing in .*nowhere"),
        ("last = [16, 16, 48, 48]", "last = [16, 16, 48, 480]", "The boxes 'stays': "),
        ('"miniature"', '"miniature"\nmisses = "none"', "metrics.misses is 'none'; choose worst or skip"),
        ('"miniature"', '"miniature"\nclipp = "x"', r"unknown setting \['clipp'\] in \[metrics\]"),
        ("[metrics]", '[model]\nbase = "x"\n[metrics]', r"unknown setting \['base'\] in \[model\]"),
        ("[metrics]", "[metrics", "is not valid TOML"),
        ('"subjects"', '["subjects"]', r"subjects is \['subjects'\] in small.toml; it must be str"),
        ("seeds = [0]", 'seeds = ["a"]', "seeds is .* it must be list of int"),
        ('"miniature"', "3", r"detector is 3 in \[metrics\] of small.toml; it must be str"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(file: Path, old: str, new: str, sentence: str):
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match=sentence):
        load_benchmark(str(file))


def test_a_picture_that_cannot_be_cut_out_and_an_unknown_name_are_told(file: Path):
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(file.parent / "subjects" / "noise.png")
    with pytest.raises(ValueError, match="The subject 'noise'"):
        load_benchmark(str(file))
    for name in ("nothing", "../mini", "nothing.toml"):
        with pytest.raises(ValueError, match="those are mini, paper"):
            load_benchmark(name)


def test_the_digest_changes_with_subjects_paths_and_prompts(file: Path):
    before = load_benchmark(str(file)).digest()
    assert load_benchmark(str(file)).digest() == before
    for old, new in (("the {subject}", "a {subject}"), ("[32, 18, 62, 48]", "[32, 18, 62, 47]")):
        text = file.read_text()
        file.write_text(text.replace(old, new))
        assert load_benchmark(str(file)).digest() != before
        file.write_text(text)
    draw_subject("owl").save(file.parent / "subjects" / "fish.png")
    assert load_benchmark(str(file)).digest() != before


# --- the numbers ------------------------------------------------------------------------------------------------------


def test_the_perfect_video_scores_high_and_a_grey_one_low(file: Path):
    found = load_benchmark(str(file))
    judge, video = Judge(found.metrics), found.videos()[0]
    good = judge.score(video, painted(video.boxes_text, video.subject.picture), 8)["values"]
    grey = judge.score(video, np.full((FRAMES, SIZE, SIZE, 3), 128, np.uint8), 8)["values"]
    assert good["mIoU"] > 0.7 > 0 == grey["mIoU"] and good["CD"] < 0.1 < grey["CD"] == 1
    assert good["pixels"] > 0.9 > grey["pixels"] and good["copy-paste"] > 0.9 > grey["copy-paste"] == 0
    assert good["found"] == 1 and grey["found"] == 0
    assert {name for name, value in good.items() if np.isnan(value)} == {*NAMES} - {
        "mIoU", "CD", "found", "pixels", "copy-paste"
    }  # fmt: skip


def test_with_all_networks_every_metric_has_a_value(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from safetensors.torch import save_file
    from torchvision.models.optical_flow import raft_small

    monkeypatch.setattr("dv2_core.evaluate.models.RAFT_UPDATES", 1)
    save_clip(tmp_path / "clip")
    save_dino(tmp_path / "dino")
    save_grounding_dino(tmp_path / "detector")
    save_file(raft_small().state_dict(), tmp_path / "raft.safetensors")
    names = {name: str(tmp_path / name) for name in ("clip", "dino", "detector")}
    judge = Judge(Metrics(**names, flow=str(tmp_path / "raft.safetensors"), threshold=0.0))
    video = load_benchmark(str(file)).videos()[0]
    values = judge.score(video, painted(video.boxes_text, video.subject.picture), 8)["values"]
    assert list(values) == list(NAMES) and not any(map(np.isnan, values.values()))
    assert values["found"] == 1 and all(-1 <= value <= 1 for value in values.values())


def test_a_network_that_is_missing_is_told(tmp_path: Path):
    for metrics in (Metrics(clip="nowhere"), Metrics(dino="nowhere"), Metrics(detector="nowhere"), Metrics(flow="no")):
        with pytest.raises(ValueError, match="There is no"):
            Judge(metrics)


def test_the_papers_rows_are_its_tables():
    assert ROWS["boxes + subject"]["DreamVideo-2"] == pytest.approx(
        {
            "CLIP-T": 0.303,
            "R-CLIP": 0.751,
            "R-DINO": 0.392,
            "CLIP-I": 0.694,
            "DINO-I": 0.411,
            "T. Cons.": 0.968,
            "mIoU": 0.670,
            "CD": 0.048,
        }  # fmt: skip
    )
    assert ROWS["subject only"]["VideoBooth"]["DD"] == 0.780 and ROWS["boxes only"]["Peekaboo"]["CD"] == 0.117
    assert len(PAPER) == 9 and not set(PAPER) & set(BEYOND)
    assert all(set(row) <= set(PAPER) for rows in ROWS.values() for row in rows.values())


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, file: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command -> its printed text and the number of prompts."""
    monkeypatch.setattr(run, "Comfy", Painter)

    def command(*more: str, out: str = "out") -> tuple[str, int]:
        parser = argparse.ArgumentParser()
        run.add_arguments(parser)
        before = Painter.prompts
        given = ["--benchmark", str(file), "--comfyui", "comfyui", "--out", str(file.parent / out), *more]
        run.main(parser.parse_args(given))
        return capsys.readouterr().out, Painter.prompts - before

    return command


def test_a_benchmark_leaves_tables_plots_and_videos_and_costs_nothing_the_second_time(evaluate: Any, file: Path):
    text, prompts = evaluate()
    out = file.parent / "out"
    assert prompts == 8 and "**this model**" in text and "DreamVideo-2 (paper)" in text
    with (out / "results.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["video"] for row in rows] == [str(i) for i in range(8)] and rows[0]["CLIP-T"] == ""
    results = json.loads((out / "results.json").read_text())
    mine = results["rows"]["boxes + subject"]["mIoU"]
    assert mine["value"] == pytest.approx(np.mean([float(row["mIoU"]) for row in rows]), abs=1e-5)
    assert mine["low"] <= mine["value"] <= mine["high"]
    assert results["paper"]["boxes + subject"]["DreamVideo-2"]["mIoU"] == 0.67
    assert (out / "plot-boxes-subject.png").is_file() and not (out / "vbench").exists()
    with av.open(str(out / "side-by-side" / "0000.mp4")) as opened:
        frames = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    assert len(frames) == FRAMES and frames[0].shape == (256, 3 * 256, 3)
    assert evaluate()[1] == 0


def test_conditions_and_seeds_are_rows_and_shares_add_up(evaluate: Any, file: Path):
    more = ("--conditions", "text only", "boxes + subject", "--seeds", "0", "3", "--pairs", "4")
    text, prompts = evaluate(*more, "--share", "0/2")
    assert prompts == 8 and "not all 4 videos are there yet" in text and "| condition" not in text
    text, prompts = evaluate(*more, "--share", "1/2")
    assert prompts == 8 and "not all" not in text
    results = json.loads((file.parent / "out" / "results.json").read_text())
    assert results["rows"]["text only"]["found"]["value"] == 0 and results["about"]["seeds"] == [0, 3]
    text, prompts = evaluate()  # all eight videos of the main condition, first seed
    assert prompts == 4 and "text only" not in text


def test_two_runs_of_one_benchmark_are_compared_video_by_video(evaluate: Any, file: Path):
    evaluate("--conditions", "boxes + subject", "text only", "--cfg", "3", out="other")
    worse = file.parent / "other" / "scores" / "boxes-subject" / "seed-0"
    for path in worse.glob("*.json"):
        score = benchmark_run.load_score(path)
        score["values"]["mIoU"] -= 0.125
        benchmark_run.save_score(path, score)
    text, _ = evaluate("--compare", str(file.parent / "other"))
    line = next(line for line in text.splitlines() if line.startswith("| boxes + subject | mIoU"))
    assert [cell.strip() for cell in line.split("|")[3:6]] == ["8", "+0.1250 (+0.1250..+0.1250)", "100 %"]
    with pytest.raises(ValueError, match="is no folder of a benchmark's run"):
        evaluate("--compare", str(file.parent))
    file.write_text(file.read_text().replace("the {subject}", "one {subject}"))
    with pytest.raises(ValueError, match="only runs of the same file compare"):
        evaluate("--compare", str(file.parent / "other"), out="changed")


def test_vbench_gets_every_video_under_its_prompts_name(evaluate: Any, file: Path):
    evaluate("--vbench", "--pairs", "4", "--seeds", "0", "1")
    names = sorted(path.name for path in (file.parent / "out" / "vbench" / "boxes-subject").iterdir())
    assert len(names) == 8 and "the red toadstool-0.mp4" in names and "the red toadstool-1.mp4" in names


def test_names_for_vbench_count_the_videos_of_a_prompt_and_are_names_of_files():
    assert vbench_names(["a dog", "a/b: c?", "a dog"]) == ["a dog-0.mp4", "a b  c-0.mp4", "a dog-1.mp4"]
    long = vbench_names(["ä" * 300, "ä" * 300])
    assert len(long[0].encode()) < 255 and long[0] != long[1]


class Killed(BaseException):
    """What no handler in the code catches, as little as a kill -9."""


def test_a_run_cut_off_before_any_of_its_files_goes_on_to_the_same_results(
    evaluate: Any, file: Path, monkeypatch: pytest.MonkeyPatch
):
    evaluate("--pairs", "4", out="whole")
    replace, chance, cuts = os.replace, random.Random(1), 0

    def mostly(source: Any, target: Any) -> None:
        if chance.random() < 0.3:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", mostly)
    while True:
        try:
            evaluate("--pairs", "4", out="cut")
            break
        except Killed:
            cuts += 1
    assert cuts > 5
    for name in ("results.csv", "results.json", "results.md"):
        assert (file.parent / "cut" / name).read_bytes() == (file.parent / "whole" / name).read_bytes()


def test_options_that_do_not_belong_together_are_refused(evaluate: Any, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="set metrics.detector there"):
        evaluate("--detector", "x")
    with pytest.raises(ValueError, match="9 videos are asked for; the benchmark has 8 combinations"):
        evaluate("--pairs", "9")
    monkeypatch.setattr(run.torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device gpu needs a CUDA device"):
        evaluate("--device", "gpu")
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    with pytest.raises(ValueError, match="are for benchmarks"):
        run.main(parser.parse_args(["--subjects", "drawn", "--comfyui", "c", "--out", "o", "--vbench"]))


def test_a_video_file_holds_its_frames(tmp_path: Path):
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    frames[1] = 200
    write_mp4(tmp_path / "v.mp4", frames, 12.5)
    with av.open(str(tmp_path / "v.mp4")) as opened:
        assert float(opened.streams.video[0].average_rate or 0) == 12.5
        means = [frame.to_ndarray(format="rgb24").mean() for frame in opened.decode(video=0)]
    assert means == pytest.approx([0, 200, 0], abs=4)
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]
