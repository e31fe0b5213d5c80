"""A folder of videos becomes a data set that the trainer reads, and every clip that does not says why."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dv2_core import rle
from dv2_core.__main__ import main
from dv2_core.curate import stages
from dv2_core.curate.audit import keep_verdicts
from dv2_core.curate.clip import Clip
from dv2_core.curate.run import curate
from dv2_core.curate.video import pictures
from dv2_core.segment import Detector, Prompt, Segmenter, VideoSegmenter
from dv2_core.segment.compose import without_specks
from dv2_core.train.data import open_data
from dv2_core.train.data_config import ClipsConfig, Draws
from tests.curation import NAMES, reasons_of, rows_of, run, settings, write_folder
from tests.drawn_clips import draw_frames

MODELS = Path(__file__).resolve().parents[2] / "models"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips with masks; the last subject stands still."""
    return write_folder(tmp_path_factory.mktemp("videos"), still=NAMES[-1])


def same_masks(row: Any, name: str) -> bool:
    """Whether the row's masks are exactly those of the drawn subject."""
    _, masks = draw_frames(name)
    return all(rle.decode(got).tolist() == mask.tolist() for got, mask in zip(row.mask_rle, masks, strict=True))


def test_given_masks_become_rows_with_their_tight_boxes_and_a_still_subject_is_rejected(
    folder: Path, tmp_path: Path
) -> None:
    counts = run(folder, tmp_path)
    rows = rows_of(tmp_path)
    assert [row.video for row in rows] == [f"videos/{name}.mp4" for name in sorted(NAMES[:-1])]
    for row in rows:
        name = Path(row.video).stem
        assert same_masks(row, name) and row.caption == f"a {name} moving right"
        assert row.boxes[1] == tuple(x + 3 * (n % 2 == 0) for n, x in enumerate(row.boxes[0] or ()))
        assert (tmp_path / row.video).read_bytes() == (folder / f"{name}.mp4").read_bytes()
    assert reasons_of(tmp_path).keys() == {f"{NAMES[-1]}.mp4"}
    assert reasons_of(tmp_path)[f"{NAMES[-1]}.mp4"].startswith("still: the first and the last box overlap by 1.00")
    assert (counts.videos, counts.clips, counts.accepted) == (5, 5, 4)
    assert json.loads((tmp_path / "counts.json").read_text())["rejected"] == {"motion": {"still": 1}}


def test_the_trainer_gets_the_same_batches_from_the_manifest_and_from_the_shards(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path, shards=3)
    assert sorted(file.name for file in (tmp_path / "shards").iterdir()) == ["clips-00000.tar", "clips-00001.tar"]
    batches = []
    for source in ({"manifest": str(tmp_path / "clips.jsonl")}, {"shards": str(tmp_path / "shards" / "*.tar")}):
        config = ClipsConfig(
            **source, cache=str(tmp_path / next(iter(source))), held_out=0.01, width=32, height=32, num_frames=3,
            workers=0, variants=2, vae=str(MODELS / "vae" / "dv2-mini-vae.safetensors"),
            text_encoder=str(MODELS / "text_encoders" / "dv2-mini-text.safetensors"),
        )  # fmt: skip
        data = open_data(config, Draws(seed=3, batch=2))
        data.prepare(0, 1, CPU)
        assert (data.size.clips, data.size.held_out) == (3, 1)
        batches.append([dataclasses.astuple(data.batch(step)) for step in range(4)])
    for ours, theirs in zip(*batches, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_detection_mask_and_tracking_are_what_the_same_models_find_when_called_by_hand(
    models: dict[str, str], tmp_path: Path
) -> None:
    """With random weights what is found is arbitrary, so every filter is open."""
    name = NAMES[0]
    videos = write_folder(tmp_path / "videos", [name], masks=False)
    (videos / f"{name}.word.txt").write_text("ball")
    everything = [0.0, 1.0]
    clip = Clip(f"{name}.mp4", "", length=10, width=64, height=48)
    frames = pictures(videos / f"{name}.mp4", clip, range(10), side=64)
    best = Detector.load(models["detector"]).detect(frames[:1], ["ball"], 0.0)[0][0]
    run(
        videos, tmp_path / "out", models=models, detect={"threshold": best.score - 1e-6},
        size={"width": everything, "height": everything, "area": everything}, visible={"least": 0.0},
        motion={"overlap": 1.0},
    )  # fmt: skip
    (row,) = rows_of(tmp_path / "out")
    prompt = Prompt(box=best.box)
    start = without_specks(Segmenter.load(models["segmenter"]).segment(frames[:1], [prompt]))[0]
    masks = without_specks(VideoSegmenter.load(models["segmenter"]).track(frames, start.float()))
    found = [None if runs is None else torch.from_numpy(rle.decode(runs).copy()) for runs in row.mask_rle or ()]
    assert [mask is not None for mask in found] == masks.any(2).any(1).tolist() and any(masks.flatten())
    assert all(mask is None or torch.equal(mask, own) for mask, own in zip(found, masks, strict=True))
    assert (row.phrase, row.ref_frame, row.scores["grounding"]) == ("ball", 0, round(best.score, 4))


def test_another_threshold_is_applied_without_detecting_or_tracking_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, tmp_path)
    ran: list[str] = []
    for group in ("VIDEO_STAGES", "CLIP_STAGES"):
        counted = []
        for stage in getattr(stages, group):

            def watch(clips: Any, tools: Any, stage: stages.Stage = stage) -> Any:
                ran.append(stage.name)
                return stage.run(clips, tools)

            counted.append(dataclasses.replace(stage, run=watch))
        monkeypatch.setattr(f"dv2_core.curate.run.{group}", tuple(counted))
    assert run(folder, tmp_path, motion={"overlap": 1.0}).accepted == 5 and set(ran) == {"motion"}
    ran.clear()
    assert run(folder, tmp_path, size={"area": [0.2, 0.8]}).rejected["size"] == {"small": 5} and set(ran) == {"size"}
    ran.clear()
    run(folder, tmp_path)
    assert set(ran) == {"size", "motion"}


