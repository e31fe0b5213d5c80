"""What differs between ComfyUI cores is looked up here by what the core offers, never by its version."""

from __future__ import annotations

import inspect
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from comfy.cli_args import args
from comfy_api.latest import io


def model_patcher(model: torch.nn.Module) -> Any:
    """Wrap a module so that ComfyUI loads and offloads it. Newer cores rebind the class at start: looked up late."""
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(
        model,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def attention() -> Any:
    """The core's attention. On a CPU its default computes in pieces as large as the free memory; torch's does not.

    Of 448x256x16 in float32 the sub-quadratic one takes 2 to 3 times as long and 4 GiB more. Who asks for it gets it.
    """
    known = comfy.ldm.modules.attention
    return known.attention_pytorch if fused_attention_on_cpu() else known.optimized_attention


def fused_attention_on_cpu() -> bool:
    known = comfy.ldm.modules.attention
    unasked = known.optimized_attention is known.attention_sub_quad and not args.use_quad_cross_attention
    fused = unasked or known.optimized_attention is known.attention_pytorch
    return comfy.model_management.cpu_mode() and fused


def text_encoder(target: Any, weights: dict[str, torch.Tensor]) -> Any:
    """A CLIP with these weights. Newer cores want them at once, since they may move it to the GPU straight away."""
    known = inspect.signature(comfy.sd.CLIP.__init__).parameters
    given = {"state_dict": [weights]} if "state_dict" in known else {}
    clip = comfy.sd.CLIP(target, parameters=comfy.utils.calculate_parameters(weights), **given)
    if not given:
        clip.load_sd(weights)
    return clip


def schema(**settings: Any) -> io.Schema:
    """``io.Schema`` without the fields that this core does not know (``search_aliases``, ...)."""
    known = inspect.signature(io.Schema).parameters
    return io.Schema(**{k: v for k, v in settings.items() if k in known})


def bounding_box_type() -> Any:
    """The core's BOUNDING_BOX socket, or one of the same name on a core that has none."""
    return getattr(io, "BoundingBox", None) or io.Custom("BOUNDING_BOX")


def tracks_type() -> Any:
    """The core's TRACKS socket, or one of the same name on a core that has none."""
    return getattr(io, "Tracks", None) or io.Custom("TRACKS")


def boxes_input(id: str, **settings: Any) -> Any:
    """A socket for the boxes of any pack: the core's types, KJNodes' and SAM 2's BBOX, the Impact Pack's SEGS."""
    array = getattr(io, "Array", None) or io.Custom("ARRAY")
    types = [bounding_box_type(), io.BBOX, io.SEGS, tracks_type(), array, io.String]
    return io.MultiType.Input(id, types=types, **settings)


def advanced(cls: Any, id: str, **settings: Any) -> Any:
    """A widget that the page keeps folded away. A core that cannot say so may still serve a page that can."""
    if "advanced" in inspect.signature(cls.Input).parameters:
        return cls.Input(id, advanced=True, **settings)
    made = cls.Input(id, **settings)
    made.extra_dict = {**made.extra_dict, "advanced": True}
    return made


def bounding_box_input(id: str, **settings: Any) -> Any:
    """A BOUNDING_BOX input that is a socket: newer cores would make it a widget of one box."""
    cls = bounding_box_type().Input
    known = inspect.signature(cls).parameters
    # A core that does not know force_input may still serve a page that does.
    settings |= {"force_input": True} if "force_input" in known else {"extra_dict": {"forceInput": True}}
    return cls(id, **settings)
