"""Every published base file, written by the reference implementations' own code at narrow width, in the real folders.

The node has to find it, load it, and compute what the reference computes.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import nn

from tests.oracles.public import TINY, diffusers_unet, modelscope_unet, noise, randomise, relative_error

FRAMES = 3
GIVEN = (noise(2 * FRAMES, 4, 8, 8), torch.tensor([37.0, 801.0]), noise(2, 7, TINY.context_dim, seed=2))


def in_half(model: nn.Module) -> Any:
    """Every parameter random, and a number that fp16 has: then the files in both precisions hold the same."""
    randomise(model, seed=8)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model


@functools.cache
def modelscope() -> Any:
    return in_half(modelscope_unet(TINY))


@functools.cache
def diffusers() -> Any:
    return in_half(diffusers_unet(TINY))


@functools.cache
@torch.no_grad()
def expected(reference: Callable[[], Any]) -> torch.Tensor:
    x, timesteps, text = GIVEN
    out = reference().float()(rearrange(x, "(b f) c h w -> b c f h w", f=FRAMES), timesteps, text)
    return rearrange(out if isinstance(out, torch.Tensor) else out.sample, "b c f h w -> (b f) c h w")


def half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.half() for k, v in weights.items()}


def write_original(path: Path) -> None:
    torch.save(modelscope().state_dict(), path)


def write_zeroscope(path: Path) -> None:
    torch.save(half(modelscope().state_dict()), path)


def write_vgen(path: Path) -> None:
    torch.save({"state_dict": nn.DataParallel(modelscope()).state_dict(), "step": 632000}, path)


def write_merged(path: Path) -> None:
    weights = {f"model.diffusion_model.{k}": v for k, v in half(modelscope().state_dict()).items()}
    save_file({**weights, "first_stage_model.decoder.conv_in.weight": torch.zeros(4, 4, 3, 3)}, path)


def write_bin(path: Path) -> None:
    diffusers().half().save_pretrained(path.parent, safe_serialization=False, variant="fp16")


def write_safetensors(path: Path) -> None:
    diffusers().float().save_pretrained(path.parent)


NAME = "text2video_pytorch_model.pth"
# kind: (place among the models, name in the list, how it is written, whose forward it has to equal)
PUBLISHED: dict[str, tuple[str, str, Callable[[Path], None], Callable[[], Any]]] = {
    "ModelScope fp32": (f"diffusion_models/{NAME}", NAME, write_original, modelscope),
    "ZeroScope of A1111": (f"text2video/zs2/{NAME}", f"text2video/zs2/{NAME}", write_zeroscope, modelscope),
    "VGen": ("unet/model_scope_v1-5.pth", "model_scope_v1-5.pth", write_vgen, modelscope),
    "merged": ("checkpoints/merged.safetensors", "checkpoints/merged.safetensors", write_merged, modelscope),
    "diffusers fp16 .bin": (
        "diffusion_models/zs/unet/diffusion_pytorch_model.fp16.bin", "zs/unet/diffusion_pytorch_model.fp16.bin",
        write_bin, diffusers,
    ),
    "diffusers folder": (
        "diffusers/text-to-video-ms-1.7b/unet/diffusion_pytorch_model.safetensors", "diffusers/text-to-video-ms-1.7b",
        write_safetensors, diffusers,
    ),
}  # fmt: skip


@pytest.fixture
def placed(lab: Any) -> Iterator[Callable[[str], Path]]:
    """Writes a file of that kind where users put it; removed afterwards."""
    made: list[Path] = []

    def place(kind: str) -> Path:
        path = lab.models / PUBLISHED[kind][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        PUBLISHED[kind][2](path)
        made.extend([path, path.with_name("config.json")])
        return path

    yield place
    for path in made:
        path.unlink(missing_ok=True)


def names(lab: Any, number: int = 0) -> list[str]:
    return lab.classes["DV2LoadBase"].define_schema().inputs[number].options


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_file_is_listed_loads_and_equals_its_reference(lab: Any, placed: Any, kind: str) -> None:
    _, name, _, reference = PUBLISHED[kind]
    placed(kind)
    assert name in names(lab)
    loaded = lab.load("auto", name, lab.SD_TEXT, lab.SD_VAE).model.model
    assert len(loaded.diffusion_model.state_dict()) == 1480
    assert loaded.model_type.name == "EPS" and type(loaded.latent_format).__name__ == "SD15"
    x, timesteps, text = GIVEN
    with torch.inference_mode():
        ours = loaded.diffusion_model.float()(x, timesteps, text, num_video_frames=FRAMES)
    assert relative_error(ours, expected(reference)) <= 1e-5
    if reference is modelscope:
        weights = {k: v.float() for k, v in modelscope().state_dict().items()}
        assert loaded.fingerprint == lab.pack("dv2_core.model").fingerprint(weights)


@pytest.mark.parametrize("prediction", ["v_zsnr", "v_cosine_zsnr"])
def test_the_v_file_is_loaded_with_zero_terminal_snr_when_it_is_told(lab: Any, placed: Any, prediction: str) -> None:
    name = PUBLISHED["VGen"][1]
    placed("VGen")
    loaded = lab.load(prediction, name, lab.SD_TEXT, lab.SD_VAE).model.model
    assert loaded.model_type.name == "V_PREDICTION" and loaded.model_sampling.zsnr
    assert float(loaded.model_sampling.sigma_max) > 4000
    middle = float(loaded.model_sampling.sigmas[500])  # cosine betas keep more of the signal for longer
    assert middle == pytest.approx(1.0156 if prediction == "v_cosine_zsnr" else 1.7746, abs=1e-3)


def test_folders_of_extra_model_paths_are_searched_as_well(lab: Any, tmp_path: Path) -> None:
    """ComfyUI reads the YAML at its start with this very function."""
    from utils.extra_config import load_extra_path_config

    other = tmp_path / "elsewhere" / "t2v"
    (other / "zs2").mkdir(parents=True)
    write_zeroscope(other / "zs2" / NAME)
    (tmp_path / "extra.yaml").write_text("a1111:\n  base_path: elsewhere\n  text2video: t2v\n")
    folders = lab.engine.folder_paths
    before = folders.folder_names_and_paths["text2video"][0].copy()
    load_extra_path_config(str(tmp_path / "extra.yaml"))
    try:
        name = f"text2video/zs2/{NAME}"
        assert name in names(lab)
        loaded = lab.load("auto", name, lab.SD_TEXT, lab.SD_VAE).model.model
        assert loaded.base_name == f"zs2/{NAME}"
    finally:
        folders.folder_names_and_paths["text2video"][0][:] = before
        folders.filename_list_cache.clear()


def test_other_files_in_the_shared_folders_are_not_offered(lab: Any, placed: Any) -> None:
    """Checkpoints are mostly image models; A1111's folders also hold the text encoder and the autoencoder."""
    placed("ZeroScope of A1111")
    folder = lab.models / "text2video" / "zs2"
    (lab.models / "checkpoints").mkdir(exist_ok=True)
    image = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3)}
    save_file(image, lab.models / "checkpoints" / "sd15.safetensors")
    text = {"transformer.resblocks.0.ln_1.weight": torch.zeros(4), "visual.proj": torch.zeros(4)}
    torch.save(text, folder / "open_clip_pytorch_model.bin")
    whole = {"first_stage_model.decoder.conv_in.weight": torch.zeros(4), "model." + next(iter(text)): torch.zeros(4)}
    torch.save({"state_dict": whole}, folder / "VQGAN_autoencoder.pth")
    (folder / "configuration.json").write_text("{}")

    def offered(number: int) -> list[str]:
        return [name for name in names(lab, number) if "/" in name and name.startswith(("text2video", "checkpoints"))]

    assert offered(0) == [f"text2video/zs2/{NAME}"]
    assert offered(1) == ["text2video/zs2/open_clip_pytorch_model.bin"]
    assert offered(2) == ["text2video/zs2/VQGAN_autoencoder.pth"]
    for path in (folder / "open_clip_pytorch_model.bin", folder / "VQGAN_autoencoder.pth"):
        path.unlink()


