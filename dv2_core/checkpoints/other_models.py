"""What a file that is no base of this family looks like, from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.", "module.")
# Width of the text that an image UNet attends to.
_IMAGE_UNETS = {
    768: "Stable Diffusion 1.x",
    1024: "Stable Diffusion 2.x",
    1280: "the SDXL refiner",
    2048: "SDXL",
}
# (a part of some tensor's name, clause), the most telling first.
_PARTS = (
    ("lora", "looks like a LoRA"),
    (".hada_w1", "looks like a LoRA"),
    ("motion_modules.", "looks like an AnimateDiff motion module"),
    ("image_latents_proj_in.", "looks like I2VGen-XL, which is another network of this family"),
    ("local_image_embedding.", "looks like I2VGen-XL, which is another network of this family"),
    (".time_stack.", "looks like Stable Video Diffusion"),
    (".time_mixer.", "looks like Stable Video Diffusion"),
    (".temporal_transformer_blocks.", "looks like Stable Video Diffusion"),
    (".temopral_conv.", "has only a part of such a UNet"),
    (".temp_convs.", "has only a part of such a UNet"),
    ("transformer_in.", "has only a part of such a UNet"),
    ("zero_convs.", "looks like a ControlNet"),
    ("controlnet_cond_embedding.", "looks like a ControlNet"),
    ("double_blocks.", "looks like a Flux or HunyuanVideo transformer"),
    ("caption_projection.", "looks like an LTX or PixArt transformer"),
)


def looks_like(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """One clause on a file that has no signature of the family.

    Args:
        shapes: shape of every tensor by name; at least one.
    """
    names = list(shapes)
    if any(name.startswith(("ref.", "motion.encoder.", "controlnet.zero_convs.")) for name in names):
        return "looks like a DreamVideo-2 adapter"
    for part, clause in _PARTS:
        if any(part in name for name in names):
            return clause
    inner = {_without_prefix(name): shape for name, shape in shapes.items()}
    if any(name.startswith("blocks.0.self_attn.") for name in inner) or "blocks.0.attn1.to_q.weight" in inner:
        return "looks like Wan"
    if any(name.startswith(("input_blocks.", "down_blocks.")) for name in inner):
        widths = [shape[-1] for name, shape in inner.items() if name.endswith("attn2.to_k.weight") and shape]
        kind = _IMAGE_UNETS.get(widths[0]) if widths else None
        return f"looks like an image UNet ({kind})" if kind else "looks like an image UNet"
    if any(name.startswith(("transformer_blocks.", "joint_blocks.")) for name in inner):
        return "looks like a diffusion transformer (such as CogVideoX or Stable Diffusion 3)"
    if any(name.startswith("text_model.") or "resblocks." in name or ".SelfAttention." in name for name in names):
        return "looks like a text encoder"
    if any(name.startswith(("taesd_", "first_stage_model.", "decoder.", "encoder.")) for name in names):
        return "looks like a VAE"
    return f"starts with {names[0][:80]!r}"


def _without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
