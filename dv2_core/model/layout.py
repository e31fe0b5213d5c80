"""How tensors lie in memory and in which pieces they are worked on. None of it changes a value beyond rounding."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK_ROWS = 1024
"""Tokens that a CPU takes through a feed-forward at once: what lies between its layers then stays in the cache."""
MIN_POSITIONS = 100
"""Below it, channels last slows a CPU's convolutions down: of 7x4 positions to half the speed, of 14x8 not at all."""


def in_chunks(x: Tensor) -> bool:
    """Whether tokens [..., C] are worked on in pieces, which saves a CPU memory traffic and would cost a GPU launches.

    Not where a backward pass or a compiler would see every piece on its own.
    """
    many = x.numel() > CHUNK_ROWS * x.shape[-1]
    return many and x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def lay_out(h: Tensor) -> Tensor:
    """A feature map [N, C, H, W] in the memory format that suits its convolutions.

    With channels last, tokens [N, H * W, C] and videos [B, C, F, H, W] are views of it and nothing is transposed. Plain
    it stays on a GPU, whose group normalisation takes and gives no other, and under autograd (measured slower).
    """
    if h.device.type != "cpu" or torch.is_grad_enabled():
        return h
    large = h.shape[2] * h.shape[3] >= MIN_POSITIONS
    return h.contiguous(memory_format=torch.channels_last if large else torch.contiguous_format)


def by_video(x: Tensor, num_video_frames: int) -> Tensor:
    """[B * F, C, H, W] -> a view [B, C, F, H, W]."""
    return x.unflatten(0, (-1, num_video_frames)).transpose(1, 2)


def add(branch: Tensor, trunk: Tensor) -> Tensor:
    """branch + trunk, in the memory of ``branch``, which must be a layer's fresh result that nobody else holds."""
    return branch.add_(trunk) if branch.dtype == trunk.dtype else branch + trunk


class NormalisedSiLU(nn.SiLU):
    """SiLU of a normalisation's fresh result: in its memory, where no backward pass needs it."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, inplace=not torch.is_grad_enabled())


@lru_cache
def temporal_conv(operations: Any) -> Any:
    """The namespace's Conv3d for kernels (3, 1, 1), computed as the Conv2d (3, 1) that it is.

    ``torch.nn`` and ComfyUI's operations both call ``_conv_forward`` with the weights as they are to be used: cast,
    patched by a LoRA, brought from another device. The stored weight keeps its published shape.
    """

    class TemporalConv(operations.Conv3d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            # Merged with the channels in the last place: otherwise the result's strides hide what its layout is.
            tokens = input.permute(0, 2, 3, 4, 1).flatten(2, 3)  # [B, F, H * W, C]
            h = F.conv2d(tokens.permute(0, 3, 1, 2), weight[..., 0], bias, padding=(1, 0))
            return h.permute(0, 2, 3, 1).unflatten(2, input.shape[3:]).permute(0, 4, 1, 2, 3)

    return TemporalConv


@lru_cache
def pointwise_conv(operations: Any) -> Any:
    """The namespace's Conv1d for kernels of 1, applied to tokens [..., C]: the linear layer that it is."""

    class PointwiseConv(operations.Conv1d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return F.linear(input, weight[..., 0], bias)

    return PointwiseConv