def test_an_autoencoder_in_a_lightning_checkpoint_is_the_same_autoencoder(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file refers to Lightning's callback by name; loading it needs no Lightning."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    parents = ["pytorch_lightning", "pytorch_lightning.callbacks", name]
    for parent in parents:
        module: Any = ModuleType(parent)
        module.ModelCheckpoint = callback
        monkeypatch.setitem(sys.modules, parent, module)
    folder = lab.models / "vae"
    weights = {f"first_stage_model.{k}": v for k, v in load_file(folder / lab.SD_VAE).items()}
    whole = {**weights, "model.diffusion_model.out.0.weight": torch.zeros(4), "betas": torch.zeros(4)}
    checkpoint = {"epoch": 0, "global_step": 1, "state_dict": whole, "callbacks": {callback: {"best": None}}}
    torch.save(checkpoint, folder / "VQGAN_autoencoder.pth")
    for parent in parents:
        monkeypatch.delitem(sys.modules, parent)
    plain = lab.load("auto", lab.SD_BASE, lab.SD_TEXT, lab.SD_VAE).vae
    ours = lab.load("auto", lab.SD_BASE, lab.SD_TEXT, "VQGAN_autoencoder.pth").vae
    theirs = plain.first_stage_model.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.first_stage_model.state_dict().items())
    latent = {"samples": noise(2, 4, 8, 8)}
    decoded = [lab.call("VAEDecode", vae=vae, samples=latent)[0] for vae in (plain, ours)]
    assert torch.equal(*decoded)
    (folder / "VQGAN_autoencoder.pth").unlink()


def test_a_damaged_file_is_refused_in_a_prompt_and_the_next_prompt_runs(lab: Any, placed: Any) -> None:
    path = placed("ZeroScope of A1111")
    name = PUBLISHED["ZeroScope of A1111"][1]
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 16
    graph, ids = lab.graph(base_unet_name=name, base_clip_name=lab.SD_TEXT, base_vae_name=lab.SD_VAE)
    for damaged, phrase in ((bytes(flipped), "checksum"), (whole[: len(whole) // 3], "cut short at")):
        path.write_bytes(damaged)
        where, sentence = lab.complaint(lab.run(graph))
        assert where == ids["base"] and phrase in sentence
        assert "Here belongs the UNet of ModelScopeT2V or ZeroScope" in sentence
    good, _ = lab.graph(sampler_steps=1)
    assert lab.run(good)["ok"]


def test_an_adapter_of_another_base_names_both_bases(lab: Any, placed: Any, caplog: Any) -> None:
    placed("ZeroScope of A1111")
    name = PUBLISHED["ZeroScope of A1111"][1]
    loaded = lab.load("auto", name, lab.SD_TEXT, lab.SD_VAE).model.model
    adapter = lab.adapter(lab.SD_ADAPTER)
    adapter.check_base(loaded)
    assert f"The adapter {lab.SD_ADAPTER} was trained on tiny, and this base, zs2/{NAME}, has other" in caplog.text
