"""The converter: both ways, to the bit, in pieces; diffusers itself loads what comes out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from dv2_core.__main__ import main
from dv2_core.checkpoints import convert, converter, read_base
from dv2_core.model import UNet3D, fingerprint
from tests.oracles.public import SMALL, TINY, diffusers_unet, modelscope_unet, noise, randomise, relative_error


@pytest.fixture(scope="module")
def modelscope() -> nn.Module:
    return randomise(modelscope_unet(TINY), seed=6)


@pytest.fixture(scope="module")
def published(modelscope: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "text2video_pytorch_model.pth"
    torch.save(modelscope.state_dict(), path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A base of two levels, in fp32, with its sizes in the metadata."""
    weights = randomise(UNet3D(SMALL), seed=3).state_dict()
    metadata = {"dreamvideo2.unet": json.dumps(SMALL.to_dict()), "dreamvideo2.prediction": "v", "license": "CC0"}
    save_file(weights, tmp_path / "small.safetensors", metadata=metadata)
    return tmp_path / "small.safetensors", weights


def notes(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@torch.no_grad()
def test_diffusers_loads_a_converted_folder_and_computes_what_modelscope_computes(
    published: Path, modelscope: nn.Module, tmp_path: Path
) -> None:
    from diffusers import UNet3DConditionModel

    folder = tmp_path / "unet"
    said = convert(published, folder, "diffusers")
    assert "1480 tensors, original -> diffusers names, F32" in said
    theirs: Any = UNet3DConditionModel.from_pretrained(folder).eval()
    given = (rearrange(noise(4, 4, 8, 8), "(b f) c h w -> b c f h w", f=2), torch.tensor([37.0, 801.0]))
    text = noise(2, 7, TINY.context_dim, seed=2)
    assert relative_error(theirs(*given, text).sample, modelscope(*given, text)) <= 1e-5
    ours, expected = json.loads((folder / "config.json").read_text()), diffusers_unet(TINY).config
    assert ours.pop("_class_name") == "UNet3DConditionModel"
    assert ours.pop("sample_size") == 32  # of the published folders; the network itself does not ask
    assert ours == {k: list(v) if isinstance(v, (list, tuple)) else v for k, v in expected.items() if k in ours}
    back = tmp_path / "back.safetensors"
    convert(folder, back, "original")
    original = modelscope.state_dict()
    weights = load_file(back)
    assert weights.keys() == original.keys() and all(torch.equal(weights[k], v) for k, v in original.items())


def test_precisions_keep_the_fingerprint_from_fp32_to_fp16(published: Path, tmp_path: Path) -> None:
    convert(published, tmp_path / "half.safetensors", "original", torch.float16)
    full, half = read_base(published), read_base(tmp_path / "half.safetensors")
    assert {v.dtype for v in half.weights.values()} == {torch.float16}
    assert fingerprint(half.weights) == fingerprint(full.weights)
    assert notes(tmp_path / "half.safetensors")["dreamvideo2.fingerprint"] == fingerprint(full.weights)
    assert all(torch.equal(half.weights[k], v.half()) for k, v in full.weights.items())


def test_metadata_travel_and_the_prediction_can_be_noted(small: Any, tmp_path: Path) -> None:
    path, weights = small
    convert(path, tmp_path / "a.safetensors", "original", torch.bfloat16)
    found = notes(tmp_path / "a.safetensors")
    assert found["license"] == "CC0" and found["dreamvideo2.prediction"] == "v"
    assert found["format"] == "dreamvideo2-base" and found["dreamvideo2.converted_from"] == "small.safetensors"
    base = read_base(tmp_path / "a.safetensors")
    assert base.config == SMALL and all(torch.equal(base.weights[k], v.bfloat16()) for k, v in weights.items())
    convert(path, tmp_path / "b.safetensors", "original", prediction="v_cosine_zsnr")
    assert read_base(tmp_path / "b.safetensors").prediction == "v_cosine_zsnr"


def test_the_source_is_opened_anew_for_every_piece_and_the_pieces_are_the_whole(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    original = converter.open_base
    monkeypatch.setattr(converter, "open_base", lambda *given: opened.append(1) or original(*given))
    path, weights = small
    convert(path, tmp_path / "one.safetensors", "original")
    assert len(opened) == 1
    monkeypatch.setattr(converter, "_GROUP", sum(v.nbytes for v in weights.values()) // 4)
    convert(path, tmp_path / "many.safetensors", "original")
    assert len(opened) - 1 >= 4
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "many.safetensors").read_bytes()


def test_a_number_too_large_for_fp16_is_refused_and_nothing_is_left(small: Any, tmp_path: Path) -> None:
    path, weights = small
    metadata = notes(path)
    save_file({**weights, "out.2.bias": weights["out.2.bias"] + 1e6}, path, metadata=metadata)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="'out.2.bias' has numbers too large for torch.float16; convert to bf16"):
        convert(path, tmp_path / "half.safetensors", "original", torch.float16)
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_overwritten_and_names_that_do_not_fit_are_refused(small: Any, tmp_path: Path) -> None:
    path, _ = small
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is already there, and nothing is overwritten"):
        convert(path, path, "original")
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="'x.pth' is no name for a safetensors file"):
        convert(path, tmp_path / "x.pth", "diffusers")
    with pytest.raises(ValueError, match="'folder' is no name for a safetensors file"):
        convert(path, tmp_path / "folder", "original")
    with pytest.raises(ValueError, match="exists in the original names only"):
        convert(path, tmp_path / "d.safetensors", "diffusers")
    assert sorted(tmp_path.iterdir()) == [path]


def test_the_command_converts_and_says_what_it_wrote(
    small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, weights = small
    target = tmp_path / "new" / "half.safetensors"
    main(["convert", str(path), str(target), "--to", "original", "--dtype", "fp16", "--prediction", "eps"])
    assert "original -> original names, F16" in capsys.readouterr().out
    base = read_base(target)
    assert base.prediction == "eps" and len(base.weights) == len(weights)
    with pytest.raises(SystemExit, match="There is no file 'absent.pth'"):
        main(["convert", str(tmp_path / "absent.pth"), str(tmp_path / "x.safetensors"), "--to", "original"])
