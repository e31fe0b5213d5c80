"""The adapter file: what is written is what is read, and what cannot be used is refused with a sentence."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dv2_core.model import Adapter, AdapterConfig, UNet3D, UNet3DConfig, fingerprint, read_adapter, save_adapter
from tests.oracles.public import SMALL, randomise

CONFIG = AdapterConfig(
    unet=SMALL,
    encoder_channels=(8, 8, 16, 32),
    encoder_heads=2,
    lambda_m=0.5,
    ref_timestep="video",
    ref_uncond="drop",
    prediction="v",
    steps=30,
    cfg=2.5,
    trained=(8, 64, 64, 8),
)


def write(path: Path, config: AdapterConfig = CONFIG, dtype: torch.dtype = torch.float32) -> Adapter:
    adapter = randomise(Adapter(config), seed=9)
    assert isinstance(adapter, Adapter)
    save_adapter(adapter, path, dtype, "abc", {"license": "Apache-2.0", "training.step": "120"})
    return adapter


def rewrite(path: Path, weights: Any = None, drop: tuple[str, ...] = (), **metadata: str) -> None:
    """Write the file again with other weights or metadata."""
    with safe_open(path, framework="pt") as file:
        kept = {k: v for k, v in (file.metadata() or {}).items() if k not in drop} | metadata
    save_file(load_file(path) if weights is None else weights, path, metadata=kept)


def rewrite_settings(path: Path, **settings: Any) -> None:
    rewrite(path, **{"dreamvideo2.config": json.dumps(CONFIG.to_dict() | settings)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_written_adapter_is_read_back_bit_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    adapter = write(tmp_path / "a.safetensors", dtype=dtype)
    config, metadata, weights = read_adapter(tmp_path / "a.safetensors")
    assert config == CONFIG
    other = Adapter(config)
    other.load_file_state_dict(weights)
    loaded = other.state_dict()
    assert loaded.keys() == adapter.state_dict().keys()
    assert all(torch.equal(loaded[k], v.to(dtype).float()) for k, v in adapter.state_dict().items())


def test_metadata_states_format_config_base_and_what_the_trainer_adds(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors")
    _, metadata, _ = read_adapter(tmp_path / "a.safetensors")
    settings = json.loads(metadata.pop("dreamvideo2.config"))
    assert metadata == {
        "format": "dreamvideo2-adapter",
        "format_version": "1",
        "modelspec.architecture": "modelscope-t2v/dreamvideo2",
        "base_model.fingerprint": "abc",
        "license": "Apache-2.0",
        "training.step": "120",
    }
    assert settings.keys() == {field.name for field in dataclasses.fields(AdapterConfig)}
    assert settings["unet"] == json.loads(json.dumps(SMALL.to_dict()))
    assert settings["ref_timestep"] == "video" and settings["lambda_m"] == 0.5 and settings["prediction"] == "v"


@pytest.mark.parametrize("component", ["ref", "motion"])
def test_each_component_is_saved_and_loaded_alone(component: str, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, components=(component,))
    adapter = write(tmp_path / "a.safetensors", config)
    read, _, weights = read_adapter(tmp_path / "a.safetensors")
    assert read.components == (component,)
    prefixes = {key.split(".")[0] for key in weights}
    assert prefixes == ({"ref"} if component == "ref" else {"motion", "controlnet"})
    other = Adapter(read)
    other.load_file_state_dict(weights)
    assert (other.ref is None) == (component == "motion") and (other.motion is None) == (component == "ref")
    assert all(torch.equal(other.state_dict()[k], v) for k, v in adapter.state_dict().items())


def test_full_size_file_has_the_documented_names() -> None:
    names = Adapter(AdapterConfig(), device="meta").file_state_dict()
    assert {
        "ref.input_blocks.1.attn1.to_q.weight",
        "ref.middle_block.1.attn1.to_q.weight",
        "ref.output_blocks.11.attn2.to_out.weight",
        "motion.encoder.conv.0.weight",
        "motion.encoder.temporal.1.attn.to_q.weight",
        "motion.encoder.out.weight",
        "controlnet.zero_convs.0.0.weight",
        "controlnet.middle_block_out.0.weight",
        "controlnet.input_blocks.3.0.op.weight",
    } <= names.keys()
    assert {name.split(".")[0] for name in names} == {"ref", "motion", "controlnet"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lambda_n": 0.5}, r"unknown adapter setting \['lambda_n'\]"),
        ({"unet": {"heads": 8}}, r"unknown UNet setting \['heads'\]"),
        ({"ref_timestep": "noisy"}, r"ref_timestep is 'noisy'; it must be one of \('zero', 'video'\)"),
        ({"prediction": "x0"}, r"prediction is 'x0'; it must be one of \('eps', 'v', 'v_zsnr', 'v_cosine_zsnr'\)"),
        ({"components": ["ref", "camera"]}, r"components is \('ref', 'camera'\)"),
        ({"components": []}, r"components is \(\)"),
        ({"ref_head_dim": 48}, r"ref_head_dim is 48; it must divide every transformer width .* \[32, 64\]"),
        ({"ref_head_dim": -8}, "ref_head_dim is -8"),
        ({"lambda_m": 1.5}, r"lambda_m is 1\.5"),
        ({"lambda_m": "much"}, "cannot be used"),
        ({"encoder_channels": [8, 16]}, r"encoder_channels is \(8, 16\); it must be four widths"),
        ({"unet": None}, "cannot be used"),
    ],
)
def test_a_setting_that_is_not_understood_is_refused_by_name(
    settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    write(path)
    rewrite_settings(path, **settings)
    with pytest.raises(ValueError, match=sentence) as error:
        read_adapter(path)
    assert "a.safetensors" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"ref"'])
def test_settings_that_are_no_json_object_are_refused_with_a_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path)
    rewrite(path, **{"dreamvideo2.config": text})
    with pytest.raises(ValueError, match="the settings in the metadata of a.safetensors cannot be used"):
        read_adapter(path)


def test_a_setting_that_is_missing_takes_its_documented_default(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path)
    rewrite(path, **{"dreamvideo2.config": json.dumps({"unet": SMALL.to_dict()})})
    assert read_adapter(path)[0] == AdapterConfig(unet=SMALL)


def test_another_version_of_the_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path)
    rewrite(path, format_version="2")
    with pytest.raises(ValueError, match="a.safetensors has version '2' of the adapter format.*Update the pack"):
        read_adapter(path)


def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="lora.safetensors is not a DreamVideo-2 adapter"):
        read_adapter(path)


def test_files_that_are_no_safetensors_are_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path)
    whole = path.read_bytes()
    pickled = tmp_path / "b.pt"
    torch.save({"x": torch.zeros(1)}, pickled)
    for content in (b"a text file renamed to safetensors\n" * 20, b"", whole[: len(whole) // 2], pickled.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a.safetensors cannot be read as a safetensors adapter"):
            read_adapter(path)
    with pytest.raises(ValueError, match="missing.safetensors cannot be read"):
        read_adapter(tmp_path / "missing.safetensors")
    with pytest.raises(ValueError, match="cannot be read"):
        read_adapter(tmp_path)


def test_missing_unexpected_and_misshapen_weights_are_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write(path)
    _, _, weights = read_adapter(path)
    name = "ref.middle_block.1.attn1.to_q.weight"
    adapter = Adapter(CONFIG)
    before = {k: v.clone() for k, v in adapter.state_dict().items()}
    for changed, sentence in (
        ({k: v for k, v in weights.items() if k != name}, f"1 missing .*{name}"),
        (weights | {"ref.extra": torch.zeros(1)}, "1 unexpected .*ref.extra"),
        (weights | {name: torch.zeros(3, 3)}, f"1 of another shape .*{name}"),
        ({}, "missing"),
    ):
        with pytest.raises(ValueError, match=sentence):
            adapter.load_file_state_dict(changed)
    assert all(torch.equal(before[k], v) for k, v in adapter.state_dict().items())


def test_the_fingerprint_is_the_same_for_the_fp32_and_the_fp16_file_of_the_same_weights() -> None:
    full = randomise(UNet3D(SMALL)).state_dict()
    half = {k: v.half() for k, v in full.items()}
    assert fingerprint(full) == fingerprint(half)
    assert fingerprint({k: half[k] for k in reversed(list(half))}) == fingerprint(full)  # no matter in which order


def test_the_fingerprint_differs_between_weights_and_between_shapes() -> None:
    first, second = randomise(UNet3D(SMALL), seed=0).state_dict(), randomise(UNet3D(SMALL), seed=1).state_dict()
    other = UNet3D(dataclasses.replace(SMALL, context_dim=64)).state_dict()
    assert len({fingerprint(weights) for weights in (first, second, other)}) == 3


def test_the_default_settings_are_those_of_the_paper_at_full_size() -> None:
    config = AdapterConfig()
    assert config.unet == UNet3DConfig.modelscope()
    assert (config.lambda_m, config.lambda_l, config.steps, config.cfg) == (0.75, 2.0, 50, 9.0)
    assert config.trained == (16, 448, 256, 8) and config.ref_timestep == "zero"
