"""LoRA files in the styles that exist, and the same change merged into a base file."""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

#: Layers of every kind, by their original names.
LAYERS = (
    "input_blocks.1.0.in_layers.2", "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k", "input_blocks.1.2.proj_in", "middle_block.1.proj_out",
    "output_blocks.0.2.transformer_blocks.0.ff.net.2", "time_embed.0", "output_blocks.1.0.temopral_conv.conv2.3",
)  # fmt: skip
#: Ends of the names of both matrices, and of the factor where the style has one.
STYLES = {
    "kohya": (".lora_up.weight", ".lora_down.weight", ".alpha"),
    "peft": (".lora_B.weight", ".lora_A.weight", ""),
    "diffusers": ("_lora.up.weight", "_lora.down.weight", ""),
}


def write_lora(lab: Any, name: str, style: str, keys: Mapping[str, str], base: str) -> dict[str, Tensor]:
    """A LoRA of rank 2 in ``models/loras``; returns what it adds to the weights of the base file.

    keys: original name of each layer -> how the LoRA calls it. What are linear layers in diffusers, and kernel-1
    convolutions in the base, is written as linear.
    """
    weights = load_file(lab.models / "diffusion_models" / base)
    up_name, down_name, alpha = STYLES[style]
    lora, added = {}, {}
    for n, (layer, key) in enumerate(keys.items()):
        shape = weights[f"{layer}.weight"].shape
        given = shape[:2] if shape[2:] == (1,) else shape
        up = lab.noise(given[0], 2, *(1,) * (len(given) - 2), seed=20 + n)
        down = lab.noise(2, *given[1:], seed=40 + n) / given[1:].numel() ** 0.5
        lora |= {key + up_name: up, key + down_name: down}
        if alpha:
            lora[key + alpha] = torch.tensor(1.0)
        scale = 0.5 if alpha else 1.0  # alpha / rank
        added[f"{layer}.weight"] = scale * (up.flatten(1) @ down.flatten(1)).reshape(shape)
    save_file(lora, lab.models / "loras" / name)
    return added


def write_merged(lab: Any, name: str, added: Mapping[str, Tensor], strength: float, base: str) -> None:
    """The base file with the change in it, next to it."""
    path = lab.models / "diffusion_models" / base
    weights = {k: v.float() + strength * added.get(k, torch.zeros(())) for k, v in load_file(path).items()}
    save_file(weights, path.with_name(name), metadata=lab.metadata(path))
