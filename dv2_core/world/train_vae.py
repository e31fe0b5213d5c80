"""Make the miniature's autoencoder: fit the patch PCA, then train the TAESD-shaped decoder on its latents.

`python -m dv2_core.world.train_vae --atlas FILE --out DIR --steps N [--minutes M]` writes `pca.safetensors` at once
(all that training the diffusion model needs), then `checkpoint.pt`, `log.jsonl`, `preview.png` and
`dv2-mini-vae.safetensors`. Every batch is a function of (seed, step), so running the command again resumes exactly
where it stopped. An existing `pca.safetensors` is kept: a latent space that models were trained on must not move.

Training reaches the decoder's levels at 1/8 and 1/4 of the frame's size. Above them it stays the constructed linear
map, which the training steps therefore skip: that leaves a tenth of the cost.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .atlas import Atlas
from .clips import Clip, World
from .decoder_init import (
    CENTRE,
    FINE,
    FINE_OFFSETS,
    centre_free_units,
    context_maps,
    patch_basis,
    write_pca_decoder,
)
from .latent import MiniVAE, PatchPCA, write_pca_encoder

PCA_CLIPS = 4_000
PCA_SEED = 100
CONTEXT_CLIPS = 1_000
TRAINED_LAYERS = 11  # of the decoder: those at 1/8 and 1/4 of the frame's size
FRAMES_PER_CLIP = 3  # two frames and the subject image: the latent must hold both kinds of picture


@dataclass(frozen=True)
class Params:
    steps: int = 2_500
    batch: int = 24  # pictures, a multiple of FRAMES_PER_CLIP
    learning_rate: float = 3e-4
    warmup: int = 100
    ema: float = 0.998
    # Largest standard deviation of the noise on the latents: those of the diffusion model are imperfect.
    noise: float = 0.1
    subject_weight: float = 2.0  # of the subject's pixels in the loss; the others weigh 1
    gradient_weight: float = 0.5
    seed: int = 7


def pictures(clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    """Three pictures of a clip, [3, 3, R, R], and where the subject is in them, bool [3, R, R]."""
    frames = torch.stack([clip.frames[0], clip.frames[-1], clip.subject])
    return frames, torch.stack([clip.alpha[0], clip.alpha[-1], clip.subject_alpha])


def pca_batches(world: World, clips: int) -> Iterator[torch.Tensor]:
    for index in range(clips):
        yield pictures(world.clip(index))[0]


def batch_of(world: World, params: Params, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pictures [batch, 3, R, R] and loss weights [batch, 1, R, R] of one step."""
    clips = params.batch // FRAMES_PER_CLIP
    parts = [pictures(world.clip(step * clips + i)) for i in range(clips)]
    frames, alpha = (torch.cat(column) for column in zip(*parts, strict=True))
    return frames, 1 + (params.subject_weight - 1) * alpha[:, None].float()


def reconstruction_loss(
    output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, gradient_weight: float
) -> torch.Tensor:
    """Weighted L1 of the pixels plus L1 of their horizontal and vertical differences."""
    error = output - target
    pixels = (error.abs() * weight).mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return pixels + gradient_weight * edges


def learning_rate(params: Params, step: int) -> float:
    """Linear warm-up, then linear to zero."""
    return params.learning_rate * min((step + 1) / params.warmup, 1 - step / params.steps)


@torch.no_grad()
def psnr(vae: MiniVAE, pca: PatchPCA, clips: list[Clip]) -> dict[str, float]:
    """dB of the learned and the linear decoder over the whole frames and inside the subjects of held-out clips."""
    frames = torch.cat([clip.frames for clip in clips])
    alpha = torch.cat([clip.alpha for clip in clips])
    latents = pca.encode(frames)
    result = {}
    for name, decode in (("linear", pca.decode), ("learned", vae.decode)):
        error = (torch.cat([decode(part).clamp(0, 1) for part in latents.split(16)]) - frames) ** 2
        result[f"{name}_db"] = -10 * error.mean().log10().item()
        result[f"{name}_subject_db"] = -10 * error.mean(1)[alpha].mean().log10().item()
    return result


@torch.no_grad()
def save_preview(vae: MiniVAE, pca: PatchPCA, clips: list[Clip], path: Path) -> None:
    """A contact sheet: real, linear decode, learned decode, each picture enlarged three times."""
    from PIL import Image

    frames = torch.cat([pictures(clip)[0][1:] for clip in clips])
    latents = pca.encode(frames)
    columns = [frames, pca.decode(latents), vae.decode(latents)]
    rows = torch.cat(columns, -1).clamp(0, 1)  # [N, 3, R, 3R]
    half = (len(rows) + 1) // 2
    sheet = torch.cat([torch.cat(list(part), 1) for part in rows.split(half)], 2)  # [3, half R, 6R]
    image = Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).numpy())
    image.resize((image.width * 3, image.height * 3), Image.Resampling.NEAREST).save(path)


