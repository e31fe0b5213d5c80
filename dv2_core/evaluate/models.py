"""The networks behind the metrics: CLIP, DINO and Grounding DINO of `transformers`, RAFT of `torchvision`.

Weights are local; only a name that begins with "hub:" is fetched from the Hugging Face hub. Pictures are prepared as in
the authors' earlier metric code (VGen, metric/cal_metric_DreamVideo.py): the shorter side scaled (bicubic, antialiased)
and the middle square cut out, for CLIP at the network's size, for DINO at 8/7 of it (256 -> 224). So of a long, narrow
region the ends are not seen. Importing this needs no optional package; loading a network does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..checkpoints import read_weights
from ..segment import Detector
from ..segment.folder import CONFIG, WEIGHTS, LocalModel, ModelKind, Place, Progress, library, load_network, stay
from ..segment.sam2 import MEAN, STD

Array = np.ndarray

#: Mean and standard deviation of the pictures that CLIP was trained on; DINO's are ImageNet's.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

TORCH_FILE = "pytorch_model.bin"  # what some published models have in place of safetensors

CLIP = ModelKind(
    "CLIP",
    "clip-similarity",
    "clip",
    ((CONFIG,), (*WEIGHTS, TORCH_FILE), ("vocab.json",), ("merges.txt",)),
    ("https://huggingface.co/openai/clip-vit-base-patch32",),
    "sdpa",
)

DINO = ModelKind(
    "DINO",
    "dino",
    "vit",
    ((CONFIG,), (*WEIGHTS, TORCH_FILE)),
    ("https://huggingface.co/facebook/dino-vits16",),
    "sdpa",
)

RAFT_PUBLISHED = "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth"
RAFT_UPDATES = 20  # of the flow per pair of frames, as in VBench
RAFT_SIDE = 128  # the smallest picture that RAFT reads

HUB = "hub:"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
BATCH = 32  # pictures per pass


def model_folder(kind: ModelKind, where: str | Path) -> Path:
    """The folder of a model: a path, or "hub:OWNER/NAME", whose files are fetched from the hub unless they are cached.

    Raises ValueError for a name that is none, and when the hub cannot be reached."""
    name = str(where)
    if not name.startswith(HUB):
        return Path(where)
    name = name.removeprefix(HUB)
    if not HUB_NAME.fullmatch(name):
        raise ValueError(
            f"{where!r} is no name of the hub; write {HUB}OWNER/NAME, for example {HUB}facebook/dino-vits16."
        )
    from huggingface_hub import snapshot_download

    wanted = [file for files in kind.files for file in files]
    try:
        folder = Path(snapshot_download(name, allow_patterns=[file for file in wanted if file != TORCH_FILE]))
        if TORCH_FILE in wanted and not any((folder / file).is_file() for file in WEIGHTS):
            folder = Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the library raises exceptions of many kinds
        raise ValueError(
            f"The {kind.name} model {name} could not be fetched from the hub ({str(error).splitlines()[0][:200]}). "
            "Put its files into a folder and give that."
        ) from error
    return folder


def prepare(picture: Array, resize: int, crop: int, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 [h, w, 3] -> float [3, crop, crop]: shorter side to `resize`, the middle, normalised."""
    image = Image.fromarray(picture)
    short = min(image.size)
    width, height = (resize if side == short else int(resize * side / short) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    pixels = np.asarray(image.crop((left, top, left + crop, top + crop)), np.float32) / 255
    return torch.from_numpy((pixels - np.array(mean, np.float32)) / np.array(std, np.float32)).permute(2, 0, 1)


class PictureModel(LocalModel):
    """A network that makes an embedding of each picture."""

    def prepared(self, picture: Array) -> torch.Tensor:
        """uint8 [h, w, 3] -> what the network reads, [3, S, S]."""
        raise NotImplementedError

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, 3, S, S] -> [N, D]"""
        raise NotImplementedError

    def pictures(
        self, pictures: Sequence[Array] | Array, batch: int = BATCH, progress: Progress | None = None
    ) -> Array:
        """Embeddings float32 [N, D], not normalised, of N pictures uint8 [h, w, 3] of any sizes; [0, 0] of none."""
        found = []
        with self.running() as device:
            for start in range(0, len(pictures), batch):
                pixels = torch.stack([self.prepared(picture) for picture in pictures[start : start + batch]])
                found.append(self.embed(pixels.to(device)).float().cpu())
                if progress:
                    progress(min(start + batch, len(pictures)), len(pictures))
        return torch.cat(found).numpy() if found else np.zeros((0, 0), np.float32)


class Clip(PictureModel):
    """CLIP: pictures and prompts in one space. The paper's family used ViT-B/32 in its earlier code."""

    def __init__(self, network: Any, tokenizer: Any, dtype: torch.dtype = torch.float32, place: Place = stay):
        super().__init__(network, dtype, place)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, where: str | Path, dtype: torch.dtype = torch.float32, place: Place = stay) -> Clip:
        """The model of `model_folder`. Raises ValueError with what is missing or wrong."""
        folder = model_folder(CLIP, where)
        network = load_network(CLIP, folder, "CLIPConfig", "CLIPModel")
        return cls(network, library(CLIP, "CLIPTokenizer").CLIPTokenizer.from_pretrained(folder), dtype, place)

    def prepared(self, picture: Array) -> torch.Tensor:
        size = self.network.config.vision_config.image_size
        return prepare(picture, size, size, CLIP_MEAN, CLIP_STD)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return _tensor(self.network.get_image_features(pixel_values=pixels))

    def text(self, prompt: str) -> Array:
        """Embedding float32 [D] of a prompt; what lies beyond the network's 77 tokens is not read."""
        longest = self.network.config.text_config.max_position_embeddings
        words = self.tokenizer([prompt], truncation=True, max_length=longest, return_tensors="pt")
        with self.running() as device:
            return _tensor(self.network.get_text_features(**words.to(device)))[0].float().cpu().numpy()


