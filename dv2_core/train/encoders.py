"""The frozen models around the UNet: autoencoder and text encoder, from files on this machine only.

Real ones are those of the ModelScope family: the Stable Diffusion VAE, and OpenCLIP ViT-H's text encoder up to its
second last layer. The miniature's are read by the same two classes. Weights are read at the first use, so that a
training whose caches are full never holds them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..world.latent import MiniVAE
from ..world.text import WordTokenizer
from .cache import file_digest

#: Of Stable Diffusion 1.x and 2.x, and so of every ModelScope-family model.
SD_SCALING = 0.18215

#: Frames that pass an autoencoder at once, and captions that pass a text encoder.
FRAMES_AT_ONCE, CAPTIONS_AT_ONCE = 8, 64

#: OpenCLIP ViT-H has 24 layers, of which the ModelScope family uses 23: its own published text encoder has just those.
VIT_H_LAYERS = 24

FULL_CHECKPOINT = "first_stage_model."  # prefix of the autoencoder in a whole Stable Diffusion checkpoint


class VAE:
    """An autoencoder: frames [N, 3, H, W] in 0..1 <-> latents [N, C, H/8, W/8] at the scale that the UNet sees.

    Read: a folder of diffusers' AutoencoderKL (or one with a folder ``vae`` in it), a single .safetensors of a Stable
    Diffusion VAE in either naming, alone or inside a whole checkpoint, and the miniature's VAE file.

    Attributes:
        channels: C. digest: of the files that it is read from.

    Raises ValueError, at once, for what is none of these.
    """

    def __init__(self, location: Path) -> None:
        self.location = _existing(location, "vae")
        self.digest = model_digest(self.location)
        self._network: nn.Module | None = None
        if self.location.is_dir():
            config = _config(self.location, "AutoencoderKL")
            self.channels, levels = config.get("latent_channels", 4), len(config.get("block_out_channels", ()))
        else:
            shapes = _shapes(self.location)
            self.mini = "taesd_decoder.1.weight" in shapes
            config = {} if self.mini else _kl_config(shapes, self.location)
            self.channels = shapes["taesd_decoder.1.weight"][1] if self.mini else config["latent_channels"]
            levels = 4 if self.mini else len(config["block_out_channels"])
        if levels != 4:
            raise ValueError(
                f"The autoencoder {location} scales by {2 ** (levels - 1)}; one that scales by 8 is needed."
            )

    @torch.no_grad()
    def encode(self, frames: Tensor, device: torch.device) -> Tensor:
        """The mean latents, computed on ``device`` in float32, returned on the CPU."""
        network = self._load(device)
        return torch.cat([network.encode(part.to(device)).cpu() for part in frames.split(FRAMES_AT_ONCE)])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Frames in 0..1 on the latents' device."""
        network = self._load(latents.device)
        return torch.cat([network.decode(part.float()).clamp(0, 1) for part in latents.split(FRAMES_AT_ONCE)])

    def release(self) -> None:
        """Free the weights; the next use reads them again."""
        self._network = None

    def __getstate__(self) -> dict[str, Any]:  # a worker process reads the weights itself if it needs them
        return {**self.__dict__, "_network": None}

    def _load(self, device: torch.device) -> Any:
        if self._network is None:
            if self.location.is_file() and self.mini:
                self._network = MiniVAE.load(self.location)
            else:
                self._network = _ScaledKL(self.location)
            self._network.requires_grad_(False).eval()
        return self._network.to(device)


class _ScaledKL(nn.Module):
    """Diffusers' AutoencoderKL between pixels in 0..1 and scaled latents."""

    def __init__(self, location: Path) -> None:
        super().__init__()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # the extra "train"

        self.kl: Any
        try:
            if location.is_dir():
                self.kl = AutoencoderKL.from_pretrained(location, local_files_only=True, torch_dtype=torch.float32)
                self.scaling = self.kl.config.scaling_factor
            else:
                self.kl, self.scaling = _single_file(location, AutoencoderKL), SD_SCALING
        except (OSError, RuntimeError, KeyError, SafetensorError) as error:
            raise ValueError(f"{location} does not hold a whole autoencoder ({error}); get it again.") from error

    def encode(self, frames: Tensor) -> Tensor:
        return self.kl.encode(frames * 2 - 1).latent_dist.mode() * self.scaling

    def decode(self, latents: Tensor) -> Tensor:
        return self.kl.decode(latents / self.scaling).sample / 2 + 0.5


