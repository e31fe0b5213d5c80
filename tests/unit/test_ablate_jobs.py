"""The ablation as a whole, tiny: two steps, two pairs of drawn subjects, a UNet of 32 channels."""

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dv2_core.ablate import jobs, measure, rows, run
from dv2_core.ablate.jobs import Job, claim, jobs_of, results
from dv2_core.ablate.rows import ROWS, TRAINING, UNTRAINED, named
from dv2_core.ablate.study import Study, read_metadata, validation_pairs
from dv2_core.drawn import drawn_subjects
from dv2_core.evaluate.detector import DEFAULT_FILE
from dv2_core.evaluate.pairs import draw_pairs
from dv2_core.model import UNet3DConfig
from dv2_core.train import files, loop
from dv2_core.train.config import TrainConfig
from dv2_core.world.atlas import Atlas, Sprite, fit_sprite

VAE = run.MODELS / "vae" / "dv2-mini-vae.safetensors"
UNET = UNet3DConfig(24, 24, 32, (1, 1), 1, (1,), 16, 2, 32)
SOME = ["full", "mask-1", "uncond-subject"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESAMPLES", 20)
    monkeypatch.setitem(rows.FULL, "steps", 1)
    monkeypatch.setitem(rows.FULL, "encoder_channels", (8, 8, 8, 8))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an atlas of drawn subjects and the export of a base."""
    folder = tmp_path_factory.mktemp("world")
    pictures = drawn_subjects()
    sprites = [
        Sprite(concept=name, name=name, style="drawn", licence="Apache-2.0", split="train" if n % 3 else "test")
        for n, name in enumerate(pictures)
    ]
    atlas = Atlas(np.stack([fit_sprite(np.asarray(picture)) for picture in pictures.values()]), sprites)
    atlas.save(folder / "atlas.safetensors")
    data = {"atlas": str(folder / "atlas.safetensors"), "latent": str(VAE), "num_frames": 2}
    config = TrainConfig.from_dict({
        "trains": ["base", "text"], "steps": 1, "batch": 2, "data": data, "unet": UNET.to_dict(),
        "text": {"width": 32, "layers": 1, "heads": 4}, "adapter": {"prediction": "v"},
        "validate_steps": 0, "sample_steps": 0,
    })  # fmt: skip
    loop.train(config, folder / "base")
    return folder


@pytest.fixture
def study(world: Path, tmp_path: Path) -> Study:
    return Study(
        base=world / "base" / "export", out=tmp_path / "out", atlas=world / "atlas.safetensors",
        vae=VAE, detector=DEFAULT_FILE, steps=2, pairs=2, seeds=(0, 1),
        training={**TRAINING, "batch": 2, "mixed_precision": "no"}, clips={"size": 64, "num_frames": 2},
    )  # fmt: skip


def start(study: Study, names: list[str]) -> list[Job]:
    todo = jobs_of(study, named(names))
    jobs.run(study, todo)
    return todo


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("a training was started")


def equal(one: measure.Values, other: measure.Values) -> bool:
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)


def test_the_whole_command_measures_every_row_and_seed_and_writes_table_sheets_and_figure(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = start(study, SOME)
    found = results(study)
    assert {name: {step: sorted(by_seed) for step, by_seed in steps.items()} for name, steps in found.items()} == {
        "untrained": {0: [0]},
        "full": {1: [0, 1], 2: [0, 1]},
        "mask-1": {2: [0, 1]},
        "uncond-subject": {2: [0, 1]},
    }
    page = run.report(study)
    assert all(row.label in page for row in (UNTRAINED, *named(SOME))) and "lambda_M 0 (binary mask)" not in page
    assert {"table.md", "table.json", "table.csv", "figure.png"} <= {path.name for path in study.out.iterdir()}
    sheets = {path.stem for path in (study.out / "sheets").iterdir()}
    assert sheets == {"untrained-seed0", *(f"{name}-seed{seed}" for name in SOME for seed in (0, 1))}
    assert not list(study.out.glob("trainings/*/checkpoints"))

    # A row that only samples needs no training, and nothing that is done is done again.
    monkeypatch.setattr(loop, "train", forbidden)
    before = found["full"][2][1]
    study.result_file(named(["full"])[0], 1, 2).unlink()
    start(study, [*SOME, "uncond-none"])
    found = results(study)
    assert equal(found["full"][2][1], before) and sorted(found["uncond-none"][2]) == [0, 1]
    assert not any(job.missing(study) for job in todo)
    assert "0 training steps and 0 measurements are left" in run.plan(study, todo)


def test_a_command_killed_between_two_measurements_ends_as_if_it_had_not_been(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = dataclasses.replace(study, seeds=(0,))
    whole = dataclasses.replace(study, out=study.out / "whole")
    start(whole, ["full"])

    def killed(config: TrainConfig, out: Path, stop_after: int) -> None:
        if stop_after == 2:
            raise KeyboardInterrupt
        train(config, out, stop_after)

    train: Callable[..., None] = loop.train
    monkeypatch.setattr(loop, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        start(study, ["full"])
    assert list(results(study)["full"]) == [1]
    monkeypatch.setattr(loop, "train", train)
    start(study, ["full"])
    assert equal(results(study)["full"][2][0], results(whole)["full"][2][0])


def test_a_result_of_an_earlier_step_that_was_deleted_is_made_again_the_same(study: Study) -> None:
    study = dataclasses.replace(study, seeds=(0,))
    start(study, ["full"])
    before = results(study)["full"][1][0]
    study.result_file(named(["full"])[0], 0, 1).unlink()
    start(study, ["full"])
    assert equal(results(study)["full"][1][0], before)


def test_a_folder_of_other_settings_is_refused(study: Study) -> None:
    jobs.run(study, [])
    with pytest.raises(ValueError, match="other weights or settings"):
        jobs.run(dataclasses.replace(study, protocol="unfrozen"), [])


def test_a_result_of_a_row_whose_settings_changed_is_refused(study: Study) -> None:
    row = named(["mask-1"])[0]
    about = {"adapter": {**row.adapter, "lambda_m": 0.9}, "step": 2, "seed": 0}
    measure.save(study.result_file(row, 0, 2), {"mIoU": np.zeros(2)}, about)
    with pytest.raises(ValueError, match="other settings of the row mask-1"):
        results(study)


def test_a_base_that_comes_with_an_adapter_is_refused(study: Study, tmp_path: Path) -> None:
    for name in (files.BASE, files.TEXT, files.ADAPTER):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="holds an adapter"):
        dataclasses.replace(study, base=tmp_path)
    with pytest.raises(ValueError, match="has no dv2-mini-base"):
        dataclasses.replace(study, base=tmp_path / "nowhere")


def test_without_a_base_every_row_starts_from_the_miniatures(study: Study, tmp_path: Path) -> None:
    from dv2_core.train.files import load_exported
    from dv2_core.train.model import TrainingModel

    base = run.shipped_base(tmp_path / "base")
    assert run.shipped_base(base) == base
    full = dataclasses.replace(study, base=base).config(named(["full"])[0], 0)
    words = files.json.loads(read_metadata(base / files.TEXT)["dreamvideo2.words"])
    load_exported(TrainingModel(full, len(words) + 4, torch.device("cpu")), base)
    assert full.trains == ("adapter",) and full.adapter.prediction == "v_zsnr"


def test_a_claim_is_held_by_one_and_is_free_again_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "full-seed0.lock"
    with claim(path) as first, claim(path) as second:
        assert first and not second
    with claim(path) as third:
        assert third


def test_the_claim_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "full-seed0.lock"
    hold = (
        "import sys, time, filelock\nlock = filelock.FileLock(sys.argv[1])\n"
        "lock.acquire()\nprint(flush=True)\ntime.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline()
    with claim(path) as while_it_lives:
        assert not while_it_lives
    holder.kill()
    holder.wait()
    with claim(path) as afterwards:
        assert afterwards


def test_a_training_that_another_process_holds_is_left_to_it(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "train", forbidden)
    row = named(["mask-1"])[0]
    todo = [Job(row, 0, (row,))]
    with claim(study.out / "claims" / "mask-1-seed0.lock"):
        jobs.run(study, todo)
    assert todo[0].missing(study) == [(row, 2)]


def test_rows_that_only_sample_share_the_training_of_their_row(study: Study) -> None:
    todo = jobs_of(study, named(["uncond-none", "uncond-subject", "mask-0"]))
    assert [job.name for job in todo] == ["untrained-seed0", "full-seed0", "mask-0-seed0", "full-seed1", "mask-0-seed1"]
    assert [row.name for row in todo[1].rows] == ["uncond-subject", "uncond-none"]


def test_the_plan_counts_trainings_and_measurements(study: Study) -> None:
    plan = run.plan(study, jobs_of(study, ROWS))
    trained = sum(not row.weights_of for row in ROWS)
    measured = 1 + 2 * sum(len(study.checkpoints(row)) for row in ROWS)
    assert f"{trained * 2 * study.steps} training steps and {measured} measurements are left" in plan
    assert "naive-seed1: 2 steps to train, 2 times to measure" in plan


def test_validation_pairs_are_of_different_held_out_concepts_and_not_those_of_the_evaluation(study: Study) -> None:
    atlas = Atlas.load(study.atlas)
    held_out = {atlas.sprites[i].name for i in atlas.indices("test")}
    pairs = validation_pairs(atlas, len(held_out), 64, 2)
    assert {pair.clip.concept for pair in pairs} == held_out and [p.number for p in pairs] == list(range(len(pairs)))
    evaluated = draw_pairs(atlas, len(held_out), 64, 2)
    assert not any(np.array_equal(one.real, other.real) for one in pairs for other in evaluated)
    with pytest.raises(ValueError, match="held-out concepts"):
        validation_pairs(atlas, len(held_out) + 1, 64, 2)


def test_two_processes_with_one_folder_do_every_training_once(study: Study) -> None:
    """The second one comes while the first is at work, finds its lock, and takes the next."""
    row, other = named(["mask-1", "mask-0"])[::-1]
    with claim(study.out / "claims" / f"{row.name}-seed0.lock"):
        jobs.run(study, [Job(row, 0, (row,)), Job(other, 0, (other,))])
    assert sorted(results(study)) == [other.name]
    started = time.time()
    jobs.run(study, [Job(row, 0, (row,)), Job(other, 0, (other,))])
    assert sorted(results(study)) == sorted([row.name, other.name])
    assert study.result_file(other, 0, 2).stat().st_mtime < started
