"""The two halves of the method: subject on MODEL, boxes on CONDITIONING."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from .host import compat
from .host.adapter import HostAdapter
from .host.motion import MotionControl, apply_motion, with_video_length
from .host.reference import SubjectReference
from .types import CATEGORY, Adapter


def schedule_inputs() -> list[Any]:
    settings: dict[str, Any] = dict(min=0.0, max=1.0, step=0.01)
    return [
        io.Float.Input("start", default=0.0, tooltip="From this part of the steps on.", **settings),
        io.Float.Input("end", default=1.0, tooltip="Up to this part of the steps.", **settings),
    ]


class ReferenceAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2ReferenceAttention",
            display_name="Reference Attention (DreamVideo-2)",
            category=CATEGORY,
            description="Lets the video attend to the subject, mostly inside the boxes (masked reference attention).",
            search_aliases=["subject", "IPAdapter", "identity", "reference only"],
            inputs=[
                io.Model.Input("model"),
                Adapter.Input("adapter"),
                io.Vae.Input("vae"),
                io.Image.Input("subject", tooltip="Canvas of Load Subject or Prepare Subject."),
                io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.01, tooltip="0: the unpatched model."),
                io.Float.Input("lambda_m", default=-1.0, min=-1.0, max=1.0, step=0.01,
                               tooltip="Weight of the subject outside the boxes: 0 only inside, 1 everywhere, -1 the "
                               "adapter's own (0.75 in the paper)."),
                *schedule_inputs(),
                io.Mask.Input("masks", optional=True,
                              tooltip="Of Boxes to Mask. Without it the subject acts everywhere."),
            ],
            outputs=[io.Model.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, adapter: HostAdapter, vae: Any, subject: torch.Tensor, strength: float,
                lambda_m: float, start: float, end: float,
                masks: torch.Tensor | None = None) -> io.NodeOutput:  # fmt: skip
        adapter.check_base(model.model)
        if adapter.ref is None:
            raise ValueError(f"The adapter {adapter.name} has no reference attention; it was trained for motion only.")
        latent = model.model.process_latent_in(vae.encode(subject[:1, :, :, :3]))
        if latent.shape[1] != adapter.config.unet.in_channels:
            raise ValueError(
                f"This VAE makes {latent.shape[1]} latent channels, but the base has "
                f"{adapter.config.unet.in_channels}. Connect the VAE that was loaded with the base."
            )
        lambda_m = adapter.config.lambda_m if lambda_m < 0 else lambda_m
        reference = SubjectReference(adapter, latent, masks, strength, lambda_m, start, end)
        return io.NodeOutput(reference.attach(model))


class MotionEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2MotionEncoder",
            display_name="Mask Motion Encoder (DreamVideo-2)",
            category=CATEGORY,
            description="Encodes the box masks and steers the video along them, as a ControlNet on the conditioning.",
            search_aliases=["motion", "box control", "trajectory control", "ControlNet"],
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                Adapter.Input("adapter"),
                io.Mask.Input("masks", tooltip="Of Boxes to Mask, one per frame."),
                io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.01, tooltip="0 is no control."),
                *schedule_inputs(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
            ],
        )

    @classmethod
    def execute(cls, positive: Any, negative: Any, adapter: HostAdapter, masks: torch.Tensor, strength: float,
                start: float, end: float) -> io.NodeOutput:  # fmt: skip
        if adapter.motion is None:
            raise ValueError(f"The adapter {adapter.name} has no motion module; it was trained for the subject only.")
        if strength == 0.0 or start >= end:
            return io.NodeOutput(positive, negative)
        control = MotionControl(adapter, masks)
        control.set_cond_hint(masks, strength, (start, end))
        made: dict[Any, Any] = {}
        positive, negative = (with_video_length(c, len(masks)) for c in (positive, negative))
        positive = apply_motion(positive, control, made)
        if adapter.config.motion_uncond == "same":
            negative = apply_motion(negative, control, made)
        return io.NodeOutput(positive, negative)


NODES: list[Any] = [ReferenceAttention, MotionEncoder]