class TextEncoder:
    """A text encoder: captions -> context [N, tokens, width], longer captions cut.

    Read: a folder with the folders ``text_encoder`` and ``tokenizer`` (transformers' CLIPTextModel, as the ModelScope
    family is published in diffusers' layout), and the miniature's single file.

    Attributes:
        tokens, width: of the context. digest: of the files that it is read from.

    Raises ValueError, at once, for what is neither.
    """

    def __init__(self, location: Path) -> None:
        self.location = _existing(location, "text_encoder")
        if self.location.is_dir():
            for folder, file in (("text_encoder", "config.json"), ("tokenizer", "merges.txt")):
                if not (self.location / folder / file).is_file():
                    raise ValueError(
                        f"The text encoder {location} has no {folder}/{file}; give the folder that holds both "
                        "text_encoder and tokenizer, as text-to-video-ms-1.7b does."
                    )
            parts = [self.location / "text_encoder", self.location / "tokenizer"]
            self.digest = "-".join(map(model_digest, parts))
            self.config: dict[str, Any] = _config(parts[0], "CLIPTextModel")
            self.words: list[str] = []
        else:
            self.digest = model_digest(self.location)
            self.config, self.words = _mini_text(self.location)
        self.tokens: int = self.config.get("max_position_embeddings", 77)
        self.width: int = self.config.get("hidden_size", 512)
        self._network: Any = None
        self._tokenizer: Any = None

    @torch.no_grad()
    def encode(self, captions: list[str], device: torch.device) -> Tensor:
        """Computed on ``device`` in float32, returned on the CPU."""
        self._load()
        network, rows = self._network.to(device), []
        for start in range(0, len(captions), CAPTIONS_AT_ONCE):
            ids = torch.tensor([self._ids(caption) for caption in captions[start : start + CAPTIONS_AT_ONCE]])
            rows.append(network(ids.to(device)).last_hidden_state.cpu())
        return torch.cat(rows)

    def release(self) -> None:
        """Free the weights; the next use reads them again."""
        self._network = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None, "_tokenizer": None}

    def _ids(self, caption: str) -> list[int]:
        """Padded with 0, as OpenCLIP does; transformers' own padding depends on the tokenizer's files."""
        if self.words:
            return self._tokenizer.encode(caption, self.tokens)
        ids = self._tokenizer(caption, truncation=True, max_length=self.tokens)["input_ids"]
        return ids + [0] * (self.tokens - len(ids))

    def _load(self) -> None:
        if self._network is not None:
            return
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # the extra "train"

        try:
            if self.words:
                self._tokenizer = WordTokenizer(self.words)
                self._network = CLIPTextModel(CLIPTextConfig(**self.config))
                weights = {name: tensor.float() for name, tensor in load_file(self.location).items()}
                self._network.load_state_dict(weights)
            else:
                config = CLIPTextConfig.from_pretrained(self.location / "text_encoder")
                if config.num_hidden_layers == VIT_H_LAYERS:
                    config.num_hidden_layers -= 1
                self._tokenizer = CLIPTokenizer.from_pretrained(self.location / "tokenizer", local_files_only=True)
                self._network = CLIPTextModel.from_pretrained(
                    self.location / "text_encoder", config=config, local_files_only=True, torch_dtype=torch.float32
                )
        except (OSError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{self.location} does not hold a whole text encoder ({error}); get it again.") from error
        self._network.requires_grad_(False).eval()


def model_digest(location: Path) -> str:
    """Digest of the files that a model is read from: the file, or the weights and settings in a folder."""
    if location.is_file():
        return file_digest(location)
    files = sorted(f for f in location.iterdir() if f.suffix in (".safetensors", ".bin", ".json", ".txt"))
    return "-".join(f"{file.name}:{file_digest(file)}" for file in files)


def _existing(location: Path, setting: str) -> Path:
    """The file or folder of the setting ``data.<setting>``; the folder of that name inside a whole model's folder."""
    if not location.exists():
        raise ValueError(
            f"data.{setting}: there is no {location}; give the file or folder of the model (nothing is downloaded)."
        )
    inside = location / setting
    return inside if setting == "vae" and inside.is_dir() else location


def _config(folder: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no config.json of a {name} ({error}); give the folder of the model.") from error
    return config


def _shapes(file: Path) -> dict[str, list[int]]:
    """Names and shapes of the tensors in a .safetensors file."""
    try:
        with safe_open(file, "pt") as opened:
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{file} is no .safetensors file that can be read ({error}); convert it, or get it again."
        ) from error


def _kl_config(shapes: Mapping[str, list[int]], file: Path) -> dict[str, Any]:
    """Settings of the AutoencoderKL in a single file, from its shapes."""
    bare = {name.removeprefix(FULL_CHECKPOINT): shape for name, shape in shapes.items()}
    for block, conv in (
        ("encoder.down.{}.block.{}", ".conv1.weight"),
        ("encoder.down_blocks.{}.resnets.{}", ".conv1.weight"),
    ):
        widths = [bare[block.format(n, 0) + conv][0] for n in range(8) if block.format(n, 0) + conv in bare]
        if widths and "decoder.conv_in.weight" in bare:
            layers = sum(block.format(0, n) + conv in bare for n in range(8))
            return {
                "_class_name": "AutoencoderKL", "block_out_channels": widths, "layers_per_block": layers,
                "latent_channels": bare["decoder.conv_in.weight"][1], "scaling_factor": SD_SCALING,
                "down_block_types": ["DownEncoderBlock2D"] * len(widths),
                "up_block_types": ["UpDecoderBlock2D"] * len(widths),
            }  # fmt: skip
    raise ValueError(
        f"{file} is neither a Stable Diffusion VAE nor the miniature's (its first tensor is "
        f"{next(iter(shapes), 'missing')!r}). Give such a file, or a folder of diffusers' AutoencoderKL."
    )


def _single_file(file: Path, kind: Any) -> Any:
    shapes = _shapes(file)
    prefix = FULL_CHECKPOINT if any(name.startswith(FULL_CHECKPOINT) for name in shapes) else ""
    with safe_open(file, "pt") as opened:
        weights = {n.removeprefix(prefix): opened.get_tensor(n).float() for n in shapes if n.startswith(prefix)}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(_kl_config(shapes, file)), encoding="utf-8")
        return kind.from_single_file(weights, config=folder, local_files_only=True)


def _mini_text(file: Path) -> tuple[dict[str, Any], list[str]]:
    """(settings of the CLIPTextModel, vocabulary) of the miniature's text encoder."""
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
        words = json.loads(metadata["dreamvideo2.words"])
        return json.loads(metadata["dreamvideo2.text"]), words
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{file} is not the miniature's text encoder; give that file, or the folder that holds text_encoder and "
            "tokenizer of the base."
        ) from error
