"""Reference attention on a MODEL: output patches, and a wrapper that supplies the subject's keys and values."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.patcher_extension
import torch
from torch import Tensor

from ...dv2_core.model import Reference, ReferencePatch, UNet3D, blended_mask, subject_features
from ...dv2_core.model.attention import attention_override
from ...dv2_core.model.position import box_frames
from ...dv2_core.model.reference import KeyValues
from .adapter import HostAdapter, check_masks, compute_dtype, window_rows


class SubjectReference:
    """One subject attached to one MODEL.

    The subject runs through the very UNet that denoises the video (LoRAs included), once per run and text; with the
    policy "video" once per step and text. ComfyUI gives each text of a run an id of its own (``uuids``), which keys the
    cache, so regional prompts and several LoRA groups stay apart.
    """

    def __init__(self, adapter: HostAdapter, latent: Tensor, masks: Tensor | None, strength: float, lambda_m: float,
                 start: float, end: float) -> None:  # fmt: skip
        """latent [1, C, h, w] as the UNet takes it; masks [F, H, W] or None; start, end: parts of the steps, 0..1."""
        if masks is not None:
            check_masks(masks)
        self.adapter, self.latent, self.strength, self.lambda_m = adapter, latent, strength, lambda_m
        self.masks = None if masks is None else masks[:, None]
        self.percents, self.sigmas = (start, end), (float("inf"), 0.0)
        self.key = f"dv2_reference_{id(self)}"
        self.rows: dict[Any, KeyValues] = {}
        self.prepared: tuple[Any, Reference] | None = None

    def __deepcopy__(self, memo: Any) -> SubjectReference:
        return self

    def attach(self, model: Any) -> Any:
        """A clone of the MODEL with this subject; the given MODEL stays as it is."""
        model = model.clone()
        if self.strength == 0.0 or self.percents[0] >= self.percents[1]:
            return model
        sampling = model.get_model_object("model_sampling")
        self.sigmas = tuple(float(sampling.percent_to_sigma(p)) for p in self.percents)
        for attn in ("attn1", "attn2"):
            model.set_model_patch(ReferencePatch(attn, self.key), f"{attn}_output_patch")
        model.set_additional_models(self.key, [self.adapter.ref])
        wrappers, callbacks = comfy.patcher_extension.WrappersMP, comfy.patcher_extension.CallbacksMP
        model.add_wrapper_with_key(wrappers.APPLY_MODEL, self.key, self)
        model.add_callback_with_key(callbacks.ON_CLEANUP, self.key, self.forget)
        return model

    def forget(self, *_: Any) -> None:
        """End of a run: its texts' ids never come back."""
        self.rows.clear()
        self.prepared = None

    def __call__(self, executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None,
                 control: Any = None, transformer_options: Any = None, **kwargs: Any) -> Tensor:  # fmt: skip
        options = transformer_options or {}
        if self.masks is not None and "context_window" not in options:
            kwargs["num_video_frames"] = self._frames(x.shape[0] // len(options["uuids"]), kwargs.get("video_length"))
        attending = self._attending(options)
        if attending and self._active(t):
            frames = kwargs["num_video_frames"]
            reference = self._reference(executor.class_obj, x, t, c_crossattn, options, frames, attending)
            options = {**options, self.key: reference}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _frames(self, rows: int, known: int | None) -> int:
        """Frames of one video: the masks know, also when a batch holds several videos."""
        frames = len(self.masks)  # type: ignore[arg-type]
        if known not in (None, frames):
            raise ValueError(
                f"Reference attention has {frames} box masks and the motion encoder {known}. Connect both to the same "
                "converter."
            )
        if rows % frames:
            raise ValueError(
                f"The latent has {rows} frames, which is not a whole number of videos of {frames} frames (the number "
                f"of box masks). Set the batch size of the empty latent to {frames}, or the length of the boxes."
            )
        return frames

    def _active(self, sigma: Tensor) -> bool:
        if self.percents == (0.0, 1.0):
            return True  # no look at sigma: that would wait for the GPU
        return self.sigmas[1] <= float(sigma[0]) <= self.sigmas[0]

    def _attending(self, options: dict[str, Any]) -> list[int]:
        """The parts of the batch that see the subject: all, or all but those of the unconditional branch."""
        dropped = self.adapter.config.ref_uncond == "drop"
        return [n for n, flag in enumerate(options["cond_or_uncond"]) if not (dropped and flag == 1)]

    def _reference(self, model: Any, x: Tensor, sigma: Tensor, text: Tensor, options: dict[str, Any], frames: int,
                   attending: list[int]) -> Reference:  # fmt: skip
        ids, window = options["uuids"], options.get("context_window")
        per_step = float(sigma[0]) if self.adapter.config.ref_timestep == "video" else None
        state = (tuple(ids), x.shape, per_step, None if window is None else tuple(window.index_list))
        if self.prepared is not None and self.prepared[0] == state:
            return self.prepared[1]
        if per_step is not None:  # the keys and values of a step never come back
            self.rows = {key: value for key, value in self.rows.items() if key[1] == per_step}
        text_rows = text.shape[0] // len(ids)
        videos = x.shape[0] // frames // len(ids)
        chunks = []
        for n in attending:
            uuid = ids[n]
            if (uuid, per_step) not in self.rows:
                self.rows[uuid, per_step] = self._keys_values(
                    model, text[n * text_rows : n * text_rows + 1], sigma[:1], options
                )
            chunks.append(self.rows[uuid, per_step])
        stacked = {
            site: tuple(torch.cat([c[site][i].expand(videos, -1, -1) for c in chunks]) for i in (0, 1))
            for site in chunks[0]
        }  # site -> K and V [len(attending) * videos, S, C]
        boxless = [self.adapter.config.motion_uncond == "drop" and options["cond_or_uncond"][n] == 1 for n in attending]
        boxless = [flag for flag in boxless for _ in range(videos)]
        rows = None
        if len(attending) < len(ids):
            rows = torch.arange(x.shape[0], device=x.device).chunk(len(ids))
            rows = torch.cat([rows[n] for n in attending])
        weight, boxes = self._weight(x, options, frames, boxless), self._boxes(x, options, boxless)
        reference = Reference(self.adapter.ref.model, stacked, weight, boxes, rows)  # type: ignore[arg-type]
        self.prepared = state, reference
        return reference

    def _weight(self, x: Tensor, options: dict[str, Any], frames: int, boxless: list[bool]) -> Tensor | None:
        """strength * M^ per row that attends: [rows, 1, H, W], or None where it is one everywhere.

        boxless: of each video, whether its boxes are dropped; M^ is 1 there, as in training.
        """
        if self.masks is None and self.strength == 1.0:
            return None
        masks = torch.ones(frames, 1, *x.shape[2:]) if self.masks is None else window_rows(self.masks, options)
        given = (self.strength * blended_mask(masks, self.lambda_m)).to(x.device, torch.float32)
        return torch.cat([torch.full_like(given, self.strength) if flag else given for flag in boxless])

    def _boxes(self, x: Tensor, options: dict[str, Any], boxless: list[bool]) -> Tensor | None:
        """The boxes' coordinate frames per row that attends, [rows, 4], where the adapter looks at them."""
        if self.masks is None or self.adapter.config.ref_position == "none":
            return None
        given = box_frames(window_rows(self.masks, options)).to(x.device)
        return torch.cat([torch.zeros_like(given) if flag else given for flag in boxless])

    def _keys_values(self, model: Any, text: Tensor, sigma: Tensor, options: dict[str, Any]) -> KeyValues:
        dtype, device = compute_dtype(model), sigma.device
        unet, sampling = model.diffusion_model, model.model_sampling
        time = (
            sampling.timestep(sigma).float() if self.adapter.config.ref_timestep == "video" else torch.zeros_like(sigma)
        )
        latent = comfy.model_management.cast_to_device(self.latent, device, dtype)
        text = comfy.model_management.cast_to_device(text, device, dtype)

        def plain(*args: Any, **kwargs: Any) -> Tensor:  # without the wrappers that belong to the video's own pass
            return UNet3D.forward(unet, *args, **kwargs)

        kind = self.adapter.config.ref_features
        features = subject_features(plain, latent, time, text, kind, attention_override(options))  # type: ignore[arg-type]
        return self.adapter.ref.model.keys_values(features)