def test_another_video_of_the_same_name_is_curated_anew(folder: Path, tmp_path: Path) -> None:
    videos = Path(shutil.copytree(folder, tmp_path / "videos"))
    run(videos, tmp_path / "out")
    for name, other in ((NAMES[0], NAMES[-1]), (NAMES[1], NAMES[2])):
        (videos / f"{name}.mp4").unlink()  # what is linked keeps its old content
        shutil.copy(videos / f"{other}.mp4", videos / f"{name}.mp4")
        shutil.rmtree(videos / f"{name}.masks")
        shutil.copytree(videos / f"{other}.masks", videos / f"{name}.masks")
    assert run(videos, tmp_path / "out").rejected == {"motion": {"still": 2}}
    row = next(row for row in rows_of(tmp_path / "out") if NAMES[1] in row.video)
    assert same_masks(row, NAMES[2])
    assert (tmp_path / "out" / row.video).read_bytes() == (videos / f"{NAMES[2]}.mp4").read_bytes()


def test_where_links_are_impossible_videos_are_copied_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    run(folder, tmp_path)
    copies = {file.name: file.stat().st_ino for file in (tmp_path / "videos").iterdir()}
    run(folder, tmp_path)
    assert copies == {file.name: file.stat().st_ino for file in (tmp_path / "videos").iterdir()} and len(copies) == 4
    assert all((folder / name).read_bytes() == (tmp_path / "videos" / name).read_bytes() for name in copies)


def test_verdicts_overrule_filters_reject_clips_and_change_words(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path)
    ids = {row.video: row.id for row in rows_of(tmp_path)}
    still = f"videos/{NAMES[-1]}.mp4:0-10:0"
    told = {still: {"verdict": "accept"}, ids[f"videos/{NAMES[0]}.mp4"]: {"verdict": "reject"}}
    told[ids[f"videos/{NAMES[1]}.mp4"]] = {"word": "knight"}
    (tmp_path / "told.json").write_text(json.dumps({"verdicts": told}))
    verdicts = keep_verdicts(tmp_path, tmp_path / "told.json")
    counts = run(folder, tmp_path, verdicts)
    assert counts.accepted == 4 and counts.rejected == {"verdict": {"verdict": 1}}
    rows = {row.video: row for row in rows_of(tmp_path)}
    assert f"videos/{NAMES[-1]}.mp4" in rows and rows[f"videos/{NAMES[1]}.mp4"].phrase == "knight"
    assert keep_verdicts(tmp_path, None) == told


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[]", 'has no "verdicts"'),
        ("{", "is no file of verdicts"),
        ('{"verdicts": {"a": {"verdict": "perhaps"}}}', "'perhaps'"),
        ('{"verdicts": {"a": {"note": "x"}}}', "the verdict on 'a'"),
    ],
)
def test_a_file_that_is_no_verdicts_is_refused(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "told.json").write_text(text)
    with pytest.raises(ValueError, match=part):
        keep_verdicts(tmp_path, tmp_path / "told.json")


def test_a_missing_model_ends_the_curation_with_what_to_do_instead_of_rejecting_the_clips(tmp_path: Path) -> None:
    videos = write_folder(tmp_path / "videos", NAMES[:1], masks=False)
    (videos / f"{NAMES[0]}.word.txt").write_text(NAMES[0])
    with pytest.raises(ValueError, match="There is no detector, and a clip asks for one; write models.detector = "):
        run(videos, tmp_path / "out")
    with pytest.raises(ValueError, match="models.detector is './nowhere', which is no folder here"):
        run(videos, tmp_path / "out", models={"detector": "./nowhere"})
    (videos / f"{NAMES[0]}.word.txt").unlink()
    with pytest.raises(ValueError, match="spaCy with the pipeline 'no_such_pipeline', which cannot be loaded"):
        run(videos, tmp_path / "out", models={"language": "no_such_pipeline"})


def test_skipped_stages_must_be_stages_and_not_those_that_all_others_need(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"skip names \['tracks'\], which are no stages; the stages are"):
        curate(settings(folder, skip=["tracks"]), tmp_path)
    with pytest.raises(ValueError, match="nothing works without"):
        curate(settings(folder, skip=["probe"]), tmp_path)
    assert run(folder, tmp_path, skip=["split", "motion", "blur", "cut", "text"]).accepted == 5


def test_the_command_curates_a_config_prints_its_stages_and_refuses_what_it_cannot_use_with_a_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.toml").write_text(f'source = "{folder.as_posix()}"\n[split]\nmin_seconds = 0.5\n')
    main(["curate", str(tmp_path / "own.toml"), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert printed.startswith("4 of 5 clips accepted, from 5 videos") and "still 1" in printed
    assert printed.rstrip().endswith("audit.html") and (tmp_path / "out" / "audit.html").is_file()
    (tmp_path / "told.json").write_text("{}")
    with pytest.raises(SystemExit, match='told.json has no "verdicts"'):
        main(["curate", str(folder), "--out", str(tmp_path / "out"), "--verdicts", str(tmp_path / "told.json")])
    with pytest.raises(SystemExit, match="give a folder of videos, a list"):
        main(["curate", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
