"""Base files as they are published, written by the reference implementations' own code at narrow width."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dv2_core.checkpoints import file_of, may_be_base, name_of, original_to_diffusers, read_base
from dv2_core.checkpoints.base_file import WANTED
from dv2_core.model import UNet3D, UNet3DConfig, fingerprint
from tests.oracles.public import SMALL, TINY, diffusers_unet, modelscope_unet, randomise


@pytest.fixture(scope="module")
def modelscope() -> nn.Module:
    """ModelScope's own network; its numbers all exist in fp16, so that its files in both precisions are the same."""
    model = randomise(modelscope_unet(TINY))
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model


@pytest.fixture(scope="module")
def diffusers(modelscope: nn.Module) -> Any:
    model = diffusers_unet(TINY)
    model.load_state_dict(original_to_diffusers(modelscope.state_dict(), TINY), strict=True)
    return model


def half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.half() for k, v in weights.items()}


ORIGINAL: dict[str, Callable[[nn.Module, Path], Any]] = {
    "ModelScope, fp32": lambda model, path: torch.save(model.state_dict(), path),
    "ModelScope and ZeroScope, fp16": lambda model, path: torch.save(half(model.state_dict()), path),
    "VGen, parallel training": lambda model, path: torch.save(
        {"state_dict": nn.DataParallel(model).state_dict(), "step": 632000}, path
    ),
    "merged checkpoint": lambda model, path: save_file(
        {f"model.diffusion_model.{k}": v for k, v in half(model.state_dict()).items()}
        | {"first_stage_model.decoder.conv_in.weight": torch.zeros(4, 4, 3, 3)},
        path,
    ),
}


