"""The ModelScopeT2V base as a ComfyUI MODEL."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.patcher_extension
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor

from ...dv2_core.checkpoints import read_base
from ...dv2_core.diffusion import Prediction, zero_terminal_snr
from ...dv2_core.model import UNet3D, UNet3DConfig, fingerprint
from . import compat, files
from .windows import frames_in_context_windows


class HostUNet3D(UNet3D):
    """The UNet with ComfyUI's operations, attention and DIFFUSION_MODEL wrappers."""

    def __init__(self, dreamvideo2: UNet3DConfig, dtype: Any = None, device: Any = None, operations: Any = None,
                 **_: Any) -> None:  # fmt: skip
        super().__init__(dreamvideo2, operations, compat.attention(), dtype, device)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, num_video_frames: int = 1, control: Any = None,
                transformer_options: dict[str, Any] | None = None, **_: Any) -> Tensor:  # fmt: skip
        options = transformer_options if transformer_options is not None else {}
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(super().forward, self, wrappers)
        return executor.execute(x, timesteps, context, num_video_frames, control, options)


class MiniatureLatent(comfy.latent_formats.LatentFormat):
    """Latents of the shipped miniature: f8, 24 channels, already of unit variance."""

    latent_channels = 24
    scale_factor = 1.0
    # For previews while sampling: the mean colour of a patch is in its first three components.
    latent_rgb_factors = [[0.229, 0.229, 0.226], [0.151, 0.0, -0.153], [-0.083, 0.165, -0.082], *[[0.0] * 3] * 21]
    latent_rgb_factors_bias = [0.183, 0.162, 0.152]


class ModelScopeConfig(comfy.supported_models_base.BASE):
    """Model config of the family.

    Activations of the full size in the core's unit, 1 % of a MiB for each byte of a position (docs/full-size.md):
    ``memory_usage_factor`` by the tensors that are alive at once on a GPU, ``cpu_usage_factor`` by the resident memory
    on a CPU, which works in smaller pieces but casts weights as it uses them.
    """

    unet_extra_config: dict[str, Any] = {}
    memory_usage_factor = 0.86
    cpu_usage_factor = 0.6

    def __init__(self, config: UNet3DConfig, prediction: Prediction, latent_format: Any) -> None:
        self.latent_format = latent_format
        self.prediction = prediction
        cosine = prediction == "v_cosine_zsnr"
        self.sampling_settings = {
            "zsnr": zero_terminal_snr(prediction), "beta_schedule": "cosine" if cosine else "linear",
        }  # fmt: skip
        # The names next to "dreamvideo2" are what ComfyUI's LoRA key map for diffusers names looks for.
        super().__init__({
            "dreamvideo2": config, "in_channels": config.in_channels, "model_channels": config.model_channels,
            "num_res_blocks": [config.num_res_blocks] * len(config.channel_mult),
            "channel_mult": list(config.channel_mult),
            "transformer_depth": _depths(config, config.num_res_blocks),
            "transformer_depth_output": _depths(config, config.num_res_blocks + 1), "transformer_depth_middle": 1,
            "context_dim": config.context_dim, "num_head_channels": config.head_dim, "use_linear_in_transformer": True,
        })  # fmt: skip


