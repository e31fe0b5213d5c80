"""Names of the base's layers in LoRA files, for every LoRA loader."""

from __future__ import annotations

import functools
from typing import Any

import comfy.lora

from ...dv2_core.checkpoints import original_to_diffusers
from ...dv2_core.model import UNet3D


def register_names() -> None:
    """Let the core's map of LoRA names know all of diffusers' names for our UNet.

    By itself the core knows the original names and those that diffusers gives to an image UNet, so LoRAs of Stable
    Diffusion 2.1 land where they should. It would drop what an image UNet has not or has elsewhere: temporal layers,
    the second ResBlock in the middle, down- and upsampling.
    """
    known = comfy.lora.model_lora_keys_unet

    @functools.wraps(known)
    def with_ours(model: Any, key_map: Any = None) -> Any:
        names = known(model, {} if key_map is None else key_map)
        unet = getattr(model, "diffusion_model", None)
        if isinstance(unet, UNet3D):
            names.update(diffusers_names(unet))
        return names

    comfy.lora.model_lora_keys_unet = with_ours


def diffusers_names(unet: UNet3D) -> dict[str, str]:
    """LoRA name -> weight of the MODEL: with dots (PEFT, diffusers old and new), and as kohya and LyCORIS write it."""
    weights, names = unet.state_dict(), {}
    for ours, theirs in zip(weights, original_to_diffusers(weights, unet.config), strict=True):
        if ours.endswith(".weight"):
            dotted = theirs.removesuffix(".weight")
            flat = dotted.replace(".", "_")
            older = dotted.replace(".to_out.0", ".to_out").replace(".to_", ".processor.to_")
            forms = (dotted, f"unet.{dotted}", older, f"unet.{older}", f"lora_unet_{flat}", f"lycoris_{flat}")
            names |= dict.fromkeys(forms, f"diffusion_model.{ours}")
    return names
