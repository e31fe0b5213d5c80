"""The networks in training: exactly the modules and the patch protocol that the nodes use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ..diffusion import ddim_sample, reweighted_loss, signal_and_noise, target
from ..model import (
    Adapter,
    AttentionFunction,
    Reference,
    UNet3D,
    blended_mask,
    plain_attention,
    reference_patches,
    sdpa_attention,
    subject_features,
)
from ..model.encoder import recompute_blocks
from ..model.motion import ControlNet
from ..model.position import box_frames
from .config import TrainConfig
from .data import Batch
from .data_config import MiniWorldConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Conditions:
    """What the UNet is given besides z_t and t; without a part of the adapter its fields stay as they are.

    Attributes:
        context: text [B, L, D].
        options: transformer options, with the subject's keys and values and M^.
        hint: of the motion encoder [B * F, C, h, w].
        keep_control: 1 where the boxes are kept, 0 where they are dropped [B * F, 1, 1, 1].
    """

    context: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    hint: Tensor | None = None
    keep_control: Tensor | None = None


class TrainingModel(nn.Module):
    """UNet, text encoder and (unless only the base is trained) adapter, with the reweighted loss as ``forward``.

    Args:
        vocabulary: number of token ids; None where the data holds embeddings: then there is no text encoder.
        device: where it will run, which decides the kind of attention.
        attention: another attention function, in place of the device's own.
    """

    def __init__(self, config: TrainConfig, vocabulary: int | None, device: torch.device,
                 attention: AttentionFunction | None = None) -> None:  # fmt: skip
        super().__init__()
        self.config = config
        attention = attention or (plain_attention if device.type == "cpu" else sdpa_attention)
        self.base = UNet3D(config.unet, attention=attention)
        self.base.initialize_weights()
        self.text = None if vocabulary is None else CLIPTextModel(text_config(config, vocabulary))
        self.adapter = Adapter(config.adapter, attention=attention) if config.has_adapter else None
        if self.text is None and "text" in config.trains:
            raise ValueError(
                'trains names "text", but this data comes with embeddings of a frozen text encoder. Leave "text" out.'
            )
        self.base.requires_grad_("base" in config.trains)
        if self.text is not None:
            self.text.requires_grad_("text" in config.trains)
        if config.gradient_checkpointing:
            for module in self.modules():
                if isinstance(module, (UNet3D, ControlNet)):
                    recompute_blocks(module)

    @property
    def learning(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def lower_frozen(self) -> None:
        """Keep the matrices of a frozen base in ``frozen_dtype``; norms and biases are small and stay in float32."""
        for p in self.base.parameters():
            if p.ndim > 1 and not p.requires_grad:
                p.data = p.data.to(DTYPES[self.config.frozen_dtype])

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of Eq. 6 (plain MSE while there is no adapter) and detached figures for the log."""
        prediction, goal = self.denoise(batch)
        return reweighted_loss(prediction, goal, batch.masks, self.lambda_l)

    @property
    def lambda_l(self) -> float:
        return self.config.adapter.lambda_l if self.adapter is not None else 1.0

    def denoise(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Prediction and target [B * F, C, h, w] for the batch's noise and timesteps."""
        f = batch.latents.shape[0] // batch.timesteps.shape[0]
        kind = self.config.adapter.prediction
        # alpha, sigma [B * F, 1, 1, 1]
        alpha, sigma = (s.repeat_interleave(f, dim=0) for s in signal_and_noise(batch.timesteps, kind))
        noisy = alpha * batch.latents + sigma * batch.noise
        text = batch.tokens if batch.context is None else batch.context
        assert text is not None
        given = self.conditions(batch.timesteps, text, batch.subject, batch.masks, batch.keep_ref, batch.keep_motion)
        return self.predict(noisy, batch.timesteps, given), target(kind, batch.latents, batch.noise, alpha, sigma)

    def conditions(self, timesteps: Tensor, text: Tensor, subject: Tensor, masks: Tensor, keep_ref: Tensor | None,
                   keep_motion: Tensor | None) -> Conditions:  # fmt: skip
        """text: token ids [B, L] or embeddings [B, L, D]; others as in :class:`Batch`.

        A dropped condition is a residual times zero: without boxes the reference acts everywhere (M^ = 1) and there is
        no control; without a reference there is no attention to it. None: dropped for all, and not computed.
        """
        given = Conditions(text if self.text is None else self.text(text).last_hidden_state)
        if self.adapter is None:
            return given
        choices, f = self.config.adapter, masks.shape[0] // timesteps.shape[0]

        def rows(keep: Tensor) -> Tensor:  # [B * F, 1, 1, 1]
            return keep.repeat_interleave(f)[:, None, None, None]

        if self.adapter.ref is not None and keep_ref is not None:
            times = torch.zeros_like(timesteps) if choices.ref_timestep == "zero" else timesteps
            with torch.set_grad_enabled(torch.is_grad_enabled() and "base" in self.config.trains):
                features = subject_features(self.base, subject, times, given.context, choices.ref_features)
            weight, frames = torch.ones_like(masks), None
            if keep_motion is not None:
                weight = rows(keep_motion) * blended_mask(masks, choices.lambda_m) + 1.0 - rows(keep_motion)
                frames = box_frames(masks) * rows(keep_motion)[:, :, 0, 0] if choices.ref_position == "box" else None
            weight = rows(keep_ref) * weight
            reference = Reference(self.adapter.ref, self.adapter.ref.keys_values(features), weight, frames)
            given.options = {"patches": reference_patches(), "dv2_reference": reference}
        if self.adapter.motion is not None and keep_motion is not None:
            given.hint, given.keep_control = self.adapter.motion.encode(masks, f), rows(keep_motion)
        return given

    def predict(self, noisy: Tensor, timesteps: Tensor, given: Conditions) -> Tensor:
        """Network output [B * F, C, h, w] for noisy [B * F, C, h, w] at timesteps [B]."""
        control = None
        if given.hint is not None and self.adapter is not None and self.adapter.motion is not None:
            residuals = self.adapter.motion.controlnet(noisy, given.hint, timesteps, given.context)
            control = {name: [r * given.keep_control for r in rows] for name, rows in residuals.items()}
        f = noisy.shape[0] // timesteps.shape[0]
        return self.base(noisy, timesteps, given.context, f, control=control, transformer_options=given.options)

    @torch.no_grad()
    def sample(self, noise: Tensor, text: Tensor, empty: Tensor, subject: Tensor, masks: Tensor, steps: int) -> Tensor:
        """Guided DDIM with the adapter's own choices: noise [B * F, C, h, w] -> latents of the same shape.

        text, empty: of the conditional and the unconditional branch, token ids [B, L] or embeddings [B, L, D].
        subject [B, C, h, w], masks [B * F, 1, H, W].
        """
        choices, ones = self.config.adapter, torch.ones(len(subject), device=noise.device)
        kept = [ones if policy == "same" else None for policy in (choices.ref_uncond, choices.motion_uncond)]

        def conditions(times: Tensor) -> tuple[Conditions, Conditions]:
            return (
                self.conditions(times, text, subject, masks, ones, ones),
                self.conditions(times, empty, subject, masks, *kept),
            )

        fixed = conditions(torch.zeros_like(ones)) if choices.ref_timestep == "zero" else None

        def guided(x: Tensor, t: int) -> Tensor:
            times = torch.full_like(ones, t)
            cond, uncond = (self.predict(x, times, given).float() for given in fixed or conditions(times))
            return uncond + choices.cfg * (cond - uncond)

        return ddim_sample(guided, noise, steps, choices.prediction)


def text_config(config: TrainConfig, vocabulary: int) -> CLIPTextConfig:
    if not isinstance(config.data, MiniWorldConfig):
        raise ValueError("only the mini-world has a text encoder of its own; other data comes with embeddings.")
    shape, tokens = config.text, config.data.text_tokens
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=shape.width, intermediate_size=shape.width * 4,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, max_position_embeddings=tokens,
        hidden_act="quick_gelu", projection_dim=shape.width, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
