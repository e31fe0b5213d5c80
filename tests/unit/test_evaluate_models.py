"""The networks behind the metrics give what the libraries' own way of calling them gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dv2_core.evaluate import models
from dv2_core.evaluate.models import CLIP_MEAN, CLIP_STD, DINO, Clip, Dino, Flow, WordFinder, model_folder, prepare
from dv2_core.evaluate.similarity import subject_similarity, text_similarity
from dv2_core.segment import Detector
from tests.tiny_features import SIDE, save_clip, save_dino
from tests.tiny_segment import moving_blob, save_grounding_dino

PROMPTS = ["a dog runs on the beach", "a cat"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    save_clip(root / "clip")
    save_dino(root / "dino")
    return root


@pytest.fixture(scope="module")
def clip(folders: Path) -> Clip:
    return Clip.load(folders / "clip")


@pytest.fixture(scope="module")
def dino(folders: Path) -> Dino:
    return Dino.load(folders / "dino")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Noise, so that every pixel of the preparation counts: uint8 [3, 40, 64, 3]."""
    return np.random.default_rng(0).integers(0, 256, (3, 40, 64, 3), dtype=np.uint8)


# --- pictures and prompts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (33, 90), (20, 20), (7, 300)])
def test_pictures_are_prepared_as_in_the_authors_earlier_code(size: tuple[int, int]) -> None:
    import torchvision.transforms as T

    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    theirs = T.Compose([
        T.Resize(36, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(32), T.ToTensor(),
        T.Normalize(models.MEAN, models.STD),
    ])  # fmt: skip
    expected = theirs(Image.fromarray(picture))
    assert torch.allclose(prepare(picture, 36, 32, models.MEAN, models.STD), expected, atol=1e-5)


def test_clips_pictures_are_those_of_the_librarys_image_processor(frames: np.ndarray) -> None:
    import transformers as tf

    processor = tf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    expected = processor(images=list(frames[:, :, :62]), return_tensors="pt")["pixel_values"]
    found = torch.stack([prepare(frame, SIDE, SIDE, CLIP_MEAN, CLIP_STD) for frame in frames[:, :, :62]])
    assert torch.allclose(found, expected, atol=1e-5)


def test_clip_t_is_that_of_the_librarys_own_logits(clip: Clip, frames: np.ndarray) -> None:
    pixels = torch.stack([clip.prepared(frame) for frame in frames])
    words = clip.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = clip.network(pixel_values=pixels, **words)
    expected = (out.logits_per_text / clip.network.logit_scale.exp()).mean(1)  # [prompts]
    found = [text_similarity(clip.pictures(frames), clip.text(prompt)) for prompt in PROMPTS]
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    assert abs(found[0] - found[1]) > 1e-3


def test_clip_t_is_that_of_torchmetrics(clip: Clip, frames: np.ndarray) -> None:
    """From the pixels on: with its preparation, its forward pass and its mean, on the same checkpoint."""
    import transformers as tf
    from torchmetrics.multimodal import CLIPScore

    pictures = frames[:, :, :62]
    images = tf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = tf.CLIPProcessor(images, clip.tokenizer)
    for prompt in PROMPTS:
        score = CLIPScore(lambda: (clip.network, processor))
        expected = score([torch.from_numpy(frame).movedim(-1, 0) for frame in pictures], [prompt] * len(pictures)) / 100
        assert text_similarity(clip.pictures(pictures), clip.text(prompt)) == pytest.approx(float(expected), abs=1e-5)
        assert 0.01 < float(expected) < 0.99  # it cuts what is negative off


def test_dinos_embedding_is_the_class_token(dino: Dino, frames: np.ndarray) -> None:
    pixels = torch.stack([dino.prepared(frame) for frame in frames])
    with torch.no_grad():
        expected = dino.network(pixels).last_hidden_state[:, 0].numpy()
    assert dino.pictures(frames) == pytest.approx(expected, abs=1e-5)
    assert subject_similarity(dino.pictures(frames[:1]), dino.pictures(frames[:1])) == pytest.approx(1)
    assert subject_similarity(dino.pictures(frames), dino.pictures(255 - frames)) < 0.99


def test_pictures_of_many_sizes_in_one_pass_or_one_by_one_give_the_same(clip: Clip, frames: np.ndarray) -> None:
    pictures = [frames[0], frames[1, :20, :10], frames[2, 5:6, 5:6]]
    told: list[tuple[int, int]] = []
    alone = clip.pictures(pictures, batch=1, progress=lambda done, total: told.append((done, total)))
    assert clip.pictures(pictures) == pytest.approx(alone, abs=1e-5)
    assert told == [(1, 3), (2, 3), (3, 3)] and clip.pictures([]).shape == (0, 0)


def test_a_prompt_longer_than_the_network_reads_is_cut(clip: Clip) -> None:
    assert clip.text("x" * 100) == pytest.approx(clip.text("x" * 200))


def test_weights_in_a_torch_file_are_those_of_the_safetensors_file(folders: Path, dino: Dino, tmp_path: Path) -> None:
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "config.json").write_bytes((folders / "dino" / "config.json").read_bytes())
    torch.save(dino.network.state_dict(), folder / "pytorch_model.bin")
    loaded = Dino.load(folder)
    for name, tensor in dino.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)


