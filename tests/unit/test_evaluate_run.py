"""The evaluation as a command: its report, contact sheets and files, resuming, and subjects from folders."""

import argparse
import json
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from dv2_core.evaluate import run
from dv2_core.evaluate.clips import Share, all_series, load, render
from dv2_core.evaluate.metrics import GALLERY
from dv2_core.evaluate.pairs import digest_of, draw_pairs, to_frames
from dv2_core.evaluate.probes import Agreement
from dv2_core.evaluate.prompts import CONDITIONS, MAIN, Setup
from dv2_core.evaluate.report import bars, bars_table, summary, table, write
from dv2_core.evaluate.run import check_settings, find_weights
from dv2_core.evaluate.scores import score
from dv2_core.evaluate.sheet import CELL, GAP, random_sheet, sheet
from dv2_core.evaluate.subjects import load_subjects
from dv2_core.world.atlas import Atlas
from tests.unit.evaluation import FakeComfy, Oracle

pytestmark = pytest.mark.usefixtures("few_resamples")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(pairs):
    """Real clips that are found perfectly, and the main condition: seed 0 perfect, seed 1 never found."""
    real = [pair.real for pair in pairs]
    good = score(real, pairs, Oracle(p.boxes for p in pairs))
    bad = score(real, pairs, Oracle(np.full((8, 4), np.nan) for _ in pairs))
    return {"real clips": [good], MAIN.name: [good, bad]}


