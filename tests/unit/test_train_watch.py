"""What one sees of a training: log, validation, samples, report, dry run. None of it changes the training."""

import dataclasses
import gc
import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from dv2_core.__main__ import main
from dv2_core.train import dry_run
from dv2_core.train.checkpoint import Checkpoints
from dv2_core.train.config import TrainConfig
from dv2_core.train.data import LADDER
from dv2_core.train.log import RunLog, read_log
from dv2_core.train.loop import Run, train
from dv2_core.train.report import write_report


@pytest.fixture(scope="module")
def watched(tiny_toml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of four steps with validation and samples every second step."""
    out = tmp_path_factory.mktemp("watched")
    train(dataclasses.replace(TrainConfig.load(tiny_toml), validate_steps=2, sample_steps=2), out)
    return out


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    state = Checkpoints(out / "checkpoints").latest()
    assert state is not None
    return {**state["weights"], **{f"ema.{k}": v for k, v in state["ema"].items()}}


def rows_of(out: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_log(out / "log.jsonl") if row["kind"] == kind]


def test_validation_and_samples_change_no_weight(watched: Path, tiny_config: TrainConfig, tmp_path: Path) -> None:
    train(tiny_config, tmp_path)
    alone, seen = weights_of(tmp_path), weights_of(watched)
    assert all(torch.equal(alone[k], seen[k]) for k in alone)
    assert rows_of(tmp_path, "validation") == []


def test_validation_tells_in_and_out_of_the_boxes_at_every_timestep_of_the_ladder(watched: Path) -> None:
    rows = rows_of(watched, "validation")
    assert [row["step"] for row in rows] == [2, 4]
    for row in rows:
        assert list(row["by_timestep"]) == [str(t) for t in LADDER]
        for figure in ("loss", "mse", "inside", "outside"):
            values = [part[figure] for part in row["by_timestep"].values()]
            assert row[figure] == pytest.approx(np.mean(values), rel=1e-5) and min(values) > 0
        assert row["loss"] > row["mse"]  # lambda_L is 2


def test_the_same_weights_validate_to_the_same_figures_at_every_time_and_for_every_seed(
    watched: Path, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    still = dataclasses.replace(tiny_config, init=str(watched / "export"), steps=2, lr=1e-30, validate_steps=1)
    for seed in (0, 5):
        train(dataclasses.replace(still, seed=seed), tmp_path / str(seed))
    rows = rows_of(tmp_path / "0", "validation") + rows_of(tmp_path / "5", "validation")
    assert len(rows) == 4 and rows_of(tmp_path / "0", "train")[0]["mse"] != rows_of(tmp_path / "5", "train")[0]["mse"]
    for row in rows:
        assert [row[k] for k in ("loss", "inside", "outside")] == pytest.approx(
            [rows[0][k] for k in ("loss", "inside", "outside")], rel=1e-6
        )


def test_validation_and_samples_leave_no_tensor_behind(tiny_config: TrainConfig, tmp_path: Path) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    run = Run(dataclasses.replace(tiny_config, sample_steps=1), tmp_path)
    run.validate()
    run.export()
    before = tensors()
    run.validate()
    run.export()
    assert tensors() == before and run.model.training


def test_samples_are_a_sheet_with_boxes_and_a_video_that_plays(watched: Path, tiny_config: TrainConfig) -> None:
    assert [row["file"] for row in rows_of(watched, "samples")] == ["samples/00000002.png", "samples/00000004.png"]
    sheet = np.asarray(Image.open(watched / "samples" / "00000004.png"))
    assert sheet.shape == (2 * (2 * 64 + 4), 2 * (3 * 64 + 2 * 4), 3)  # two rows of a subject and two frames, doubled
    red = (np.abs(sheet.astype(int) - (255, 64, 51)).sum(-1) < 6).sum()
    assert red > 100  # outlines of boxes
    with av.open(str(watched / "samples" / "00000004.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == tiny_config.data.num_frames and frames[0].shape == (264, 264, 3)


def test_the_log_drops_rows_after_the_step_it_goes_on_from_and_a_line_cut_short(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write("train", step, loss=1.0 / step)
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "ki')
    RunLog(tmp_path, 2).close()
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [1, 2]


def test_an_absent_tensorboard_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = RunLog(tmp_path, 0)
    log.write("train", 1, loss=1.0)
    log.close()
    assert read_log(tmp_path / "log.jsonl")[0]["loss"] == 1.0 and not (tmp_path / "tensorboard").exists()


def test_the_report_shows_curves_figures_and_samples_in_one_file(watched: Path) -> None:
    text = (watched / "report.html").read_text()
    for part in ("<svg", "data:image/png;base64,", 'http-equiv="refresh"', "Step 4", "4 of 4", "lambda_l"):
        assert part in text
    assert 'src="http' not in text and "<link" not in text and "<script" not in text


def test_reports_compare_trainings_also_from_the_command_line(watched: Path, tmp_path: Path) -> None:
    other = tmp_path / "other run"
    other.mkdir()
    (other / "log.jsonl").write_text((watched / "log.jsonl").read_text())
    main(["report", str(watched), str(other), "--out", str(tmp_path / "both.html")])
    text = (tmp_path / "both.html").read_text()
    assert text.count(watched.name) >= 2 and "other run" in text
    with pytest.raises(ValueError, match="holds no log.jsonl"):
        write_report([tmp_path])


def test_a_dry_run_counts_and_writes_nothing(
    tiny_toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(["train", str(tiny_toml), "--dry-run", "--out", str(out)])
    text = capsys.readouterr().out
    for part in ("parameters: base ", "a clip: 2 frames, latents 24x8x8, 128 positions, 16 text tokens",
                 "2 clips = 1 processes x 1 passes x batch 2", "4 steps, 8 clips", "GiB", "s a step",
                 "every file is there"):  # fmt: skip
        assert part in text
    assert not out.exists()


def test_a_dry_run_knows_what_gradient_checkpointing_saves_and_costs(tiny_config: TrainConfig) -> None:
    plain, recomputed = (dry_run.work(tiny_config, 1000, 16, recompute) for recompute in (False, True))
    assert recomputed.activations < 0.7 * plain.activations
    assert 1.1 * plain.flops < recomputed.flops < 1.5 * plain.flops


def test_memory_counts_what_is_made_and_no_view_of_what_was_there() -> None:
    layer, x = torch.nn.Linear(100, 50), torch.randn(8, 100)
    with dry_run.Meter() as meter:
        x.view(4, 200)[:2].add_(1)
    assert meter.peak == 0
    with dry_run.Meter() as meter:  # the layer transposes its weight
        layer(layer(x).repeat(1, 2))
    assert meter.peak == 4 * 8 * (100 + 50)  # the first output is gone when the second is made


def test_a_dry_run_names_the_files_that_are_missing(tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "work", lambda *_: dry_run.Work(10**15, 2**34))  # more than a CPU is asked to run
    data = dataclasses.replace(tiny_config.data, atlas="no/atlas.safetensors")  # type: ignore[call-arg]
    config = dataclasses.replace(tiny_config, data=data, init="no/base.safetensors", total_batch=16)
    text = dry_run.dry_run(config, processes=2)
    assert text.count("PROBLEM: ") == 2 and "no/base.safetensors" in text and "no/atlas.safetensors" in text
    assert "16 clips = 2 processes x 4 passes x batch 2" in text and "8e+03 TFLOP" in text
    assert "not measured" in text and "16.0" in text


def test_a_command_that_cannot_work_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no preset; the presets are"):
        main(["train", "unknown", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="train needs --out DIR"):
        main(["train", "mini"])


def test_settings_lie_beside_the_log(watched: Path, tiny_config: TrainConfig) -> None:
    noted = json.loads((watched / "config.json").read_text())
    assert TrainConfig.from_dict(noted).adapter == tiny_config.adapter and noted["validate_steps"] == 2
