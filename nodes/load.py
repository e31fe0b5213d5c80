"""Loaders of the base and of the adapter."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..dv2_core.diffusion import PREDICTIONS
from .host import base_files, compat, files, lora
from .host.adapter import load_adapter
from .host.base import STORED, load_base
from .host.text import load_text_encoder
from .host.vae import load_vae
from .types import CATEGORY, Adapter

base_files.register_folders()  # before the nodes list their files
lora.register_names()


class LoadBase(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2LoadBase",
            display_name="Load Video Base (DreamVideo-2)",
            category=CATEGORY,
            description="Loads a ModelScopeT2V-family text-to-video UNet with its text encoder and VAE. "
            "The bundled dv2-mini files are a small trained miniature that runs on a CPU.",
            search_aliases=["ModelScope", "ZeroScope", "text to video", "load UNet"],
            inputs=[
                io.Combo.Input("unet_name", options=base_files.base_list(),
                               tooltip="ModelScopeT2V or ZeroScope UNet, in original or diffusers names "
                               "(models/diffusion_models, text2video, checkpoints, or a pipeline in diffusers)."),
                io.Combo.Input("clip_name", options=base_files.text_list(),
                               tooltip="Text encoder: OpenCLIP ViT-H for ModelScope "
                               "(models/text_encoders, text2video)."),
                io.Combo.Input("vae_name", options=base_files.vae_list(),
                               tooltip="VAE: any Stable Diffusion 1.x or 2.x VAE for ModelScope, or its own "
                               "VQGAN_autoencoder.pth (models/vae, text2video)."),
                io.Combo.Input("prediction", options=["auto", *PREDICTIONS], default="auto",
                               tooltip="What the UNet predicts. auto: what the file says, else eps (right for "
                               "ModelScope and ZeroScope). v_zsnr: v with zero terminal SNR. v_cosine_zsnr: the same "
                               "on cosine betas (VGen's model_scope_0267000)."),
                io.Combo.Input("weight_dtype", options=list(STORED), default="default", optional=True,
                               tooltip="How the UNet's weights are stored. fp8 takes half the memory of fp16; the "
                               "video is computed as before, from rounded weights."),
            ],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, unet_name: str, clip_name: str, vae_name: str, prediction: str,
                weight_dtype: str = "default") -> io.NodeOutput:  # fmt: skip
        model = load_base(base_files.path_of("unet", unet_name), prediction, weight_dtype)
        clip = load_text_encoder(base_files.path_of("text", clip_name))
        vae = load_vae(base_files.path_of("vae", vae_name))
        return io.NodeOutput(model, clip, vae)


class LoadAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return compat.schema(
            node_id="DV2LoadAdapter",
            display_name="Load DreamVideo-2 Adapter",
            category=CATEGORY,
            description="Loads reference attention and motion module from one safetensors file.",
            search_aliases=["DreamVideo", "subject adapter", "motion adapter"],
            inputs=[
                io.Combo.Input("adapter_name", options=files.file_list(files.ADAPTERS),
                               tooltip="Adapter file (models/dreamvideo2), trained for the base you load."),
            ],
            outputs=[Adapter.Output(display_name="adapter")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, adapter_name: str | None) -> bool | str:
        try:
            if adapter_name is not None:
                files.path_of(files.ADAPTERS, adapter_name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, adapter_name: str) -> io.NodeOutput:
        return io.NodeOutput(load_adapter(files.path_of(files.ADAPTERS, adapter_name)))


NODES: list[Any] = [LoadBase, LoadAdapter]