def test_a_torch_file_with_code_in_it_is_refused(folders: Path, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return print, ("run",)

    (tmp_path / "config.json").write_bytes((folders / "dino" / "config.json").read_bytes())
    torch.save({"a": Code()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        Dino.load(tmp_path)


# --- where models come from -------------------------------------------------------------------------------------------


def test_only_a_name_that_begins_with_hub_is_fetched(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, sorted(allow_patterns)))
        return str(folders / "dino")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(ValueError, match="There is no DINO model in facebook/dino-vits16"):
        Dino.load("facebook/dino-vits16")
    assert not asked
    assert model_folder(DINO, "hub:facebook/dino-vits16") == folders / "dino"
    assert asked == [("facebook/dino-vits16", ["config.json", "model.safetensors", "model.safetensors.index.json"])]


def test_the_torch_file_is_fetched_only_where_there_is_no_safetensors_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    asked: list[bool] = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append("pytorch_model.bin" in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    model_folder(DINO, "hub:a/b")
    assert asked == [False, True]


@pytest.mark.parametrize("name", ["hub:", "hub:dino", "hub:a/b/c", "hub:a/b?x"])
def test_a_name_that_is_none_of_the_hub_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of the hub"):
        model_folder(DINO, name)


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fetch(*_: Any, **__: Any) -> str:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(ValueError, match=r"could not be fetched from the hub \(no route\)"):
        model_folder(DINO, "hub:a/b")


# --- flow and detection -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raft(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    network = raft_small().eval()
    file = tmp_path_factory.mktemp("raft") / "raft.safetensors"
    save_file(network.state_dict(), file)
    return network, file


def test_flow_is_torchvisions_on_frames_with_repeated_edges(
    raft: tuple[Any, Path], frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "RAFT_UPDATES", 2)
    network, file = raft
    padded = np.pad(frames[:2], ((0, 0), (44, 44), (32, 32), (0, 0)), mode="edge")  # 40 x 64 -> 128 x 128
    first, second = torch.from_numpy(padded).permute(0, 3, 1, 2)[:, None].float() / 127.5 - 1
    with torch.no_grad():
        expected = network(first, second, num_flow_updates=2)[-1][0, :, 44:84, 32:96].numpy()
    found = Flow.load(file).steps(frames[:2])
    assert found.shape == (1, 2, 40, 64) and found[0] == pytest.approx(expected, abs=1e-3)
    assert np.abs(found).max() > 1e-2


def test_a_file_that_is_no_raft_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no file"):
        Flow.load(tmp_path / "nowhere.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no weights of raft_large or raft_small"):
        Flow.load(tmp_path / "other.safetensors")


def test_the_best_box_of_the_word_counts_and_none_above_the_threshold_is_a_miss(tmp_path: Path) -> None:
    save_grounding_dino(tmp_path / "dino")
    detector = Detector.load(tmp_path / "dino")
    video = moving_blob(3, 48, 64)
    found = WordFinder(detector, "dog", 0.0).boxes(video.permute(0, 3, 1, 2))
    expected = [candidates[0].box for candidates in detector.detect(video, ["dog"] * 3, 0.0)]
    assert found == pytest.approx(np.array(expected))
    assert np.isnan(WordFinder(detector, "dog", 1.0).boxes(video.permute(0, 3, 1, 2))).all()