class Dino(PictureModel):
    """DINO ViT-S/16, or any ViT: the class token after the last norm."""

    @classmethod
    def load(cls, where: str | Path, dtype: torch.dtype = torch.float32, place: Place = stay) -> Dino:
        """The model of `model_folder`. Raises ValueError with what is missing or wrong."""
        network = load_network(DINO, model_folder(DINO, where), "ViTConfig", "ViTModel", add_pooling_layer=False)
        return cls(network, dtype, place)

    def prepared(self, picture: Array) -> torch.Tensor:
        size = self.network.config.image_size
        return prepare(picture, round(size * 8 / 7), size, MEAN, STD)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(pixel_values=pixels).last_hidden_state[:, 0]


def _tensor(features: Any) -> torch.Tensor:
    """transformers 5 wraps what 4 returns as it is."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output


class Flow(LocalModel):
    """Optical flow by RAFT, for `motion`."""

    @classmethod
    def load(cls, file: str | Path, dtype: torch.dtype = torch.float32, place: Place = stay) -> Flow:
        """Weights of torchvision's raft_large or raft_small. Raises ValueError for another file, or no torchvision."""
        path = Path(file)
        get_it = f"Give the weights of torchvision's RAFT, for example {RAFT_PUBLISHED}."
        if not path.is_file():
            raise ValueError(f"There is no file {path}. {get_it}")
        try:
            from torchvision.models.optical_flow import raft_large, raft_small
        except ImportError as error:
            raise ValueError("Optical flow needs the package torchvision; install it with pip.") from error
        weights, _ = read_weights(path)
        shapes = {name: tensor.shape for name, tensor in weights.items()}
        for make in (raft_large, raft_small):
            with torch.device("meta"):
                network = make()
            if {name: tensor.shape for name, tensor in network.state_dict().items()} == shapes:
                network.load_state_dict(weights, assign=True)
                return cls(network.float().eval().requires_grad_(False), dtype, place)
        raise ValueError(f"{path} holds no weights of raft_large or raft_small. {get_it}")

    def steps(self, frames: Array, progress: Progress | None = None) -> Array:
        """Frames uint8 [F, H, W, 3] -> how far every pixel moves in the next one, float32 [F - 1, 2, H, W], in pixels.

        RAFT wants sides of at least 128 that are multiples of 8: edges are repeated all around, and cut off again."""
        height, width = frames.shape[1:3]
        missing = [max(RAFT_SIDE, -(-side // 8) * 8) - side for side in (height, width)]
        top, left = missing[0] // 2, missing[1] // 2
        border = (left, missing[1] - left, top, missing[0] - top)
        found = np.zeros((len(frames) - 1, 2, height, width), np.float32)
        with self.running() as device:
            for step in range(len(frames) - 1):
                pair = torch.from_numpy(frames[step : step + 2]).permute(0, 3, 1, 2).to(device).float() / 127.5 - 1
                pair = F.pad(pair, border, mode="replicate")
                flow = self.network(pair[:1], pair[1:], num_flow_updates=RAFT_UPDATES)[-1][0].float().cpu()
                found[step] = flow[:, top : top + height, left : left + width].numpy()
                if progress:
                    progress(step + 1, len(frames) - 1)
        return found


class Finder(Protocol):
    """What finds the subject in frames [F, 3, H, W] in 0..1: boxes float64 [F, 4] in 0..1, NaN where there is none."""

    def boxes(self, frames: torch.Tensor) -> Array: ...


class WordFinder:
    """Grounding DINO as a `Finder`: the best box of a word in every frame, as in the paper's mIoU and CD."""

    def __init__(self, detector: Detector, word: str, threshold: float, progress: Progress | None = None):
        self.detector, self.word, self.threshold, self.progress = detector, word, threshold, progress

    def boxes(self, frames: torch.Tensor) -> Array:
        words = [self.word] * len(frames)
        found = self.detector.detect(frames.permute(0, 2, 3, 1), words, self.threshold, progress=self.progress)
        return np.array([candidates[0].box if candidates else [np.nan] * 4 for candidates in found])