@pytest.mark.parametrize("kind", ORIGINAL)
def test_every_original_layout_is_recognised_with_its_sizes_and_one_fingerprint(
    kind: str, modelscope: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "text2video_pytorch_model.pth"
    ORIGINAL[kind](modelscope, path)
    assert may_be_base(path)
    base = read_base(path)
    assert base.layout == "original" and base.config == TINY and base.prediction == ""
    assert len(base.weights) == 1480
    assert all(torch.equal(base.weights[k].float(), v) for k, v in modelscope.state_dict().items())
    assert fingerprint(base.weights) == fingerprint(modelscope.state_dict())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (dict(safe_serialization=False), "diffusion_pytorch_model.bin"),
        (dict(safe_serialization=False, variant="fp16"), "diffusion_pytorch_model.fp16.bin"),
        (dict(), "diffusion_pytorch_model.safetensors"),
        (dict(variant="fp16"), "diffusion_pytorch_model.fp16.safetensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_file_of_diffusers_is_recognised_as_a_file_and_as_a_folder(
    options: dict[str, Any], name: str, diffusers: Any, modelscope: nn.Module, tmp_path: Path
) -> None:
    pipeline = tmp_path / "zeroscope_v2_576w"
    model = diffusers.half() if "variant" in options else diffusers.float()
    model.save_pretrained(pipeline / "unet", **options)
    path = pipeline / "unet" / name
    assert file_of(pipeline) == file_of(pipeline / "unet") == path
    assert may_be_base(path)
    base = read_base(pipeline)
    assert base.name == f"zeroscope_v2_576w/unet/{name}"
    assert base.layout == "diffusers" and base.config == TINY
    assert all(torch.equal(base.weights[k].float(), v) for k, v in modelscope.state_dict().items())
    assert fingerprint(base.weights) == fingerprint(modelscope.state_dict())


def test_the_full_size_is_told_from_the_shapes_of_both_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dv2_core.checkpoints import base_file

    full = UNet3DConfig.modelscope()
    ours = UNet3D(full, device="meta").half().state_dict()
    for weights in (ours, original_to_diffusers(ours, full)):
        monkeypatch.setattr(base_file, "open_weights", lambda *_, weights=weights: (weights, {}))
        base = base_file.open_base(tmp_path / "any.pth")
        assert base.config == full and list(base.weights) == list(ours)


def test_files_that_are_all_called_the_same_are_named_with_their_folder() -> None:
    root = Path("/models")
    assert name_of(root / "zs2_576w" / "text2video_pytorch_model.pth") == "zs2_576w/text2video_pytorch_model.pth"
    assert name_of(root / "ms" / "unet" / "diffusion_pytorch_model.bin") == "ms/unet/diffusion_pytorch_model.bin"
    assert name_of(root / "model_scope_v1-5_0632000.pth") == "model_scope_v1-5_0632000.pth"


def shapes(**named: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in named.items()}


def image_unet(width: int, prefix: str = "model.diffusion_model.") -> dict[str, torch.Tensor]:
    return {
        f"{prefix}input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3),
        f"{prefix}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, width),
        "first_stage_model.decoder.conv_in.weight": torch.zeros(4, 4, 3, 3),
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.zeros(4),
    }


STACK = "input_blocks.1.0.time_stack.in_layers.0.weight"
OTHERS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "SD 1.5": (image_unet(768), "looks like an image UNet (Stable Diffusion 1.x)"),
    "SD 2.1": (image_unet(1024, ""), "looks like an image UNet (Stable Diffusion 2.x)"),
    "SDXL": (image_unet(2048), "looks like an image UNet (SDXL)"),
    "diffusers SD 1.5": (
        shapes(conv_in__weight=(8, 4, 3, 3), down_blocks__0__resnets__0__conv1__weight=(8, 8, 3, 3))
        | {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, 768)},
        "looks like an image UNet (Stable Diffusion 1.x)",
    ),
    "SVD": (image_unet(1024) | {f"model.diffusion_model.{STACK}": torch.zeros(4)}, "looks like Stable Video Diffusion"),
    "Wan": (shapes(patch_embedding__weight=(8, 4, 1, 2, 2), blocks__0__self_attn__q__weight=(8, 8)), "looks like Wan"),
    "Wan in a checkpoint": (
        {"model.diffusion_model.blocks.0.self_attn.q.weight": torch.zeros(4, 4)},
        "looks like Wan",
    ),
    "LoRA": (shapes(lora_unet_input_blocks_1_1_proj_in__lora_down__weight=(4, 4)), "looks like a LoRA"),
    "diffusers LoRA": (
        {"unet.down_blocks.0.temp_attentions.0.proj_in.lora.down.weight": torch.zeros(4, 4)},
        "looks like a LoRA",
    ),
    "AnimateDiff": (
        {"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": torch.zeros(4)},
        "looks like an AnimateDiff motion module",
    ),
    "a part": ({"input_blocks.2.0.temopral_conv.conv1.0.weight": torch.zeros(4)}, "has only a part of such a UNet"),
    "Flux": ({"double_blocks.0.img_attn.qkv.weight": torch.zeros(4)}, "looks like a Flux or HunyuanVideo"),
    "text encoder": ({"transformer.resblocks.0.ln_1.weight": torch.zeros(4)}, "looks like a text encoder"),
    "VAE": ({"decoder.conv_in.weight": torch.zeros(4)}, "looks like a VAE"),
    "anything": ({"fc.weight": torch.zeros(4)}, "starts with 'fc.weight'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_another_model_is_named_and_the_sentence_says_what_belongs_here(kind: str, tmp_path: Path) -> None:
    weights, clause = OTHERS[kind]
    save_file(weights, tmp_path / "other.safetensors")
    assert may_be_base(tmp_path / "other.safetensors") == (kind == "a part")
    with pytest.raises(ValueError) as refusal:
        read_base(tmp_path / "other.safetensors")
    expected = f"other.safetensors is not a ModelScope text-to-video UNet: it {clause}"
    assert str(refusal.value).startswith(expected) and str(refusal.value).endswith(WANTED)


def test_a_missing_a_strange_and_a_misshapen_tensor_are_named(modelscope: nn.Module, tmp_path: Path) -> None:
    weights, path = half(modelscope.state_dict()), tmp_path / "w.pth"
    torch.save({k: v for k, v in weights.items() if k != "out.2.bias"}, path)
    with pytest.raises(ValueError, match=r"has 1479 tensors where this UNet has 1480: 'out.2.bias' is missing"):
        read_base(path)
    torch.save(weights | {"fps_embedding.0.weight": torch.zeros(4)}, path)
    with pytest.raises(ValueError, match=r"has 1481 tensors.*'fps_embedding.0.weight' is none of them"):
        read_base(path)
    torch.save(weights | {"time_embed.0.bias": torch.zeros(4, dtype=torch.float16)}, path)
    with pytest.raises(ValueError, match=r"'time_embed.0.bias' has shape \[4\]"):
        read_base(path)
    diffusers = original_to_diffusers(weights, TINY)
    torch.save(diffusers | {"fps_embedding.linear_1.weight": torch.zeros(4)}, path)
    with pytest.raises(ValueError, match=r"w.pth is not a whole base: 'fps_embedding.linear_1.weight' is no parameter"):
        read_base(path)


def test_a_folder_without_a_unet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    with pytest.raises(ValueError, match=r"holds no UNet: none of diffusion_pytorch_model.safetensors"):
        read_base(tmp_path)
    with pytest.raises(ValueError, match="There is no file 'absent.pth'"):
        read_base(tmp_path / "absent.pth")


def test_a_training_starts_from_the_folder_of_a_pipeline(tmp_path: Path) -> None:
    from dv2_core.train import files

    weights = randomise(UNet3D(SMALL), seed=4).state_dict()
    (tmp_path / "pipeline" / "unet").mkdir(parents=True)
    layout = {k: v.contiguous() for k, v in original_to_diffusers(weights, SMALL).items()}
    torch.save(layout, tmp_path / "pipeline" / "unet" / "diffusion_pytorch_model.bin")
    config = SimpleNamespace(init=str(tmp_path / "pipeline"), unet=SMALL)
    model: Any = SimpleNamespace(config=config, base=UNet3D(SMALL), adapter=None, text=None)
    assert files.load_initial(model) == fingerprint(weights)
    assert all(torch.equal(v, weights[k]) for k, v in model.base.state_dict().items())