class ModelScopeT2V(comfy.model_base.BaseModel):
    """Frames are batch; ``num_video_frames`` travels as a cond constant, which context windows overwrite by name."""

    def __init__(self, config: ModelScopeConfig, device: Any = None) -> None:
        kind = comfy.model_base.ModelType.EPS if config.prediction == "eps" else comfy.model_base.ModelType.V_PREDICTION
        super().__init__(config, kind, device, unet_model=HostUNet3D)
        self.fingerprint = self.base_name = ""

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        shape, known = kwargs["noise"].shape, kwargs.get("dv2_video_length")
        text: Any = kwargs.get("cross_attn")
        self._check_inputs(shape, text)
        # Here once: the core would repeat the text per frame and bring it to the GPU at every step.
        out = super().extra_conds(**{**kwargs, "cross_attn": text.to(kwargs["device"])})
        frames = known or shape[0]
        if shape[0] % frames:
            raise ValueError(
                f"The latent has {shape[0]} frames, which is not a whole number of videos of {frames} frames "
                f"(the number of box masks). Set the batch size of the empty latent to {frames}, or the boxes' length."
            )
        out["num_video_frames"] = comfy.conds.CONDConstant(frames)
        out["video_length"] = comfy.conds.CONDConstant(known)
        out["one_text"] = comfy.conds.CONDConstant(text.shape[0] == 1)
        return out

    def memory_required(self, input_shape: Any, *args: Any, **kwargs: Any) -> float:
        """Bytes of activations for a latent [rows, C, h, w], which the core keeps free.

        The core's own formula reckons on every CPU with attention that stores its weights, which torch's
        (:func:`.compat.attention`) does not.
        """
        if not compat.fused_attention_on_cpu():
            return super().memory_required(input_shape, *args, **kwargs)
        size = comfy.model_management.dtype_size(self.manual_cast_dtype or self.get_dtype())
        positions = input_shape[0] * math.prod(input_shape[2:])
        return positions * size * 0.01 * ModelScopeConfig.cpu_usage_factor * 2**20

    def _check_inputs(self, latent: Any, text: Tensor | None) -> None:
        """Before the first step, a sentence instead of an error from inside the network. latent: its shape."""
        config = self.diffusion_model.config
        if len(latent) != 4 or latent[0] < 1 or latent[1] != config.in_channels:
            raise ValueError(
                f"The latent has shape {list(latent)}, but this base takes [frames, {config.in_channels}, height / 8, "
                "width / 8]. Use 'Empty Latent Image' with the number of frames as batch size, or 'VAE Encode' with "
                "the VAE that was loaded with the base."
            )
        if text is None or text.shape[-1] != config.context_dim:
            width = 0 if text is None else text.shape[-1]
            raise ValueError(
                f"The text is encoded with {width} numbers per token, but this base was trained with "
                f"{config.context_dim}. Use the text encoder that belongs to the base."
            )

    def _apply_model(self, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
                     transformer_options: Any = None, **kwargs: Any) -> Tensor:  # fmt: skip
        kwargs.pop("video_length", None)
        if kwargs.pop("one_text", False):
            c_crossattn = c_crossattn[:: kwargs["num_video_frames"]]  # [videos, L, D]: the frames of a video share it
        return super()._apply_model(x, t, c_concat, c_crossattn, control, transformer_options or {}, **kwargs)


#: Weights stored smaller than they are computed with; None: what the core finds best for the machine.
STORED: dict[str, torch.dtype | None] = {
    "default": None, "fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2,
}  # fmt: skip


def load_base(path: Path, prediction: str, weight_dtype: str = "default") -> Any:
    """Load a base, a file or a folder of diffusers, as a ModelPatcher.

    Args:
        prediction: "auto" (what the file's metadata says, else eps), or one of :data:`dv2_core.diffusion.PREDICTIONS`.
        weight_dtype: a key of :data:`STORED`.

    Raises:
        ValueError: the file is not a base of this family; the sentence says what it looks like.
    """
    base = read_base(path, mmap=files.mmap())
    base.check_numbers()
    if prediction == "auto":
        prediction = base.prediction or "eps"
    miniature = base.metadata.get("dreamvideo2.latent") == "dv2-mini"
    latent = MiniatureLatent if miniature else comfy.latent_formats.SD15
    settings = ModelScopeConfig(base.config, prediction, latent)  # type: ignore[arg-type]
    parameters, stored = comfy.utils.calculate_parameters(base.weights), comfy.utils.weight_dtype(base.weights)
    dtype = STORED[weight_dtype] or comfy.model_management.unet_dtype(
        model_params=parameters, supported_dtypes=list(settings.supported_inference_dtypes), weight_dtype=stored
    )
    cast = comfy.model_management.unet_manual_cast(
        dtype, comfy.model_management.get_torch_device(), settings.supported_inference_dtypes
    )
    settings.set_inference_dtype(dtype, cast)
    name = fingerprint(base.weights)
    model = ModelScopeT2V(settings, comfy.model_management.unet_inital_load_device(parameters, dtype))
    model.load_model_weights(base.weights)
    model.fingerprint, model.base_name = name, base.name
    patcher = compat.model_patcher(model)
    kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    patcher.add_wrapper_with_key(kind, "dv2_context_windows", frames_in_context_windows)
    return patcher


def _depths(config: UNet3DConfig, per_level: int) -> list[int]:
    return [
        int(level in config.attention_levels) for level in range(len(config.channel_mult)) for _ in range(per_level)
    ]
