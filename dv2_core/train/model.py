"""The networks in training: exactly the modules and the patch protocol that the nodes use."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ..diffusion import reweighted_loss, signal_and_noise, target
from ..model import (
    Adapter,
    Reference,
    UNet3D,
    blended_mask,
    plain_attention,
    reference_patches,
    sdpa_attention,
    subject_features,
)
from .config import TrainConfig
from .data import Batch


class TrainingModel(nn.Module):
    """UNet, text encoder and (unless only the base is trained) adapter, with the reweighted loss as ``forward``."""

    def __init__(self, config: TrainConfig, vocabulary_size: int, device: torch.device) -> None:
        super().__init__()
        self.config = config
        attention = plain_attention if device.type == "cpu" else sdpa_attention
        self.base = UNet3D(config.unet, attention=attention)
        self.base.initialize_weights()
        self.text = CLIPTextModel(text_config(config, vocabulary_size))
        self.adapter = Adapter(config.adapter, attention=attention) if config.has_adapter else None
        for name in ("base", "text"):
            self.get_submodule(name).requires_grad_(name in config.trains)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of Eq. 6 (plain MSE while there is no adapter) and detached figures for the log."""
        f = self.config.num_frames
        alpha, sigma = (s.repeat_interleave(f, dim=0) for s in signal_and_noise(batch.timesteps))  # [B * F, 1, 1, 1]
        noisy = alpha * batch.latents + sigma * batch.noise
        prediction = self.predict(noisy, batch.timesteps, batch.tokens, batch.subject, batch.masks,
                                  batch.keep_ref, batch.keep_motion)  # fmt: skip
        goal = target(self.config.adapter.prediction, batch.latents, batch.noise, alpha, sigma)
        return reweighted_loss(prediction, goal, batch.masks, self.config.adapter.lambda_l if self.adapter else 1.0)

    def predict(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, subject: Tensor, masks: Tensor,
                keep_ref: Tensor, keep_motion: Tensor) -> Tensor:  # fmt: skip
        """Network output [B * F, C, h, w]; shapes as in :class:`Batch`.

        A dropped condition is a residual times zero: without boxes the reference acts everywhere (M^ = 1) and there is
        no control; without a reference there is no attention to it.
        """
        f = self.config.num_frames
        context = self.text(tokens).last_hidden_state  # [B, L, D]
        if self.adapter is None:
            return self.base(noisy, timesteps, context, f)
        options, control = {}, None
        ref_rows, motion_rows = (k.repeat_interleave(f)[:, None, None, None] for k in (keep_ref, keep_motion))
        if self.adapter.ref is not None:
            zero = torch.zeros_like(timesteps) if self.config.adapter.ref_timestep == "zero" else timesteps
            with torch.set_grad_enabled(torch.is_grad_enabled() and "base" in self.config.trains):
                features = subject_features(self.base, subject, zero, context)
            mask = blended_mask(masks, self.config.adapter.lambda_m)
            weight = ref_rows * (motion_rows * mask + 1.0 - motion_rows)
            reference = Reference(self.adapter.ref, self.adapter.ref.keys_values(features), weight)
            options = {"patches": reference_patches(), "dv2_reference": reference}
        if self.adapter.motion is not None:
            residuals = self.adapter.motion(noisy, masks, timesteps, context, f)
            control = {name: [r * motion_rows for r in rows] for name, rows in residuals.items()}
        return self.base(noisy, timesteps, context, f, control=control, transformer_options=options)


def text_config(config: TrainConfig, vocabulary_size: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary_size, hidden_size=config.text_width, intermediate_size=config.text_width * 4,
        num_hidden_layers=config.text_layers, num_attention_heads=config.text_heads,
        max_position_embeddings=config.text_tokens, hidden_act="quick_gelu", projection_dim=config.text_width,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
