"""The networks of DreamVideo-2: base UNet, reference attention, motion module, adapter file."""

from .adapter import Adapter, AdapterConfig, fingerprint, read_adapter, save_adapter
from .attention import AttentionFunction, plain_attention, sdpa_attention
from .config import UNet3DConfig
from .motion import MotionModule
from .reference import (
    Reference,
    ReferenceAttentions,
    ReferencePatch,
    blended_mask,
    reference_patches,
    subject_features,
)
from .unet3d import UNet3D

__all__ = [
    "Adapter", "AdapterConfig", "AttentionFunction", "MotionModule", "Reference", "ReferenceAttentions",
    "ReferencePatch", "UNet3D", "UNet3DConfig", "blended_mask", "fingerprint", "plain_attention", "read_adapter",
    "reference_patches", "save_adapter", "sdpa_attention", "subject_features",
]  # fmt: skip
