"""Masked reference attention (DreamVideo-2, sections 4.1 and 4.3).

After each self- and each cross-attention of every spatial transformer, the video attends to what the same layer put out
for the subject image:  Z'' = Z' + M^ * Attention(Z' W_Q, Z'_s W_K, Z'_s W_V),  M^ = M + lambda_M (1 - M).

It reaches the UNet only through ComfyUI's ``attn{1,2}_output_patch`` protocol, in training and inside ComfyUI alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import AttentionFunction, sdpa_attention
from .config import UNet3DConfig
from .layout import add
from .position import CHANNELS, places, subject_frame
from .unet3d import UNet3D, zero_

Site = tuple[str, int, str]
"""Where a module sits: (block kind, block number, "attn1" or "attn2"), for example ("output", 3, "attn2")."""
Features = dict[Site, Tensor]
"""What a site's layer put out for the subject: [B, h, w, C]."""
KeyValues = dict[Site, tuple[Tensor, Tensor]]

_LAYER = {"input": "input_blocks", "middle": "middle_block", "output": "output_blocks"}


class ReferenceAttention(nn.Module):
    """One reference attention: W_Q, W_K, W_V random, the output projection zero-initialised, all without bias.

    With ``position``, queries and keys also carry their token's place (see :mod:`.position`) through one projection,
    wide enough at first that a video token looks where the subject image shows the same part.
    """

    def __init__(self, dim: int, head_dim: int, position: bool, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.heads = dim // head_dim
        self.to_place = operations.Linear(CHANNELS, dim, bias=False, **factory) if position else None
        self.to_q = operations.Linear(dim, dim, bias=False, **factory)
        self.to_k = operations.Linear(dim, dim, bias=False, **factory)
        self.to_v = operations.Linear(dim, dim, bias=False, **factory)
        self.to_out = operations.Linear(dim, dim, bias=False, **factory)

    def keys_values(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features [B, h, w, C] of the subject -> keys and values [B, h * w, C]."""
        tokens = features.flatten(1, 2)
        keys = self.to_k(tokens)
        if self.to_place is not None:
            height, width = features.shape[1:3]
            frame = subject_frame(height, width, tokens.device)
            keys = keys + self.to_place(places(frame, height, width).to(keys.dtype))
        return keys, self.to_v(tokens)

    def forward(self, z: Tensor, keys: Tensor, values: Tensor, where: Tensor | None, attention: AttentionFunction,
                options: Any) -> Tensor:  # fmt: skip
        """z [B * F, N, C] of the video, keys and values [B, S, C] of the subject -> [B * F, N, C].

        where: places of the video's tokens in their boxes [B * F, N, 16], or None where there are no boxes.
        """
        q = self.to_q(z)
        if self.to_place is not None and where is not None:
            q = q + self.to_place(where.to(q.dtype))
        q = q.reshape(keys.shape[0], -1, keys.shape[-1])  # [B, F * N, C]
        out = attention(q, keys, values, self.heads, transformer_options=options)
        return self.to_out(out).reshape(z.shape)


class ReferenceAttentions(nn.Module):
    """All reference attentions of a UNet: two per spatial transformer (32 modules for ModelScopeT2V).

    Parameter names are ``<block>.<n>.<attn1|attn2>.to_q.weight`` with the base's own block names.

    Args:
        head_dim: width of one head, a divisor of every transformer's width; 0 takes the base's.
        sharing: "none" as in the paper; "width": all sites of one width have their projections in common (three
            modules for ModelScopeT2V), and parameter names are ``widths.<width>.to_q.weight``.
        features: what Z' and Z'_s are: "attention", the layer's own output, or "hidden", the hidden states after it
            (its output plus what it is added to), normalised.
        position: "none" as in the paper, or "box" (see :mod:`.position`).
    """

    def __init__(self, config: UNet3DConfig, head_dim: int = 0, sharing: str = "none", features: str = "attention",
                 position: str = "none", operations: Any = nn, attention: AttentionFunction = sdpa_attention,
                 dtype: torch.dtype | None = None, device: Any = None) -> None:  # fmt: skip
        super().__init__()
        self.attention, self.features = attention, features
        self._sites: dict[Site, ReferenceAttention] = {}

        def module(width: int) -> ReferenceAttention:
            heads = head_dim or config.head_dim
            return ReferenceAttention(width, heads, position == "box", operations, dtype=dtype, device=device)

        widths = config.transformer_widths()
        if sharing == "width":
            self.widths = nn.ModuleDict({str(width): module(width) for width in sorted(set(widths.values()))})
        for (kind, number), width in widths.items():
            name, index = _LAYER[kind], str(1 if kind == "middle" else number)
            if sharing == "width":
                pair = {attn: self.widths[str(width)] for attn in ("attn1", "attn2")}
            else:
                if not hasattr(self, name):
                    self.add_module(name, nn.ModuleDict())
                pair = nn.ModuleDict({attn: module(width) for attn in ("attn1", "attn2")})
                self.get_submodule(name).add_module(index, pair)
            for attn, site in pair.items():
                self._sites[kind, number, attn] = site  # type: ignore[assignment]

    def initialize_weights(self) -> None:
        for module in self._sites.values():
            zero_(module.to_out)
            if module.to_place is not None:
                nn.init.normal_(module.to_place.weight, std=0.5)  # type: ignore[arg-type]

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(self._sites)

    def keys_values(self, features: Features) -> KeyValues:
        """Keys and values [B, h * w, C] per site; they serve every frame and (with a fixed t) every step."""
        return {site: module.keys_values(self._seen(features[site])) for site, module in self._sites.items()}

    def residual(self, site: Site, z: Tensor, keys_values: KeyValues, where: Tensor | None,
                 options: dict[str, Any]) -> Tensor:  # fmt: skip
        """Unmasked Attention(...) at one site. z [B * F, N, C], the layer's own output -> [B * F, N, C]."""
        if self.features == "hidden":
            z = z + options["dv2_hidden_states"]
        return self._sites[site](self._seen(z), *keys_values[site], where, self.attention, options)

    def _seen(self, z: Tensor) -> Tensor:
        return F.layer_norm(z, z.shape[-1:]) if self.features == "hidden" else z


def blended_mask(masks: Tensor, lambda_m: float | Tensor) -> Tensor:
    """M^ = M + lambda_M (1 - M) (section 4.3). ``lambda_m`` in 0..1."""
    return masks + lambda_m * (1.0 - masks)


@dataclass
class Reference:
    """What one UNet forward needs for reference attention; travels as ``transformer_options["dv2_reference"]``.

    Attributes:
        attentions: the modules.
        keys_values: per site [B, S, C], one row per video that attends.
        weight: of their frames M^ times strength, [B * F, 1, H, W] at any resolution of at least the latent's, or None
            for all ones.
        frames: the boxes' coordinate frames [B * F, 4] (:func:`.position.box_frames`), or None without boxes.
        rows: where those frames are among the rows of the batch, integers [B * F], or None for all rows. The others
            stay as they are: what a weight of zero gives, without the work.
    """

    attentions: ReferenceAttentions
    keys_values: KeyValues
    weight: Tensor | None
    frames: Tensor | None = None
    rows: Tensor | None = None
    _resized: dict[tuple[int, int, torch.dtype], Tensor] = field(default_factory=dict)
    _places: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def weight_at(self, height: int, width: int, dtype: torch.dtype) -> Tensor | None:
        """M^ area-averaged to a feature size: [B * F, height * width, 1]."""
        if self.weight is None:
            return None
        size = height, width, dtype
        if size not in self._resized:
            small = F.adaptive_avg_pool2d(self.weight, (height, width))
            self._resized[size] = small.flatten(2).transpose(1, 2).to(dtype)
        return self._resized[size]

    def places_at(self, height: int, width: int) -> Tensor | None:
        """Places of the video's tokens in their boxes at a feature size: [B * F, height * width, 16]."""
        if self.frames is None:
            return None
        if (height, width) not in self._places:
            self._places[height, width] = places(self.frames, height, width)
        return self._places[height, width]


class ReferencePatch:
    """ComfyUI ``attn1_output_patch`` or ``attn2_output_patch`` adding the masked reference attention."""

    def __init__(self, attn: str, key: str = "dv2_reference") -> None:
        """key: where in the transformer options the :class:`Reference` lies; one key per subject."""
        self.attn, self.key = attn, key

    def __call__(self, z: Tensor, extra_options: dict[str, Any]) -> Tensor:
        reference: Reference | None = extra_options.get(self.key)
        site = (*extra_options["block"], self.attn)
        if reference is None or site not in reference.keys_values:
            return z
        height, width = extra_options["activations_shape"][2:]
        if z.shape[1] != height * width:
            raise ValueError(
                f"Reference attention got {z.shape[1]} tokens where the feature map has {height}x{width}: another "
                "patch merges tokens before it. Apply Reference Attention after that patch, or leave token merging out."
            )
        rows, attending, options = reference.rows, z, extra_options
        if rows is not None:
            attending, options = z[rows], {**options, "dv2_hidden_states": options["dv2_hidden_states"][rows]}
        where = reference.places_at(height, width)
        residual = reference.attentions.residual(site, attending, reference.keys_values, where, options)
        weight = reference.weight_at(height, width, residual.dtype)
        if rows is not None:
            return z.index_add(0, rows, (residual if weight is None else residual * weight).to(z.dtype))
        if weight is None:
            return add(residual, z)
        # One pass over the memory, into the residual's own unless a backward pass needs that.
        in_place = residual.dtype == z.dtype and not torch.is_grad_enabled()
        return torch.addcmul(z, residual, weight, out=residual if in_place else None)


def reference_patches() -> dict[str, list[Any]]:
    """The patches to put into ``transformer_options["patches"]``."""
    return {f"{attn}_output_patch": [ReferencePatch(attn)] for attn in ("attn1", "attn2")}


def subject_features(unet: UNet3D, latent: Tensor, timesteps: Tensor, context: Tensor, kind: str = "attention",
                     options: dict[str, Any] | None = None) -> Features:  # fmt: skip
    """Run the subject as one-frame videos through the unpatched UNet and keep every layer's Z'_s.

    Args:
        latent: [B, C, h, w]; clean with ``timesteps`` zero by default (the policy is in the adapter's metadata).
        timesteps: [B]. context: [B, L, D].
        kind: "attention" or "hidden", as :class:`ReferenceAttentions` takes them.
        options: further transformer options, for example an attention override; patches in them are not used.
    """
    features: Features = {}

    def recorder(attn: str) -> Any:
        def record(z: Tensor, extra_options: dict[str, Any]) -> Tensor:
            seen = z + extra_options["dv2_hidden_states"] if kind == "hidden" else z
            features[(*extra_options["block"], attn)] = seen.unflatten(1, extra_options["activations_shape"][2:])
            return z

        return record

    recorders = {f"{attn}_output_patch": [recorder(attn)] for attn in ("attn1", "attn2")}
    unpatched = {k: v for k, v in (options or {}).items() if k != "patches_replace"}
    unet(latent, timesteps, context, num_video_frames=1, transformer_options={**unpatched, "patches": recorders})
    return features