class DecoderTraining:
    """The state of the run: decoder, its EMA, optimiser, step."""

    def __init__(self, pca: PatchPCA, params: Params, world: World):
        torch.manual_seed(params.seed)
        self.params, self.pca, self.step = params, pca, 0
        self.vae, self.average = MiniVAE(pca.channels), MiniVAE(pca.channels)
        write_pca_encoder(self.vae, pca)
        maps = context_maps(pca, pca_batches(world, CONTEXT_CLIPS), params.noise / 2)
        masks = write_pca_decoder(self.vae, pca, maps)
        centre_free_units(self.vae.taesd_decoder, pca.encode(batch_of(world, params, 0)[0]) * self.vae.vae_scale)
        self.decoder = self.vae.taesd_decoder[:TRAINED_LAYERS]  # shares its layers with the whole
        for name, parameter in self.decoder.named_parameters():
            parameter.register_hook(masks[name].mul)  # no gradient, so no step: the construction stays exact
        self.average.load_state_dict(self.vae.state_dict())
        self.average.requires_grad_(False)
        # rounded as in the constructed levels
        self.head = patch_basis(pca).T[:, :, None, None].bfloat16().float()  # [48, 24, 1, 1]
        self.optimizer = torch.optim.AdamW(self.decoder.parameters(), betas=(0.9, 0.99), weight_decay=0.0)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """What `vae.decode` computes, with the linear upper levels taken together.

        In float32: in bfloat16 the rounding of the stream's offsets is as large as what there is to learn."""
        stream = self.decoder(latents * self.vae.vae_scale)
        components = stream[:, FINE] - FINE_OFFSETS[0]  # [N, 24, R/4, R/4]
        return F.pixel_shuffle(F.conv2d(components, self.head), 4) + CENTRE

    def train_step(self, world: World) -> float:
        params = self.params
        target, weight = batch_of(world, params, self.step)
        generator = torch.Generator().manual_seed(params.seed * 1_000_003 + self.step)
        latents = self.pca.encode(target)
        level = params.noise * torch.rand(len(latents), 1, 1, 1, generator=generator)
        latents = latents + level * torch.randn(latents.shape, generator=generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(params, self.step)
        loss = reconstruction_loss(self.decode(latents), target, weight, params.gradient_weight)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(params.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.vae.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        return loss.item()

    def save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "params": asdict(self.params),
            "vae": self.vae.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def load(self, path: Path) -> None:
        """Raises ValueError if the checkpoint belongs to other settings."""
        state = torch.load(path, weights_only=True)
        if state["params"] != asdict(self.params):
            raise ValueError(f"{path} was made with {state['params']}, not {asdict(self.params)}; use another --out.")
        self.step = state["step"]
        self.vae.load_state_dict(state["vae"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def load_or_fit_pca(atlas: Atlas, path: Path) -> PatchPCA:
    if not path.exists():
        PatchPCA.fit(pca_batches(World(atlas, seed=PCA_SEED), PCA_CLIPS)).save(path)
    return PatchPCA.load(path)


def run(atlas: Atlas, out: Path, params: Params, minutes: float = float("inf"), report_every: int = 500) -> None:
    """Train until `params.steps`, or until `minutes` have passed (then run again to go on)."""
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    pca = load_or_fit_pca(atlas, out / "pca.safetensors")
    world = World(atlas, seed=params.seed)
    training, checkpoint = DecoderTraining(pca, params, world), out / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
    held_out = World(atlas, split="test", seed=params.seed)
    clips = [held_out.clip(index) for index in range(12)]
    deadline = time.monotonic() + 60 * minutes
    total = 0.0
    with tqdm(total=params.steps, initial=training.step, desc="decoder") as bar, (out / "log.jsonl").open("a") as log:
        while training.step < params.steps:
            total += training.train_step(world)
            bar.update()
            stop = time.monotonic() > deadline or training.step == params.steps
            if training.step % report_every == 0 or stop:
                steps = training.step % report_every or report_every
                row = {"step": training.step, "loss": total / steps} | psnr(training.average, pca, clips)
                log.write(json.dumps(row) + "\n")
                log.flush()
                bar.set_postfix(db=f"{row['learned_db']:.2f}", subject=f"{row['learned_subject_db']:.2f}")
                training.save(checkpoint)
                training.average.save(out / "dv2-mini-vae.safetensors")
                save_preview(training.average, pca, clips[:8], out / "preview.png")
                total = 0.0
            if stop:
                break


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the miniature's latent space and train its decoder.")
    parser.add_argument("--atlas", type=Path, required=True, help="sprite atlas, from dv2_core.world.atlas")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results and the checkpoint")
    parser.add_argument("--steps", type=int, default=Params.steps, help="length of the training (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop earlier; run again to resume")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run(Atlas.load(arguments.atlas), arguments.out, Params(steps=arguments.steps), arguments.minutes)


if __name__ == "__main__":
    main()
