"""The miniature's autoencoder through ComfyUI's own VAELoader, VAEEncode and VAEDecode."""

from pathlib import Path

import torch

from dv2_core.world.decoder_init import linear_maps, write_pca_decoder
from dv2_core.world.latent import MiniVAE, PatchPCA, write_pca_encoder


def smooth_noise(count: int, generator: torch.Generator) -> torch.Tensor:
    """Pictures [count, 3, 64, 64] in 0..1."""
    coarse = torch.rand(count, 3, 24, 24, generator=generator)
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)


def test_stock_vaeloader_encodes_and_decodes_with_the_miniature_vae_as_we_do(comfy):
    engine = comfy()
    generator = torch.Generator().manual_seed(0)
    pca = PatchPCA.fit([smooth_noise(40, generator)])
    vae = MiniVAE()
    write_pca_encoder(vae, pca)
    write_pca_decoder(vae, pca, linear_maps(pca))
    folder = Path(engine.base_dir) / "models" / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    vae.save(folder / "constructed-mini-vae.safetensors")
    vae = MiniVAE.load(folder / "constructed-mini-vae.safetensors")  # with the half-precision rounding

    nodes = engine.nodes.NODE_CLASS_MAPPINGS
    loaded = nodes["VAELoader"]().load_vae("constructed-mini-vae.safetensors")[0]
    images = smooth_noise(3, generator).movedim(1, -1)
    latent = nodes["VAEEncode"]().encode(loaded, images)[0]
    decoded = nodes["VAEDecode"]().decode(loaded, latent)[0]

    frames = images.movedim(-1, 1)
    assert latent["samples"].shape == (3, 24, 8, 8)
    assert torch.allclose(latent["samples"].float(), pca.encode(frames), atol=1e-3)
    with torch.no_grad():
        expected = vae.decode(pca.encode(frames)).clamp(0, 1).movedim(1, -1)
    assert decoded.shape == (3, 64, 64, 3)
    assert torch.allclose(decoded.float(), expected, atol=2e-3)


def test_the_preview_of_a_latent_shows_the_mean_colour_of_every_patch(comfy):
    engine = comfy()
    (base,) = (
        engine.nodes.NODE_CLASS_MAPPINGS["DV2LoadBase"]
        .execute("dv2-mini-base.safetensors", "dv2-mini-text.safetensors", "dv2-mini-vae.safetensors", "auto")
        .args[:1]
    )
    (vae,) = engine.nodes.NODE_CLASS_MAPPINGS["VAELoader"]().load_vae("dv2-mini-vae.safetensors")
    form = base.model.latent_format
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.2, 0.2, 0.9], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]])
    latents = vae.encode(colours[:, None, None].expand(-1, 64, 64, -1))  # [5, 24, 8, 8]
    shown = torch.einsum("nchw,ck->nk", latents, torch.tensor(form.latent_rgb_factors)) / 64
    shown = shown + torch.tensor(form.latent_rgb_factors_bias)  # -1..1, as ComfyUI's previewer takes it
    assert torch.allclose(shown, colours * 2 - 1, atol=0.03)
