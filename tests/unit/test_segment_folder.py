"""Model folders: what is missing or wrong is a sentence, nothing is downloaded and no code in them runs."""

import json
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dv2_core.segment import GROUNDING_DINO, SAM2, Detector, Segmenter, VideoSegmenter, check_folder, is_model_folder


@pytest.fixture
def folders(networks: Path, tmp_path: Path) -> Path:
    for name in ("dino", "sam2"):
        shutil.copytree(networks / name, tmp_path / name)
    return tmp_path


def refusal(load: Any, folder: Path) -> str:
    with pytest.raises(ValueError) as error:
        load(folder)
    return str(error.value)


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def test_a_folder_that_is_not_there_is_told_with_files_place_and_publisher(tmp_path: Path) -> None:
    said = refusal(Detector.load, tmp_path / "absent")
    for part in (f"There is no Grounding DINO model in {tmp_path / 'absent'}", "model.safetensors", "tokenizer.json or",
                 "https://huggingface.co/IDEA-Research/grounding-dino-tiny", f"of their own inside {tmp_path}",
                 "Nothing is downloaded"):  # fmt: skip
        assert part in said, said


@pytest.mark.parametrize(
    ("model", "file", "named"),
    [
        ("dino", "config.json", "config.json"),
        ("dino", "model.safetensors", "model.safetensors or model.safetensors.index.json"),
        ("dino", "preprocessor_config.json", "preprocessor_config.json"),
        ("dino", "tokenizer_config.json", "tokenizer_config.json"),
        ("sam2", "config.json", "config.json"),
        ("sam2", "model.safetensors", "model.safetensors"),
    ],
)
def test_every_missing_file_is_named(folders: Path, model: str, file: str, named: str) -> None:
    (folders / model / file).unlink()
    kind = GROUNDING_DINO if model == "dino" else SAM2
    said = refusal(lambda folder: check_folder(kind, folder), folders / model)
    assert f"lacks {named}" in said and str(folders / model) in said


def test_pickled_weights_are_not_taken_in_place_of_safetensors(folders: Path) -> None:
    weights = folders / "sam2" / "model.safetensors"
    torch.save(load_file(weights), folders / "sam2" / "pytorch_model.bin")
    weights.unlink()
    assert "lacks model.safetensors" in refusal(VideoSegmenter.load, folders / "sam2")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"model_type": "sam"}', '{"model_type": ["sam2_video"]}', "[" * 20_000]
)
def test_a_config_of_something_else_is_no_model_and_told(folders: Path, text: str) -> None:
    (folders / "sam2" / "config.json").write_text(text)
    assert not is_model_folder(SAM2, folders / "sam2")
    assert "its model_type should be 'sam2_video'" in refusal(Segmenter.load, folders / "sam2")


def test_damaged_weights_are_told(folders: Path) -> None:
    weights = folders / "sam2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "cannot be loaded" in refusal(VideoSegmenter.load, folders / "sam2")
    weights.write_bytes(b"not safetensors at all")
    assert "cannot be loaded" in refusal(Segmenter.load, folders / "sam2")


def test_weights_that_lack_tensors_are_refused_instead_of_filled_with_noise(folders: Path) -> None:
    path = folders / "sam2" / "model.safetensors"
    kept = {k: v for k, v in load_file(path).items() if not k.startswith("memory_encoder")}
    save_file(kept, path, metadata={"format": "pt"})
    said = refusal(VideoSegmenter.load, folders / "sam2")
    assert "lack" in said and "for example memory_encoder" in said and "of another model" in said
    Segmenter.load(folders / "sam2")  # needs no memory


def test_weights_of_other_shapes_and_configs_of_nonsense_are_told(folders: Path) -> None:
    change_config(folders / "dino", d_model=64)
    assert "cannot be loaded" in refusal(Detector.load, folders / "dino")
    change_config(folders / "sam2", vision_config="nonsense")
    assert "cannot be loaded" in refusal(VideoSegmenter.load, folders / "sam2")


def test_nothing_is_asked_of_the_network_and_no_code_of_a_folder_runs(
    folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refused)
    proof = tmp_path / "ran"
    for name in ("dino", "sam2"):
        (folders / name / "evil.py").write_text(f"open({str(proof)!r}, 'w')\n")
        change_config(folders / name, auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"},
                      attn_implementation="somebody/kernels", use_pretrained_backbone=True)  # fmt: skip
    words = json.loads((folders / "dino" / "tokenizer_config.json").read_text())
    words["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}
    (folders / "dino" / "tokenizer_config.json").write_text(json.dumps(words))
    Detector.load(folders / "dino").detect(torch.rand(1, 32, 32, 3), ["dog"])
    Segmenter.load(folders / "sam2")
    VideoSegmenter.load(folders / "sam2")
    assert not proof.exists()


def test_damaged_words_are_told(folders: Path) -> None:
    (folders / "dino" / "tokenizer.json").write_text("{")
    assert "cannot be read" in refusal(Detector.load, folders / "dino")


def test_a_transformers_without_the_model_is_told_with_the_version_it_needs(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(__version__="4.50.3"))
    said = refusal(VideoSegmenter.load, folders / "sam2")
    assert "transformers 4.50.3 has no Sam2VideoModel" in said and "4.56 or newer" in said
