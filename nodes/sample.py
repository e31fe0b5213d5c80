"""The original's exact DDIM: as one sampler node, and as SIGMAS and SAMPLER for the stock custom samplers."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host import compat, sampling
from .host.adapter import HostAdapter
from .types import CATEGORY, Adapter

STEPS, CFG = 50, 9.0  # the paper's


class Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2Sampler",
            display_name="Sampler (DreamVideo-2)",
            category=CATEGORY,
            description="Exact DDIM with the steps and guidance that the adapter was made for (paper: 50 steps, "
            "CFG 9). Stock samplers work as well.",
            search_aliases=["DDIM", "KSampler", "text to video sampler"],
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent_image", tooltip="Empty Latent Image with the number of frames as batch size."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
                io.Int.Input("steps", default=0, min=0, max=1000,
                             tooltip="0: the adapter's own (50 without an adapter)."),
                io.Float.Input("cfg", default=0.0, min=0.0, max=100.0, step=0.1,
                               tooltip="0: the adapter's own (9 without an adapter)."),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01,
                               tooltip="Below 1 it starts from the given latent (video to video)."),
                Adapter.Input("adapter", optional=True, tooltip="Source of the default steps and cfg."),
            ],
            outputs=[io.Latent.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, positive: Any, negative: Any, latent_image: dict[str, Any], seed: int, steps: int,
                cfg: float, denoise: float, adapter: HostAdapter | None = None) -> io.NodeOutput:  # fmt: skip
        steps = steps or (adapter.config.steps if adapter else STEPS)
        cfg = cfg or (adapter.config.cfg if adapter else CFG)
        sigmas = sampling.ddim_sigmas(model, steps, denoise)
        sampler = sampling.ddim_sampler()
        return io.NodeOutput(sampling.sample(model, seed, cfg, sampler, sigmas, positive, negative, latent_image))


class DDIMSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2DDIMSigmas",
            display_name="DDIM Sigmas (DreamVideo-2)",
            category=CATEGORY,
            description="The original's timesteps (981, 961, ..., 1 for 50 steps, ending at t = 0) for SamplerCustom.",
            search_aliases=["scheduler"],
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("steps", default=STEPS, min=1, max=1000),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model: Any, steps: int, denoise: float) -> io.NodeOutput:
        return io.NodeOutput(sampling.ddim_sigmas(model, steps, denoise))


class DDIMSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2DDIMSampler",
            display_name="DDIM Sampler (DreamVideo-2)",
            category=CATEGORY,
            description="The original's DDIM update to float error; for DDIM Sigmas in SamplerCustom(Advanced).",
            search_aliases=["KSamplerSelect"],
            inputs=[],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(sampling.ddim_sampler())


NODES: list[Any] = [Sampler, DDIMSigmas, DDIMSampler]
