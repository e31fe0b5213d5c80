"""The parts of curation: settings, words, captions, salient objects, workers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dv2_core.curate.captioner import Captioner
from dv2_core.curate.cluster import ClipWorker, packed, split_videos
from dv2_core.curate.command import summary
from dv2_core.curate.config import CurateConfig, read_toml
from dv2_core.curate.matte import MatteSegmenter, pieces
from dv2_core.curate.run import curate, listed
from dv2_core.curate.words import subject_word
from dv2_core.segment import Prompt
from tests.curation import NAMES, rows_of, run, settings, write_folder

# --- settings ---------------------------------------------------------------------------------------------------------


def config_of(folder: Path, text: str) -> CurateConfig:
    (folder / "own.toml").write_text(text)
    return CurateConfig.load(folder / "own.toml")


def test_a_config_extends_a_preset_table_by_table(tmp_path: Path) -> None:
    config = config_of(tmp_path, 'extends = "strict"\nsource = "x"\n[models]\ntracker = "t"\n[size]\narea = [0, 0.5]\n')
    assert config.skip == () and config.size.area == (0, 0.5) and config.size.width == (0.05, 0.9)
    assert (config.models.tracker, config.models.detector) == ("t", "IDEA-Research/grounding-dino-tiny")
    assert CurateConfig.load("some/folder").source == "some/folder"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sauce = 1", r"unknown setting \['sauce'\] in the curation config; known are"),
        ('source = "x"\n[motion]\niou = 1', r"unknown setting \['iou'\] in motion; known are \['overlap'\]"),
        ('source = "x"\nsize = 3', "size is 3; it must be a table"),
        ('source = "x"\n[motion]\noverlap = "much"', "overlap is 'much' in motion; it must be a number"),
        ('source = "x"\nbatch = true', "batch is True in the curation config; it must be a whole number"),
        ('source = "x"\nbatch = 0', "batch is 0; it must be 1 or more"),
        ('source = "x"\nkind = "vhs"', "kind is 'vhs' in the curation config; it must be one of"),
        ('source = "x"\n[size]\narea = [0.1]', "area is .* it must be a list of 2"),
        ('source = "x"\n[size]\narea = [0.9, 0.1]', r"size.area is \[0.9, 0.1\]; give \[least, most\]"),
        ('source = "x"\n[split]\nmin_seconds = 9', "give 0 < min_seconds <= max_seconds"),
        ("batch = 3", "has no source"),
        ("batch = ", "own.toml is not valid TOML"),
        ('extends = "own.toml"', "own.toml extends itself"),
        ('extends = "no"', "give a file beside it, or one of"),
    ],
)
def test_a_setting_that_is_not_one_is_refused_by_name(text: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=part):
        config_of(tmp_path, text)


def test_a_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no config .*none.toml"):
        read_toml(tmp_path / "none.toml")


# --- words ------------------------------------------------------------------------------------------------------------


@dataclass
class Token:
    """What `subject_word` reads of a spaCy token."""

    lemma_: str
    pos_: str = "NOUN"
    dep_: str = "ROOT"
    is_stop: bool = False


def word_of(*heads: Token) -> str:
    return subject_word(SimpleNamespace(noun_chunks=[SimpleNamespace(root=head) for head in heads]), ("view", "video"))


def test_the_subject_is_the_first_noun_that_is_a_word_for_a_thing() -> None:
    assert word_of(Token("view"), Token("Boat", dep_="pobj"), Token("sea", dep_="pobj")) == "boat"
    assert word_of(Token("park"), Token("dog", dep_="nsubj")) == "dog"
    assert (
        word_of(Token("Merida", "PROPN", "nsubj"), Token("it", "PRON"), Token("4k"), Token("x"), Token("cat")) == "cat"
    )
    assert word_of(Token("thing", is_stop=True), Token("video")) == word_of() == ""


def test_a_clip_without_a_word_takes_that_of_its_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def language(text: str) -> Any:
        return SimpleNamespace(noun_chunks=[SimpleNamespace(root=Token(word)) for word in text.split()[1:2]])

    monkeypatch.setattr("dv2_core.curate.tools.Tools.language", staticmethod(language))
    monkeypatch.setattr("dv2_core.curate.tools.Tools.detector", Nothing())
    folder = write_folder(tmp_path / "videos", NAMES[:1], masks=False)
    counts = run(folder, tmp_path / "out")
    assert counts.rejected == {"detect": {"no box": 1}}
    assert f"0 boxes of '{NAMES[0]}' in the first frame" in (tmp_path / "out" / "clips.jsonl").read_text()


class Nothing:
    def detect(self, frames: torch.Tensor, words: Sequence[str], threshold: float) -> list[list[Any]]:
        return [[] for _ in frames]


# --- captions ---------------------------------------------------------------------------------------------------------


def save_blip(folder: Path) -> None:
    """A BLIP of a few thousand random parameters."""
    import transformers as tf

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "runs", "sleeps"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**tower, **ids, "vocab_size": len(words), "encoder_hidden_size": 32, "projection_dim": 32}
    config = tf.BlipConfig(
        text_config={**text, "max_position_embeddings": 32},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
    )
    torch.manual_seed(5)
    tf.BlipForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    tf.BlipProcessor(tf.BlipImageProcessor(size=size), tf.BertTokenizerFast.from_pretrained(folder)).save_pretrained(
        folder
    )


def test_clips_without_a_caption_get_that_of_a_local_model_and_keep_a_given_one(tmp_path: Path) -> None:
    save_blip(tmp_path / "blip")
    folder = write_folder(tmp_path / "videos", NAMES[:3])
    for name in NAMES[:2]:
        (folder / f"{name}.txt").unlink()
    run(folder, tmp_path / "out", models={"captioner": str(tmp_path / "blip")}, caption={"tokens": 6})
    captions = {Path(row.video).stem: row.caption for row in rows_of(tmp_path / "out")}
    assert captions[NAMES[2]] == f"a {NAMES[2]} moving right"
    assert captions[NAMES[0]] and set(captions[NAMES[0]].split()) <= {"a", "dog", "cat", "runs", "sleeps"}
    captioner = Captioner(tmp_path / "blip", torch.device("cpu"))
    frames = [torch.zeros(48, 64, 3), torch.ones(20, 30, 3)]
    assert captioner.captions(frames, "", 6) == [captioner.captions([frame], "", 6)[0] for frame in frames]
    with pytest.raises(ValueError, match="The captioner in .* cannot be loaded"):
        Captioner(tmp_path, torch.device("cpu"))


# --- salient objects --------------------------------------------------------------------------------------------------


@dataclass
class Brightness:
    """An ONNX session whose matte is how bright a picture is."""

    calls: int = 0
    shape: list[int] = field(default_factory=lambda: [1, 3, 64, 64])
    name: str = "in"

    def get_inputs(self) -> list[Any]:
        return [self]

    def get_outputs(self) -> list[Any]:
        return [self]

    def run(self, outputs: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.calls += 1
        assert outputs == ["in"] and given["in"].shape == (1, 3, 64, 64) and given["in"].dtype == np.float32
        return [(given["in"].mean(1, keepdims=True) + 0.5).clip(0, 1)]


@pytest.fixture
def salient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MatteSegmenter:
    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=lambda *_, **__: Brightness())
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", runtime)
    (tmp_path / "net.onnx").write_bytes(b"")
    return MatteSegmenter(tmp_path / "net.onnx")


def scene(*squares: tuple[int, int, int, float]) -> torch.Tensor:
    """A dark picture [64, 64, 3] with bright squares (left, top, side, brightness)."""
    picture = torch.zeros(64, 64, 3)
    for left, top, side, value in squares:
        picture[top : top + side, left : left + side] = value
    return picture


def test_what_stands_out_is_found_with_its_box_and_how_sure_it_is(salient: MatteSegmenter) -> None:
    frames = torch.stack([scene((8, 16, 20, 0.9), (48, 48, 12, 0.8), (60, 2, 2, 1.0)), scene()])
    (large, small), nothing = salient.detect(frames, ["dog"] * 2, 0.5)
    assert large.box == (8 / 64, 16 / 64, 28 / 64, 36 / 64) and large.score == pytest.approx(0.9, abs=0.01)
    assert small.box == (48 / 64, 48 / 64, 60 / 64, 60 / 64) and nothing == []
    assert [one.box for one in salient.detect(frames[:1], ["dog"], 0.85)[0]] == [large.box]
    masks = salient.segment(frames, [Prompt(box=small.box), Prompt(box=small.box)])
    assert masks[0].nonzero().amin(0).tolist() == [48, 48] and int(masks[0].sum()) == 144 and not masks[1].any()


def test_the_marked_piece_is_followed_and_not_a_larger_one(salient: MatteSegmenter) -> None:
    frames = torch.stack([scene((4 + 3 * t, 40, 12, 0.8), (30, 4, 24, 0.9)) for t in range(6)])
    start = salient.segment(frames[:1], [Prompt(box=(4 / 64, 40 / 64, 16 / 64, 52 / 64))])[0]
    masks = salient.track(frames, start.float())
    assert [mask.nonzero().amin(0).tolist() for mask in masks] == [[40, 4 + 3 * t] for t in range(6)]
    assert masks.sum((1, 2)).tolist() == [144] * 6
    assert salient.session.calls == 6  # the first frame is looked at once
    assert not salient.track(torch.zeros(2, 64, 64, 3), start.float()).any()


def test_specks_of_a_matte_are_no_pieces() -> None:
    matte = torch.zeros(20, 20)
    matte[2:12, 2:12], matte[15, 15] = 0.9, 0.9
    ((box, score, mask),) = pieces(matte)
    assert box == (0.1, 0.1, 0.6, 0.6) and score == pytest.approx(0.9) and int(mask.sum()) == 100


@pytest.mark.parametrize(("gap", "found"), [(2, 1), (3, 2)])
def test_pieces_a_sixty_fourth_of_the_picture_apart_are_one(gap: int, found: int) -> None:
    matte = torch.zeros(128, 128)
    matte[20:40, 20:40], matte[20:40, 40 + gap : 60 + gap] = 0.9, 0.9
    assert [int(mask.sum()) for _, _, mask in pieces(matte)] == [800 // found] * found


# --- workers ----------------------------------------------------------------------------------------------------------


def test_what_workers_did_is_taken_as_it_is_and_the_result_is_that_of_one_machine(tmp_path: Path) -> None:
    """The operators of the cluster one after another, each with its own tools, as Ray calls them."""
    folder = write_folder(tmp_path / "videos", NAMES[:3], still=NAMES[2])
    (folder / "broken.mp4").write_bytes(b"no video")
    config = settings(folder, batch=3)
    curate(config, tmp_path / "one")
    given = [{"clips": json.dumps([packed(video) for video in videos])} for videos, _ in listed(config)]
    split = [row for batch in given for row in split_videos(batch, config, tmp_path / "many", {}, Path.cwd())]
    assert [len(json.loads(row["clips"])) for row in split] == [2, 1]  # the broken one is among the first three
    worker = ClipWorker(config, tmp_path / "many", {}, Path.cwd())
    done = [json.loads(worker(row)["tallies"]) for row in split]
    assert [(one["probe"]["clips"], one["motion"]["clips"]) for one in done] == [(3, 2), (1, 1)]
    counts, tallies = curate(config, tmp_path / "many")
    assert tallies == {} and counts.rejected == {"probe": {"broken": 1}, "motion": {"still": 1}}
    for name in ("clips.jsonl", "counts.json", "audit.html"):
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_model_that_is_missing_comes_out_of_a_worker_as_its_sentence(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "videos", NAMES[:1], masks=False)
    (folder / f"{NAMES[0]}.word.txt").write_text("ball")
    config, out = settings(folder), tmp_path / "out"
    ((videos, _),) = listed(config)
    (row,) = split_videos({"clips": json.dumps([packed(video) for video in videos])}, config, out, {}, Path.cwd())
    told = ClipWorker(config, out, {}, Path.cwd())(row)
    assert row["missing"] == "" and told["missing"].startswith("There is no detector, and a clip asks for one;")


def test_the_summary_says_how_fast_each_stage_was_and_why_clips_were_rejected(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "videos", NAMES[:2], still=NAMES[1])
    lines = summary(*curate(settings(folder), tmp_path / "out")).splitlines()
    assert lines[0] == "1 of 2 clips accepted, from 2 videos"
    last = lines[-1].split()
    assert last[:3] == ["motion", "1", "2"] and last[-2:] == ["still", "1"]
    again = summary(*curate(settings(folder), tmp_path / "out")).splitlines()
    assert again[2:] == [f"{'motion':<10}{1:>9}{'':27}  still 1"]
