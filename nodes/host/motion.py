"""The motion module as a ControlNet on CONDITIONING."""

from __future__ import annotations

from typing import Any

import comfy.controlnet
import comfy.model_management
import comfy.utils
from torch import Tensor

from .adapter import HostAdapter, compute_dtype, window_rows


class MotionControl(comfy.controlnet.ControlBase):
    """Box masks -> residuals for the decoder. The encoder runs once per run: its hint does not depend on the step."""

    def __init__(self, adapter: HostAdapter, masks: Tensor) -> None:
        """masks [F, H, W], 1 inside the box."""
        super().__init__()
        self.adapter, self.masks = adapter, masks
        self.model: Any = None

    def __deepcopy__(self, memo: Any) -> MotionControl:
        return self

    def copy(self) -> MotionControl:
        other = MotionControl(self.adapter, self.masks)
        self.copy_to(other)
        return other

    def get_models(self) -> list[Any]:
        return [*super().get_models(), self.adapter.motion]

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        self.adapter.check_base(model)
        super().pre_run(model, percent_to_timestep_function)
        self.model = model

    def cleanup(self) -> None:
        super().cleanup()
        self.model = None

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
        residuals = motion.controlnet(x, hint.repeat(x.shape[0] // frames, 1, 1, 1), sampling.timestep(t).float(), text)
        return self.control_merge({"input": [], **residuals}, previous, output_dtype=None)

    def _active(self, sigma: Tensor) -> bool:
        if self.timestep_percent_range == (0.0, 1.0) or self.timestep_range is None:
            return True
        return self.timestep_range[1] <= float(sigma[0]) <= self.timestep_range[0]

    def _hint(self, motion: Any, x: Tensor, options: dict[str, Any], frames: int) -> Tensor:
        """[F, C, h, w] for the frames of the current context window."""
        window = options.get("context_window")
        state = (x.shape[2:], None if window is None else tuple(window.index_list))
        if self.cond_hint is None or self.cond_hint[0] != state:
            masks = window_rows(self.masks, options)
            if masks.shape[0] != frames:
                raise ValueError(
                    f"The motion encoder has {masks.shape[0]} box masks, but the video has {frames} frames. Give the "
                    "converter the length of the video, or the empty latent the length of the boxes."
                )
            height, width = (side * self.compression_ratio for side in x.shape[2:])
            masks = comfy.utils.common_upscale(masks[:, None], width, height, "area", "disabled")
            hint = motion.encode(masks.to(x.device, x.dtype), frames)
            self.cond_hint = state, hint
        return self.cond_hint[1]


def apply_motion(conditioning: list[Any], control: MotionControl, made: dict[Any, Any]) -> list[Any]:
    """Attach the control to every entry of a CONDITIONING (copied), after controls that are there already.

    ``made`` is shared between positive and negative: rows are batched only if they have the identical control object.
    """
    out = []
    for embedding, settings in conditioning:
        previous = settings.get("control")
        if previous not in made:
            made[previous] = control.copy().set_previous_controlnet(previous)
        settings = {
            **settings,
            "control": made[previous],
            "control_apply_to_uncond": False,
            "dv2_video_length": len(control.masks),
        }
        out.append([embedding, settings])
    return out
