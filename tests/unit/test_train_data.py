"""Real clips as training data: the same batches always and everywhere, and caches that cannot be stale."""

import dataclasses
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from dv2_core.model import read_adapter
from dv2_core.train.box_range import box_range
from dv2_core.train.cache import Cache
from dv2_core.train.config import TrainConfig, read_toml
from dv2_core.train.data import LADDER, Batch, Data, open_data
from dv2_core.train.data_config import AugmentConfig, ClipsConfig, DataConfig, Draws, MiniWorldConfig
from dv2_core.train.encoders import VAE, TextEncoder
from dv2_core.train.loop import train
from tests.drawn_clips import draw_frames, write_clips, write_manifest, write_video

MODELS = Path(__file__).resolve().parents[2] / "models"
CPU = torch.device("cpu")
DRAWS = Draws(seed=3, batch=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five clips and a full cache; copied by tests that change it."""
    folder = tmp_path_factory.mktemp("data")
    write_clips(folder / "clips")
    open_data(settings(folder), DRAWS).prepare(0, 1, CPU)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same folder, times of change included, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def settings(folder: Path, **changes: Any) -> ClipsConfig:
    values = {
        "manifest": str(folder / "clips" / "clips.jsonl"), "cache": str(folder / "cache"), "held_out": 0.01,
        "vae": str(MODELS / "vae" / "dv2-mini-vae.safetensors"), "width": 32, "height": 32, "num_frames": 3,
        "text_encoder": str(MODELS / "text_encoders" / "dv2-mini-text.safetensors"), "workers": 0, "variants": 2,
    }  # fmt: skip
    return ClipsConfig(**{**values, **changes})


def same(first: Batch, second: Batch) -> bool:
    pairs = [(getattr(first, f.name), getattr(second, f.name)) for f in dataclasses.fields(Batch)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def names_of(data: Data, batch: Batch) -> list[str]:
    """Which clips a batch of real clips holds, told by their latents."""
    store = data.train_store  # type: ignore[attr-defined]
    known = {store.clip(n).latents.numpy().tobytes(): store.source.row(n)[0].video for n in range(len(store.source))}
    return [known[clip.numpy().tobytes()] for clip in batch.latents.unflatten(0, (-1, 3))]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """What the frozen models are given from now on: ("frames", number) and ("captions", number)."""
    calls: list[tuple[str, int]] = []
    for kind, name in ((VAE, "frames"), (TextEncoder, "captions")):
        original = kind.encode

        def counted(self: Any, given: Any, device: Any, original: Any = original, name: str = name) -> Any:
            calls.append((name, len(given)))
            return original(self, given, device)

        monkeypatch.setattr(kind, "encode", counted)
    yield calls


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_has_the_shapes_of_its_contract_and_cached_text(made: Path) -> None:
    data = open_data(settings(made), dataclasses.replace(DRAWS, drop_text=0.0))
    batch = data.batch(0)
    assert (data.size.clips, data.size.held_out, data.size.latent, data.words) == (4, 1, (24, 4, 4), None)
    assert batch.latents.shape == batch.noise.shape == (2 * 3, 24, 4, 4)
    assert batch.masks.shape == (2 * 3, 1, 32, 32) and set(batch.masks.unique().tolist()) == {0.0, 1.0}
    assert batch.subject.shape == (2, 24, 4, 4) and batch.latents.dtype == torch.float32
    assert batch.tokens is None and batch.context is not None and batch.context.shape == (2, 16, 128)
    captions = [f"a {name.removesuffix('.mp4')} moving right" for name in names_of(data, batch)]
    expected = TextEncoder(MODELS / "text_encoders" / "dv2-mini-text.safetensors").encode(captions, CPU)
    assert torch.allclose(batch.context, expected, atol=2e-3)


def test_a_dropped_caption_is_the_empty_one(made: Path) -> None:
    data = open_data(settings(made), dataclasses.replace(DRAWS, drop_text=1.0))
    context = data.batch(0).context
    assert context is not None and torch.equal(context[0], context[1])
    assert torch.equal(context[0], data.samples(1)[0].empty_context)  # type: ignore[arg-type]


def test_workers_and_a_later_start_change_nothing(made: Path, tiny_toml: Path) -> None:
    world = MiniWorldConfig(
        atlas=str(tiny_toml.parent / "atlas.safetensors"), latent=str(tiny_toml.parent / "latent.safetensors"),
        size=32, num_frames=2,
    )  # fmt: skip
    for config in (settings(made), world):
        data = open_data(config, DRAWS)
        for workers in (0, 2):
            ahead = open_data(dataclasses.replace(config, workers=workers), DRAWS).batches(4, 1, 2)
            for step in (4, 5, 6):
                assert same(next(ahead), data.batch(step, 1, 2))
    assert not same(
        open_data(settings(made), Draws(seed=4, batch=2)).batch(4), open_data(settings(made), DRAWS).batch(4)
    )


def test_a_drawn_batch_does_not_depend_on_the_number_of_threads(tiny_config: TrainConfig) -> None:
    data, threads, batches = open_data(tiny_config.data, DRAWS), torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            batches.append(data.batch(9))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all(same(batches[0], batch) for batch in batches[1:])


def test_an_epoch_visits_every_clip_once_and_processes_share_none(made: Path) -> None:
    data = open_data(settings(made), dataclasses.replace(DRAWS, batch=1))
    epochs = []
    for epoch in range(3):
        steps = (2 * epoch, 2 * epoch + 1)  # two processes share four clips
        epochs.append([name for step in steps for rank in (0, 1) for name in names_of(data, data.batch(step, rank, 2))])
        assert len(set(epochs[-1])) == 4
    assert any(order != epochs[0] for order in epochs[1:])


def test_a_clip_shows_another_subject_image_in_the_next_epoch_and_its_first_again_after_all_variants(
    made: Path,
) -> None:
    data = open_data(settings(made), dataclasses.replace(DRAWS, batch=4))
    epochs = []
    for step in range(3):
        batch = data.batch(step)
        epochs.append(dict(zip(names_of(data, batch), batch.subject, strict=True)))
    for name, subject in epochs[0].items():
        assert not torch.equal(subject, epochs[1][name])
        assert torch.equal(subject, epochs[2][name])


def test_validation_and_samples_are_the_same_for_every_seed_and_drop_nothing(made: Path) -> None:
    first = open_data(settings(made), DRAWS)
    second = open_data(settings(made), Draws(seed=9, batch=7, drop_text=1.0, drop_ref=1.0, drop_motion=1.0))
    (batch,), (other,) = first.validation(), second.validation()
    assert same(batch, other)
    assert batch.timesteps.tolist() == list(LADDER)
    assert batch.latents.shape[0] == len(LADDER) * 3 and bool(batch.keep_ref.all() and batch.keep_motion.all())
    (sample,), (again,) = first.samples(5), second.samples(5)
    assert sample.caption == again.caption and torch.equal(sample.picture, again.picture)
    assert sample.boxes.length == 3 and sample.masks.shape == (3, 1, 32, 32)
    held = f"{sample.caption.split()[1]}.mp4"
    assert held not in {name for step in range(4) for name in names_of(first, first.batch(step))}
    frames = first.decode(batch.latents[:3])
    assert frames.shape == (3, 3, 32, 32) and 0 <= frames.min() and frames.max() <= 1


def test_shards_give_the_batches_of_the_manifest(made: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (made / "clips" / "clips.jsonl").read_text().splitlines()]
    for shard, part in enumerate((rows[:2], rows[2:])):
        with tarfile.open(tmp_path / f"s-{shard:03d}.tar", "w") as tar:
            for row in part:
                video = (made / "clips" / row["video"]).read_bytes()
                for name, content in (("mp4", video), ("json", json.dumps(row).encode())):
                    member = tarfile.TarInfo(f"{row['video'].removesuffix('.mp4')}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    shards = settings(made, manifest="", shards=str(tmp_path / "s-{000..001}.tar"), cache=str(tmp_path / "cache"))
    assert same(open_data(shards, DRAWS).batch(3), open_data(settings(made), DRAWS).batch(3))


# --- caches -----------------------------------------------------------------------------------------------------------


def test_a_full_cache_is_used_by_the_next_training_whatever_its_seed(made: Path, encoded: list) -> None:
    data = open_data(settings(made), Draws(seed=11, batch=4))
    data.prepare(0, 1, CPU)
    data.batch(0)
    assert encoded == []


def test_one_changed_pixel_is_computed_anew_for_that_clip_alone(copy: Path, encoded: list) -> None:
    row = json.loads((copy / "clips" / "clips.jsonl").read_text().splitlines()[0])
    frames, _ = draw_frames(row["video"].removesuffix(".mp4"))
    frames[0, 0, 0] = 255
    write_video(copy / "clips" / row["video"], frames)
    open_data(settings(copy), DRAWS).prepare(0, 1, CPU)
    assert sorted(encoded)[0][0] == "frames" and len(encoded) == 2  # its frames and its subject images


@pytest.mark.parametrize(
    "changes, frames, captions",
    [
        ({"fps": 4.0}, 5 * 3, 0),
        ({"width": 40}, 5 * 3 + 4 * 2 + 1, 0),
        ({"augment": AugmentConfig(mirror=1.0)}, 4 * 2, 0),
        ({"variants": 1}, 4 * 1, 0),
    ],
)
def test_a_changed_setting_recomputes_what_depends_on_it(
    made: Path, tmp_path: Path, encoded: list, changes: dict[str, Any], frames: int, captions: int
) -> None:
    shutil.copytree(made / "cache", tmp_path / "cache")
    open_data(settings(made, cache=str(tmp_path / "cache"), **changes), DRAWS).prepare(0, 1, CPU)
    assert sum(n for name, n in encoded if name == "frames") == frames
    assert sum(n for name, n in encoded if name == "captions") == captions


def test_another_model_file_or_caption_recomputes_its_part(copy: Path, encoded: list) -> None:
    for name in ("vae", "text_encoders"):
        shutil.copytree(MODELS / name, copy / name)
    vae, text = copy / "vae" / "dv2-mini-vae.safetensors", copy / "text_encoders" / "dv2-mini-text.safetensors"
    open_data(settings(copy, vae=str(vae), text_encoder=str(text)), DRAWS).prepare(0, 1, CPU)
    assert encoded == []  # the same content elsewhere is the same model
    content = vae.read_bytes()
    vae.write_bytes(content[:-2] + bytes([content[-2] ^ 1, content[-1]]))
    open_data(settings(copy, vae=str(vae), text_encoder=str(text)), DRAWS).prepare(0, 1, CPU)
    assert sum(n for name, n in encoded if name == "frames") == 5 * 3 + 4 * 2 + 1 and encoded[-1][0] == "frames"
    encoded.clear()
    manifest = copy / "clips" / "clips.jsonl"
    manifest.write_text(manifest.read_text().replace("moving right", "moving left", 1))
    open_data(settings(copy, vae=str(vae), text_encoder=str(text)), DRAWS).prepare(0, 1, CPU)
    assert encoded == [("captions", 1)]


def test_a_damaged_entry_is_computed_anew_to_the_same_batch(copy: Path, encoded: list) -> None:
    every = dataclasses.replace(DRAWS, batch=4)
    before = open_data(settings(copy), every).batch(0)
    for damage in (lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: c[: len(c) // 2], lambda c: b""):
        for entry in (copy / "cache").rglob("*.safetensors"):
            entry.write_bytes(damage(entry.read_bytes()))
        assert same(open_data(settings(copy), every).batch(0), before)
        assert encoded
        encoded.clear()


def test_a_kill_while_writing_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cache.put({"a": 1}, {"x": torch.ones(2)})
    assert cache.get({"a": 1}) is None and not list(tmp_path.rglob("*.tmp"))
    cache.put({"a": 1}, {"x": torch.ones(2)})
    found = cache.get({"a": 1})
    assert found is not None and torch.equal(found["x"], torch.ones(2)) and cache.get({"a": 2}) is None


def test_two_processes_fill_one_cache(copy: Path, encoded: list) -> None:
    shutil.rmtree(copy / "cache")
    for process in (1, 0):
        open_data(settings(copy), DRAWS).prepare(process, 2, CPU)
    assert sum(n for name, n in encoded if name == "frames") == 5 * 3 + 4 * 2 + 1
    encoded.clear()
    open_data(settings(copy), DRAWS).batch(0)
    assert encoded == []


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"frames": [0, 4], "boxes": [[1, 1, 30, 30]] * 4, "mask_rle": None}, "0.25 s, too short for 3 frames"),
        ({"fps": 6}, "6 frames per second, fewer than the 8"),
        ({"mask_rle": None}, "there is no mask of the subject"),
        ({"boxes": [None, [1, 1, 9, 9]] + [None] * 8}, "the subject's box is in none of the 3 frames used"),
        ({"video": "nowhere.mp4"}, "there is no 'nowhere.mp4'"),
        ({"mask_rle": [{"size": [48, 64], "counts": "6"}] * 10}, r"mask_rle\[0\]: the run lengths"),
        ({"mask_rle": [{"size": [48, 64], "counts": [3000, 9, 63]}] * 10}, "no frame has a mask .* 16 pixels"),
        ({"video": "clips.jsonl"}, "clips.jsonl cannot be decoded"),
    ],
)  # fmt: skip
def test_a_clip_that_cannot_be_used_gets_a_sentence_before_training(
    made: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    rows = [json.loads(line) for line in (made / "clips" / "clips.jsonl").read_text().splitlines()]
    manifest = write_manifest(tmp_path / "bad.jsonl", [*rows, {**rows[0], **changes}])
    config = settings(made, manifest=str(manifest), root=str(made / "clips"), cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=f"bad.jsonl:6: .*{sentence}"):
        shutil.copytree(made / "cache", tmp_path / "cache")
        open_data(config, DRAWS).prepare(0, 1, CPU)


def test_all_bad_videos_are_told_at_once(copy: Path) -> None:
    videos = sorted((copy / "clips").glob("*.mp4"))
    videos[0].write_bytes(b"no video")
    write_video(videos[1], draw_frames(videos[1].stem)[0][:, :, :32])
    write_video(videos[2], draw_frames(videos[2].stem)[0][:2])
    with pytest.raises(ValueError) as caught:
        open_data(settings(copy), DRAWS).prepare(0, 1, CPU)
    for part in ("cannot be decoded", "are 32x48 as stored, the row says 64x48", "ends before frame"):
        assert part in str(caught.value)


def test_a_held_out_video_is_in_no_training_clip(made: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (made / "clips" / "clips.jsonl").read_text().splitlines()]
    # Two parts of every video: both on one side.
    halves = [{**row, "frames": [first, first + 5], "boxes": row["boxes"][:5], "mask_rle": row["mask_rle"][:5]}
              for row in rows for first in (0, 5)]  # fmt: skip
    manifest = write_manifest(tmp_path / "halves.jsonl", halves)
    config = settings(made, manifest=str(manifest), root=str(made / "clips"), held_out=0.4)
    data: Any = open_data(config, DRAWS)
    sides = [{data.train_store.source.row(n)[0].video for n in clips} for clips in (data.train_clips, data.held_clips)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    shared = dataclasses.replace(config, validation=str(made / "clips" / "clips.jsonl"))
    with pytest.raises(ValueError, match="clips.jsonl:1: the video .* is also in halves.jsonl"):
        open_data(shared, DRAWS)
    with pytest.raises(ValueError, match="All clips of one.jsonl are held out"):
        one = write_manifest(tmp_path / "one.jsonl", halves[:2])
        open_data(dataclasses.replace(config, manifest=str(one)), DRAWS)


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"kind": "video"}, "data.kind is 'video'; choose one of mini-world, clips"),
        ({"kind": "clips", "vea": "x"}, "unknown setting .'vea'. in data"),
        ({"kind": "clips", "vae": "x", "cache": "c"}, "missing .*text_encoder"),
        ({"augment": {"flip": 1}}, "unknown setting .'flip'. in data.augment"),
        ({"augment": {"mirror": 2}}, "augment.mirror is 2"),
        ({"shards": "s.tar"}, "either manifest .* or shards"),
        ({"width": 450}, "data.width is 450; it must be a multiple of 8"),
        ({"held_out": 0}, "data.held_out is 0"),
        ({"width": "448"}, "width is '448' in data .*; it must be a whole number"),
        ({"fps": True}, "fps is True in data .*; it must be a number"),
        ({"workers": -1}, "data.workers is -1"),
    ],
)
def test_a_bad_data_table_gets_a_sentence(values: dict[str, Any], sentence: str) -> None:
    table = {"kind": "clips", "vae": "v", "text_encoder": "t", "cache": "c", "manifest": "m", **values}
    if values.get("kind"):
        table = values
    with pytest.raises(ValueError, match=sentence):
        DataConfig.from_dict(table)


def test_the_data_table_survives_a_round_trip() -> None:
    config = ClipsConfig(vae="v", text_encoder="t", cache="c", shards="s.tar", augment=AugmentConfig(crop=0.0))
    assert DataConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", ["manifest", "vae", "text_encoder", "shards"])
def test_a_missing_file_gets_a_sentence(made: Path, name: str) -> None:
    changes = {"manifest": ""} if name == "shards" else {}
    with pytest.raises(ValueError, match="[Tt]here is no .*nowhere"):
        open_data(settings(made, **{**changes, name: "nowhere"}), DRAWS)


def test_a_training_on_own_clips_writes_an_adapter_that_names_its_data(
    made: Path, tiny_toml: Path, tmp_path: Path
) -> None:
    values = read_toml(tiny_toml)
    values["unet"]["context_dim"] = 128
    values |= {"trains": ["adapter"], "init": "random", "steps": 1, "data": settings(made, workers=1).to_dict()}
    train(TrainConfig.from_dict(values), tmp_path / "out")
    _, metadata, _ = read_adapter(tmp_path / "out" / "export" / "dv2-mini-adapter.safetensors")
    assert metadata["training.data"].startswith("4 clips (1 more held out")


def test_the_range_of_boxes_is_that_of_the_clips_and_not_of_their_rarest_frame() -> None:
    masks = torch.zeros(100, 4, 20, 40)  # a canvas of aspect 2
    masks[:, :, 5:15, 10:20] = 1.0  # an eighth of the canvas, standing still
    masks[1:, 2:, 5:15, 10:20] = 0.0
    masks[1:, 2:, 5:15, 14:24] = 1.0  # 4 of 20 pixels in one frame
    masks[0] = 1.0  # one clip in a hundred fills everything

    class Fixed:
        def batch(self, step: int) -> Any:
            return SimpleNamespace(masks=masks.flatten(0, 1)[:, None])

    assert box_range(cast(Any, Fixed()), 4, clips=100) == {
        "fastest": 0.2,
        "area": [0.125, pytest.approx(0.125, abs=0.02)],
    }


def test_clips_without_their_subject_have_no_range_of_boxes() -> None:
    class Empty:
        def batch(self, step: int) -> Any:
            return SimpleNamespace(masks=torch.zeros(8, 1, 4, 4))

    assert box_range(cast(Any, Empty()), 4, clips=2) == {}