def test_the_report_has_a_line_per_row_and_the_same_numbers_as_json(rows, tmp_path):
    text = write(tmp_path, rows, {}, [0, 4], {"pairs": 12, "gallery": 12})
    assert text.startswith(table(rows)) and text in (tmp_path / "results.md").read_text()
    assert [line.split(" | ")[0].strip("| ") for line in table(rows).splitlines()[2:]] == ["real clips", MAIN.name]
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["about"] == {"pairs": 12, "gallery": 12}
    assert saved["rows"]["real clips"]["mIoU"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert saved["rows"][MAIN.name]["mIoU"] == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_the_report_shows_the_main_condition_seed_by_seed(rows, tmp_path):
    lines = write(tmp_path, rows, {}, [0, 4], {"gallery": 12}).splitlines()
    by_seed = [line for line in lines if line.startswith(("| 0 ", "| 4 "))]
    assert [line.split(" | ")[1].strip() for line in by_seed] == ["1.000", "0.000"]


def test_every_bar_is_printed_met_or_missed(rows):
    judged = {bar.demand: bar for bar in bars(summary(rows), {}, GALLERY)}
    assert len(judged) == 6
    assert not judged["mIoU >= 0.800"].met and not judged["CD <= 0.030"].met
    assert judged["top-1 >= 50 %"].met and judged["colour corr. >= 0.900"].met
    below = judged["mIoU at most 0.06 below that of real clips"]
    assert not below.met and below.measured == "0.500 below"
    text = bars_table(list(judged.values()))
    assert not any("top" in bar.demand for bar in bars(summary(rows), {}, 12))  # easier among twelve
    assert text.count("| missed") == 3 and text.count("| met") == 3


def test_a_bar_inside_the_interval_of_its_value_says_so(rows):
    values = summary(rows)
    values[MAIN.name]["mIoU"] = (0.79, 0.75, 0.83)
    bar = bars(values, {}, GALLERY)[0]
    assert not bar.met and bar.close and "missed, within the interval" in bars_table([bar])


def test_a_probe_is_at_its_bar_from_four_sigma_on_and_real_clips_have_none():
    strong, weak = Agreement(100, 0.75, 0.25, 0.125), Agreement(100, 0.74, 0.25, 0.125)
    judged = bars({}, {"text only": {"direction": strong, "colour": weak}, "real clips": {"direction": weak}}, GALLERY)
    assert [(bar.demand.split()[0], bar.met) for bar in judged] == [("direction", True), ("colour", False)]


def test_the_sheet_shows_four_best_four_median_and_four_worst_clips(pairs):
    picture = sheet(pairs, [p.real for p in pairs], np.linspace(1, 0, 12))
    assert picture.width == 10 * (CELL + GAP) + GAP
    first_row = np.asarray(picture)[: picture.height // 12]
    again = sheet(pairs[:4], [p.real for p in pairs[:4]], np.linspace(1, 0, 4))
    assert np.array_equal(first_row, np.asarray(again)[: picture.height // 12])


def test_the_other_sheet_shows_the_same_twelve_pairs_whatever_their_quality(atlas):
    drawn = draw_pairs(atlas, 24)
    clips = [p.real for p in drawn]
    one, other = (np.asarray(random_sheet(drawn, clips, np.full(24, quality))) for quality in (0.0, 1.0))
    assert one.shape[0] == 12 * (one.shape[0] // 12) + GAP
    assert (one != other).any(-1).mean() < 0.01  # the printed quality alone differs


def test_an_interrupted_evaluation_makes_only_the_clips_that_are_missing(pairs, tmp_path):
    first, second, folder = FakeComfy(tmp_path), FakeComfy(tmp_path), tmp_path / "clips"
    render(first, folder, pairs[:3], lambda pair: {"n": pair.number})
    render(second, folder, pairs[:5], lambda pair: {"n": pair.number})
    assert [prompt["n"] for prompt in second.prompts] == [3, 4]
    assert [int(clip.max()) for clip in load(folder, pairs[:5])] == [1, 2, 3, 1, 2]
    assert len(list(folder.iterdir())) == 5  # nothing in part is left


def test_shares_cover_every_pair_exactly_once(pairs):
    shares = [Share.parse(f"{part}/3") for part in range(3)]
    parts = [share.of(pairs) for share in shares]
    assert sorted(pair.number for part in parts for pair in part) == list(range(12))
    assert [pair.number for pair in parts[1]] == [1, 4, 7, 10] and Share().of(pairs) == pairs


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b", "0/0"])
def test_a_share_that_does_not_exist_is_refused(text):
    with pytest.raises(Exception, match="no share"):
        Share.parse(text)


def test_the_whole_method_is_generated_with_every_seed_and_the_rest_with_the_first():
    series = all_series(Setup(), [3, 5])
    assert [str(s.folder) for s in series] == [
        "vae",
        "text-only/seed-3",
        "boxes-only/seed-3",
        "subject-only/seed-3",
        "boxes-subject/seed-3",
        "boxes-subject/seed-5",
    ]
    assert [s.name for s in series][:2] == ["real clips through the VAE", "text only"]


def test_every_series_asks_for_its_own_seed_and_condition(pairs):
    prompts = [series.prompt(pairs[1]) for series in all_series(Setup(), [0, 2])]
    assert "sampler" not in prompts[0]
    assert [prompt["sampler"]["inputs"]["seed"] for prompt in prompts[1:]] == [1, 1, 1, 1, 2_000_001]
    assert ["boxes" in prompt for prompt in prompts[1:]] == [False, True, False, True, True]


def test_clips_of_other_settings_are_not_mixed_into_a_folder(tmp_path):
    check_settings(tmp_path / "settings.json", {"cfg": 2.0})
    check_settings(tmp_path / "settings.json", {"cfg": 2.0})
    with pytest.raises(ValueError, match="other weights or settings"):
        check_settings(tmp_path / "settings.json", {"cfg": 3.0})


def test_weights_are_found_at_any_depth_and_two_of_a_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "x.safetensors").touch()
    assert find_weights(tmp_path, "x.safetensors") == (tmp_path / "a" / "x.safetensors").resolve()
    (tmp_path / "b" / "x.safetensors").touch()
    with pytest.raises(ValueError, match="2 times"):
        find_weights(tmp_path, "x.safetensors")
    with pytest.raises(ValueError, match="Neither"):
        find_weights(tmp_path, "nowhere.safetensors")


# --- the whole command, with a ComfyUI that answers at once -----------------------------------------------------------


class RealClips:
    """A ComfyUI that answers every prompt with the real clip of its pair, and a detector that knows their boxes."""

    pairs: ClassVar = []
    prompts = 0
    metadata: ClassVar = {}

    def __init__(self, comfyui, base_dir, device):
        assert (comfyui.name, device) == ("comfyui", "cpu") and (
            base_dir / "models" / "vae" / "dv2-mini-vae.safetensors"
        ).exists()
        self.input_dir = base_dir

    def run(self, prompt, show):
        type(self).prompts += 1
        file = prompt["real"]["inputs"]["image"] if "real" in prompt else None
        number = int(file[5:9]) if file else prompt["sampler"]["inputs"]["seed"] % 1_000_000
        assert file is None or (self.input_dir / file).exists()
        return self.pairs[number].real

    @classmethod
    def pair_of(cls, frames):
        return next(pair for pair in cls.pairs if torch.equal(to_frames(pair.real), frames))

    @classmethod
    def boxes(cls, frames):
        return cls.pair_of(frames).boxes

    @classmethod
    def regions(cls, frames):
        return cls.pair_of(frames).clip.alpha

    @classmethod
    def kind(cls, frames, boxes):
        return cls.pair_of(frames).clip.background


@pytest.fixture
def evaluate(monkeypatch, tmp_path, capsys, atlas):
    """Run the command on six subjects -> its results.json, printed text, and the number of prompts."""
    atlas.save(tmp_path / "atlas.safetensors")
    RealClips.prompts, RealClips.pairs = 0, draw_pairs(atlas, 6)
    monkeypatch.setattr(run, "Comfy", RealClips)
    monkeypatch.setattr(run.Detector, "load", lambda path: RealClips)
    monkeypatch.setattr(run, "BackgroundClassifier", lambda: RealClips)

    def command(*more):
        parser = argparse.ArgumentParser()
        run.add_arguments(parser)
        given = ["--out", str(tmp_path / "out"), "--atlas", str(tmp_path / "atlas.safetensors")]
        before = RealClips.prompts
        run.main(parser.parse_args([*given, "--comfyui", "comfyui", "--pairs", "6", *more]))
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        return results, capsys.readouterr().out, RealClips.prompts - before

    return command


def test_shares_of_one_folder_add_up_to_one_table(evaluate, tmp_path):
    results, text, prompts = evaluate("--seeds", "0", "1", "--share", "0/2")
    assert prompts == 3 * 6 and list(results["rows"]) == ["real clips"]
    assert "boxes-subject/seed-1: 3 of 6 clips are not there yet" in text and "without --share" in text
    results, text, prompts = evaluate("--seeds", "0", "1", "--share", "1/2")
    assert prompts == 3 * 6 and "not there yet" not in text
    names = ["real clips", "real clips through the VAE", "real clips, shuffled boxes"]
    assert set(results["rows"]) == {*names, *(condition.name for condition in CONDITIONS)}
    assert "boxes + subject, seed by seed" in text
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        f"{condition.folder}{kind}.png" for condition in CONDITIONS for kind in ("", "-random")
    }
    assert evaluate("--seeds", "0", "1")[2] == 0  # everything is there: ComfyUI is not asked again


def test_rows_of_earlier_runs_stay_in_the_table_and_a_row_waits_for_all_its_seeds(evaluate):
    _, _, prompts = evaluate("--conditions", "text only")
    assert prompts == 2 * 6
    results, _, prompts = evaluate("--conditions", "boxes + subject")
    assert prompts == 6 and {"text only", "boxes + subject"} <= set(results["rows"])
    results, text, prompts = evaluate("--conditions", "text only", "--seeds", "0", "1")
    assert prompts == 0 and "boxes + subject" not in results["rows"]


def test_real_clips_in_the_place_of_a_models_clips_follow_text_boxes_and_subject(evaluate):
    results, _, _ = evaluate()
    assert results["rows"]["boxes + subject"] == results["rows"]["real clips"]
    probes = results["probes"]
    assert {name: set(found) for name, found in probes.items() if not name.startswith("real")} == {
        "text only": {"direction", "background", "colour"},
        "boxes only": {"background", "colour"},
        "subject only": {"direction", "background"},
        "boxes + subject": {"background"},
    }
    assert probes["text only"]["direction"]["accuracy"] == probes["text only"]["background"]["accuracy"] == 1
    assert results["about"]["gallery"] == 6 and results["about"]["seeds"] == [0] and "seed" not in results["about"]


def test_a_negative_sampling_seed_is_refused(evaluate):
    with pytest.raises(ValueError, match="0 or larger"):
        evaluate("--seeds", "-1")


# --- subjects ---------------------------------------------------------------------------------------------------------


def test_the_drawn_subjects_keep_their_colours_and_are_all_held_out():
    atlas = load_subjects("drawn")
    assert len(atlas.indices("test")) == len(atlas) == 12 and "owl" in atlas.names()
    toadstools = [p.clip for p in draw_pairs(atlas, 48) if p.clip.concept == "toadstool"]
    assert len(toadstools) == 4 and {clip.colour for clip in toadstools} <= {"", "red"}


def test_a_folder_of_cut_out_pictures_is_a_set_of_subjects_named_by_its_files(tmp_path):
    picture = np.zeros((40, 50, 4), np.uint8)
    picture[10:30, 10:40] = (200, 30, 30, 255)
    Image.fromarray(picture).save(tmp_path / "Garden_gnome-02.png")
    atlas = load_subjects(str(tmp_path))
    assert atlas.names() == ["garden gnome"] and atlas.rgba.shape == (1, 64, 64, 4)
    assert draw_pairs(atlas, 1)[0].clip.concept == "garden gnome"
    Image.fromarray(picture[10:30, 10:40]).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match="'photo' has no transparency"):
        load_subjects(str(tmp_path))


def test_subjects_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no picture"):
        load_subjects(str(tmp_path))
    with pytest.raises(ValueError, match="no atlas and no folder"):
        load_subjects(str(tmp_path / "nowhere"))


def test_the_digest_of_subjects_tells_pixels_names_and_the_clips_made_of_them_apart(atlas, monkeypatch):
    again = Atlas(atlas.rgba.copy(), list(atlas.sprites))
    assert digest_of(again) == digest_of(atlas)
    again.rgba[0, 0, 0, 0] += 1
    assert digest_of(again) != digest_of(atlas)
    renamed = Atlas(atlas.rgba, [replace(atlas.sprites[0], name="other"), *atlas.sprites[1:]])
    assert digest_of(renamed) != digest_of(atlas)
    before = digest_of(atlas)
    monkeypatch.setattr("dv2_core.world.clips.SUBJECT_SIDE", 0.7)  # the same art, shown in another way
    assert digest_of(atlas) != before
