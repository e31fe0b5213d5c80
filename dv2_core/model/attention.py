"""Attention layers and the transformer block that honours ComfyUI's patch protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layout import CHUNK_ROWS, add, in_chunks

AttentionFunction = Callable[..., Tensor]
"""``attention(q, k, v, heads, transformer_options=...)`` on [B, N, heads * d]; ComfyUI's ``optimized_attention``."""

MAX_BATCH = 2**15
"""Rows that CUDA's fused kernels are given at once: 65,536 they refuse, and a temporal attention has one per position
and video. Source: ComfyUI's ``SDP_BATCH_LIMIT``."""


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    """Scaled dot-product attention. q [B, N, C], k and v [B, M, C] -> [B, N, C]."""
    if q.shape[0] > MAX_BATCH:
        queries, keys, values = (t.split(MAX_BATCH) for t in (q, k, v))
        return torch.cat([sdpa_attention(*part, heads) for part in zip(queries, keys, values, strict=True)])
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # [B, heads, N, d]
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    """The same as two matrix products and a softmax; on a CPU its backward is far faster for short sequences."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # [B, heads, N, d]
    weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(dim=-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention with the parameter names of ModelScope and LDM (``to_q, to_k, to_v, to_out.0``)."""

    def __init__(self, dim: int, context_dim: int, heads: int, head_dim: int, attention: AttentionFunction,
                 operations: Any, **factory: Any) -> None:  # fmt: skip
        super().__init__()
        inner = heads * head_dim
        self.heads, self.attention = heads, attention
        self.to_q = operations.Linear(dim, inner, bias=False, **factory)
        self.to_k = operations.Linear(context_dim, inner, bias=False, **factory)
        self.to_v = operations.Linear(context_dim, inner, bias=False, **factory)
        self.to_out = nn.Sequential(operations.Linear(inner, dim, **factory), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor | None = None, value: Tensor | None = None,
                transformer_options: dict[str, Any] | None = None) -> Tensor:  # fmt: skip
        """x [B * F, N, C]; context and value [B, M, D] or [B * F, M, D] -> [B * F, N, C].

        A context with one row per video is attended by all frames of that video at once: the same numbers as repeating
        it per frame, without computing its keys and values F times.
        """
        context = x if context is None else context
        value = context if value is None else value
        folded = x.reshape(context.shape[0], -1, x.shape[-1])  # [B, F * N, C]
        out = self.attention(self.to_q(folded), self.to_k(context), self.to_v(value), self.heads,
                             transformer_options=transformer_options)  # fmt: skip
        return self.to_out(out).reshape(x.shape)


class GEGLU(nn.Module):
    def __init__(self, dim: int, inner: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(dim, inner * 2, **factory)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return F.gelu(gate).mul_(x)


class FeedForward(nn.Module):
    """GEGLU feed-forward of four times the width (``net.0.proj``, ``net.2``)."""

    def __init__(self, dim: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GEGLU(dim, dim * 4, operations, **factory), nn.Dropout(0.0), operations.Linear(dim * 4, dim, **factory)
        )

    def forward(self, x: Tensor) -> Tensor:
        if not in_chunks(x):
            return self.net(x)
        rows = x.flatten(0, -2)
        out = torch.empty_like(rows)
        for part, target in zip(rows.split(CHUNK_ROWS), out.split(CHUNK_ROWS), strict=True):
            target.copy_(self.net(part))
        return out.view(x.shape)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward (``attn1, attn2, ff, norm1..3``).

    With ``context=None`` both attentions are self-attention: that is ModelScope's temporal block, which ComfyUI's
    spatial patches must not reach, so pass no ``transformer_options["patches"]`` there.
    """

    def __init__(self, dim: int, context_dim: int, heads: int, head_dim: int, attention: AttentionFunction,
                 operations: Any, **factory: Any) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.attn1 = Attention(dim, dim, heads, head_dim, attention, operations, **factory)
        self.ff = FeedForward(dim, operations, **factory)
        self.attn2 = Attention(dim, context_dim, heads, head_dim, attention, operations, **factory)
        self.norm1 = operations.LayerNorm(dim, **factory)
        self.norm2 = operations.LayerNorm(dim, **factory)
        self.norm3 = operations.LayerNorm(dim, **factory)

    def forward(self, x: Tensor, context: Tensor | None, options: dict[str, Any]) -> Tensor:
        """x [B * F, N, C], context [B, L, D] (or one row per frame) -> [B * F, N, C]."""
        extra = {k: v for k, v in options.items() if k not in ("patches", "patches_replace")}
        # One dictionary per block, as in ComfyUI: an input patch may leave something in it for an output patch.
        extra |= {"n_heads": self.heads, "dim_head": self.head_dim, "attn_precision": None}
        extra["dv2_hidden_states"] = x  # beside the protocol: reference attention may look at what z is added to
        x = x + self._attend("attn1", self.attn1, self.norm1(x), None, options, extra)
        for patch in options.get("patches", {}).get("middle_patch", ()):
            x = patch(x, extra)
        extra["dv2_hidden_states"] = x
        x = x + self._attend("attn2", self.attn2, self.norm2(x), context, options, extra)
        return add(self.ff(self.norm3(x)), x)

    def _attend(self, name: str, layer: Attention, n: Tensor, context: Tensor | None, options: dict[str, Any],
                extra: dict[str, Any]) -> Tensor:  # fmt: skip
        """One attention with ComfyUI's ``{name}_patch``, ``{name}`` replace and ``{name}_output_patch`` around it.

        Source of the protocol: ComfyUI ``comfy/ldm/modules/attention.py``, ``BasicTransformerBlock.forward``.
        """
        patches = options.get("patches", {})
        replace = self._replacement(name, options)
        if not (f"{name}_patch" in patches or replace):
            n = layer(n, context, transformer_options=options)
        else:
            context = n if context is None else _one_row_per_frame(context, n)
            value = context
            for patch in patches.get(f"{name}_patch", ()):
                n, context, value = patch(n, context, value, extra)
            if replace is None:
                n = layer(n, context, value, transformer_options=options)
            else:
                n = layer.to_out(replace(layer.to_q(n), layer.to_k(context), layer.to_v(value), extra))
        for patch in patches.get(f"{name}_output_patch", ()):
            n = patch(n, extra)
        return n

    def _replacement(self, name: str, options: dict[str, Any]) -> Callable[..., Tensor] | None:
        block = options.get("block")
        replacements = options.get("patches_replace", {}).get(name, {})
        if block is None or not replacements:
            return None
        return replacements.get((*block[:2], options.get("block_index", 0)), replacements.get(block))


def attention_override(options: dict[str, Any] | None) -> dict[str, Any]:
    """Of the transformer options what any attention may honour; patches are for the spatial blocks of the video."""
    return {k: v for k, v in (options or {}).items() if k == "optimized_attention_override"}


def _one_row_per_frame(context: Tensor, x: Tensor) -> Tensor:
    """Patches written for image models expect as many context rows as there are frames."""
    return context.repeat_interleave(x.shape[0] // context.shape[0], dim=0)


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding, cosines first. timesteps [B] (may be fractional) -> [B, dim], float32. Source: LDM."""
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps[:, None].float() * torch.exp(exponent * -9.210340371976184)  # -log(10000)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
