"""The motion module as a ControlNet on CONDITIONING."""

from __future__ import annotations

from typing import Any

import comfy.controlnet
import comfy.model_management
import comfy.utils
from torch import Tensor

from ...dv2_core.model import UNet3DConfig
from .adapter import HostAdapter, check_masks, compute_dtype, window_rows

MAX_HINTS = 16  # context windows that move from step to step would otherwise add hints without end


class MotionControl(comfy.controlnet.ControlBase):
    """Box masks -> residuals for the decoder. The encoder runs once per run: its hint does not depend on the step."""

    def __init__(self, adapter: HostAdapter, masks: Tensor) -> None:
        """masks [F, H, W], 1 inside the box."""
        super().__init__()
        check_masks(masks)
        self.adapter, self.masks = adapter, masks
        self.model: Any = None
        self.hints: dict[Any, Tensor] = {}

    def __deepcopy__(self, memo: Any) -> MotionControl:
        return self

    def copy(self) -> MotionControl:
        other = MotionControl(self.adapter, self.masks)
        self.copy_to(other)
        return other

    def get_models(self) -> list[Any]:
        return [*super().get_models(), self.adapter.motion]

    def inference_memory_requirements(self, dtype: Any) -> float:
        """Bytes of the residuals of every branch of guidance with boxes; they stay until the UNet's decoder takes them.

        dtype: of the base's stored weights. Of a latent of an eighth of the masks' size.
        """
        frames, height, width = self.masks.shape
        dtype = comfy.model_management.unet_manual_cast(dtype, comfy.model_management.get_torch_device()) or dtype
        branches = 2 if self.adapter.config.motion_uncond == "same" else 1
        positions = branches * frames * height * width / self.compression_ratio**2
        size = comfy.model_management.dtype_size(dtype) * positions * _residuals(self.adapter.config.unet)
        return size + super().inference_memory_requirements(dtype)

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        self.adapter.check_base(model)
        super().pre_run(model, percent_to_timestep_function)
        self.model = model
        self.hints.clear()  # an interrupted run is not cleaned up

    def cleanup(self) -> None:
        super().cleanup()
        self.model = None
        self.hints.clear()

    def get_control(self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int,
                    transformer_options: dict[str, Any]) -> dict[str, Any] | None:  # fmt: skip
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        if self.strength == 0.0 or not self._active(t):
            return previous
        frames, dtype = cond["num_video_frames"], compute_dtype(self.model)
        sampling = self.model.model_sampling
        x = sampling.calculate_input(t, x_noisy).to(dtype)
        text = comfy.model_management.cast_to_device(cond["c_crossattn"], x.device, dtype)
        if cond.get("one_text"):
            text = text[::frames]
        motion = self.adapter.motion.model
        hint = self._hint(motion, x, transformer_options, frames)
        residuals = motion.controlnet(x, hint.repeat(x.shape[0] // frames, 1, 1, 1), sampling.timestep(t).float(), text,
                                      transformer_options)  # fmt: skip
        return self.control_merge({"input": [], **residuals}, previous, output_dtype=None)

    def _active(self, sigma: Tensor) -> bool:
        if self.timestep_percent_range == (0.0, 1.0) or self.timestep_range is None:
            return True
        return self.timestep_range[1] <= float(sigma[0]) <= self.timestep_range[0]

    def _hint(self, motion: Any, x: Tensor, options: dict[str, Any], frames: int) -> Tensor:
        """[F, C, h, w] for the frames of the current context window."""
        window = options.get("context_window")
        state = (tuple(x.shape[2:]), None if window is None else tuple(window.index_list))
        if state not in self.hints:
            masks = window_rows(self.masks, options)
            if masks.shape[0] != frames:
                raise ValueError(
                    f"The motion encoder has {masks.shape[0]} box masks, but the video has {frames} frames. Give the "
                    "converter the length of the video, or the empty latent the length of the boxes."
                )
            height, width = (side * self.compression_ratio for side in x.shape[2:])
            masks = comfy.utils.common_upscale(masks[:, None], width, height, "area", "disabled")
            if len(self.hints) >= MAX_HINTS:
                self.hints.clear()
            self.hints[state] = motion.encode(masks.to(x.device, x.dtype), frames)
        return self.hints[state]


def _residuals(config: UNet3DConfig) -> float:
    """Numbers of all residuals for each position of the latent."""
    last = len(config.channel_mult) - 1
    levels = (config.num_res_blocks * config.width(level) / 4**level for level in range(last + 1))
    downsampled = (config.width(level) / 4 ** (level + 1) for level in range(last))
    return config.model_channels + sum(levels) + sum(downsampled) + config.width(last) / 4**last


def with_video_length(conditioning: list[Any], frames: int) -> list[Any]:
    """The CONDITIONING (copied) of a video of so many frames, for a latent batch that holds several videos."""
    return [[embedding, {**settings, "dv2_video_length": frames}] for embedding, settings in conditioning]


def apply_motion(conditioning: list[Any], control: MotionControl, made: dict[Any, Any]) -> list[Any]:
    """Attach the control to every entry of a CONDITIONING (copied), after controls that are there already.

    ``made`` is shared between positive and negative: rows are batched only if they have the identical control object.
    """
    out = []
    for embedding, settings in conditioning:
        previous = settings.get("control")
        if previous not in made:
            made[previous] = control.copy().set_previous_controlnet(previous)
        out.append([embedding, {**settings, "control": made[previous], "control_apply_to_uncond": False}])
    return out
