"""The miniature's latent space: patch PCA, its TAESD-shaped encoder, the constructed decoder and its training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dv2_core.world import train_vae
from dv2_core.world.atlas import Atlas, Sprite
from dv2_core.world.clips import World
from dv2_core.world.decoder_init import (
    centre_free_units,
    context_maps,
    linear_maps,
    patch_basis,
    write_pca_decoder,
)
from dv2_core.world.latent import MiniVAE, PatchPCA, write_pca_encoder
from dv2_core.world.train_vae import DecoderTraining, Params, pca_batches


@pytest.fixture(scope="module")
def world() -> World:
    y, x = np.mgrid[:64, :64] - 31.5
    rgba = np.zeros((2, 64, 64, 4), np.uint8)
    rgba[0, x**2 + y**2 < 900] = (230, 60, 20, 255)
    rgba[1, abs(x) + abs(y) < 31] = (30, 90, 200, 255)
    rgba[:, 20:30, 20:44] = (250, 240, 60, 255)
    names = ("disc", "diamond")
    return World(Atlas(rgba, [Sprite(name, name, "drawn", "Apache-2.0", "train") for name in names]))


@pytest.fixture(scope="module")
def pca(world: World) -> PatchPCA:
    return PatchPCA.fit(pca_batches(world, 100))


@pytest.fixture(scope="module")
def frames(world: World) -> torch.Tensor:
    return torch.cat([world.clip(index).frames[::3] for index in range(200, 206)])


def test_latents_have_24_channels_an_eighth_of_the_size_and_about_unit_variance(pca: PatchPCA, frames: torch.Tensor):
    latents = pca.encode(frames)
    assert latents.shape == (len(frames), 24, 8, 8)
    assert 0.6 < latents.std() < 1.5


def test_the_linear_decode_is_the_best_reconstruction_from_the_latents(pca: PatchPCA, frames: torch.Tensor):
    decoded = pca.decode(pca.encode(frames))
    assert torch.allclose(pca.encode(decoded), pca.encode(frames), atol=1e-4)  # a projection
    assert (decoded - frames).square().mean() < 0.004


def test_the_constructed_taesd_encoder_equals_the_pca(pca: PatchPCA, frames: torch.Tensor, tmp_path: Path):
    vae = MiniVAE()
    write_pca_encoder(vae, pca)
    vae.save(tmp_path / "vae.safetensors")
    with torch.no_grad():
        for same in (vae, MiniVAE.load(tmp_path / "vae.safetensors")):  # in float32, and from the half-precision file
            assert (same.encode(frames) - pca.encode(frames)).abs().max() < 1e-4


def test_the_pca_is_read_back_from_the_autoencoder_file(pca: PatchPCA, frames: torch.Tensor, tmp_path: Path):
    vae = MiniVAE()
    write_pca_encoder(vae, pca)
    vae.save(tmp_path / "vae.safetensors")
    read = PatchPCA.load(tmp_path / "vae.safetensors")
    for name in ("encode_weight", "encode_bias"):  # the file holds the smallest numbers less exactly
        assert (getattr(read, name) - getattr(pca, name)).abs().max() < 1e-6
    latents = pca.encode(frames)
    assert (read.decode(latents) - pca.decode(latents)).abs().max() < 0.02  # of the mean patch, what latents cannot say


def test_an_autoencoder_whose_encoder_is_not_linear_has_no_pca():
    with pytest.raises(ValueError, match="no linear transform"):
        PatchPCA.of(MiniVAE())


@pytest.mark.parametrize("size", [24, 64, 80])
def test_the_constructed_taesd_decoder_starts_as_the_linear_decode(pca: PatchPCA, frames: torch.Tensor, size: int):
    vae = MiniVAE()
    write_pca_decoder(vae, pca, linear_maps(pca))
    pictures = torch.nn.functional.interpolate(frames[:3], (size, size))
    latents = pca.encode(pictures)
    with torch.no_grad():
        error = (vae.decode(latents) - pca.decode(latents)).square().mean()
        centre_free_units(vae.taesd_decoder, latents * vae.vae_scale)
        centred = (vae.decode(latents) - pca.decode(latents)).square().mean()
    assert error < 1e-4  # 40 dB, far below what the latents lose
    assert torch.isclose(error, centred, rtol=1e-3)


def test_the_constructed_decoder_survives_bfloat16(pca: PatchPCA, frames: torch.Tensor):
    vae = MiniVAE()
    write_pca_decoder(vae, pca, linear_maps(pca))
    latents = pca.encode(frames[:4])
    with torch.no_grad():
        output = vae.bfloat16().decode(latents.bfloat16()).float()
    assert (output - pca.decode(latents)).square().mean() < 3e-4


def test_the_decoder_computes_the_context_maps_at_the_border_too(world: World, pca: PatchPCA, frames: torch.Tensor):
    maps = context_maps(pca, pca_batches(world, 60), noise=0.05)
    assert maps.weights.shape == (4, 24, 4, 25)
    vae = MiniVAE()
    write_pca_decoder(vae, pca, maps)
    latents = pca.encode(frames)
    with torch.no_grad():
        context, linear = vae.decode(latents), pca.decode(latents)
    assert (context - frames).square().mean() < (linear - frames).square().mean()
    # the first pixel of the frame, by hand: its own cell, and neighbours that do not exist
    own = torch.cat([latents[:, :, 0, 0], torch.ones(len(latents), 1)], 1) @ maps.weights[0, :, 0].T
    basis = patch_basis(pca).unflatten(1, (3, 4, 4))
    assert torch.allclose(context[:, :, 0, 0], own @ basis[:, :, 0, 0] + 0.5, atol=0.02)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, world: World, pca: PatchPCA):
    monkeypatch.setattr(train_vae, "CONTEXT_CLIPS", 20)
    return lambda params: DecoderTraining(pca, params, world)


def test_the_shortcut_of_the_training_steps_equals_the_whole_decoder(train, pca: PatchPCA, frames: torch.Tensor):
    run = train(Params(batch=3))
    latents = pca.encode(frames[:4])
    with torch.no_grad():
        assert (run.decode(latents) - run.vae.decode(latents)).abs().max() < 1e-3


def test_training_leaves_the_construction_alone(train, world: World, pca: PatchPCA):
    params = Params(steps=10, batch=3, warmup=1)
    run = train(params)
    masks = write_pca_decoder(MiniVAE(), pca, linear_maps(pca))
    before = {name: value.clone() for name, value in run.vae.taesd_decoder.named_parameters()}
    run.train_step(world)
    run.train_step(world)
    for name, value in run.vae.taesd_decoder.named_parameters():
        assert torch.equal(value[masks[name] == 0], before[name][masks[name] == 0])
    assert not torch.equal(run.vae.taesd_decoder[10].conv[4].weight, before["10.conv.4.weight"])


def test_stopping_and_resuming_equals_going_on_bit_for_bit(train, world: World, tmp_path: Path):
    params = Params(steps=10, batch=3, warmup=1)
    straight, stopped, resumed = (train(params) for _ in range(3))
    for _ in range(3):
        straight.train_step(world)
    stopped.train_step(world)
    stopped.save(tmp_path / "checkpoint.pt")
    resumed.load(tmp_path / "checkpoint.pt")
    resumed.train_step(world)
    resumed.train_step(world)
    for model in ("vae", "average"):
        for one, two in zip(getattr(straight, model).parameters(), getattr(resumed, model).parameters(), strict=True):
            assert torch.equal(one, two)


def test_a_checkpoint_of_other_settings_is_refused(train, tmp_path: Path):
    train(Params(steps=10, batch=3)).save(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="use another --out"):
        train(Params(steps=11, batch=3)).load(tmp_path / "checkpoint.pt")


def test_too_few_patches_are_refused():
    with pytest.raises(ValueError, match="at least 192 patches"):
        PatchPCA.fit([torch.rand(1, 3, 64, 64)])


def test_frames_that_vary_in_too_few_ways_are_refused():
    with pytest.raises(ValueError, match="fewer than 24 ways"):
        PatchPCA.fit([torch.rand(8, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)])


def test_a_size_that_is_no_multiple_of_8_is_refused(pca: PatchPCA):
    with pytest.raises(ValueError, match="60x64"):
        pca.encode(torch.rand(1, 3, 64, 60))
