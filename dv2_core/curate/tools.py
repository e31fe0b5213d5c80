"""What stages work with: the settings, the output folder, pictures of clips, and the models, each loaded when asked
for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from ..segment import Detection, Detector, Prompt, Segmenter, VideoSegmenter
from .clip import Clip
from .config import CurateConfig
from .matte import MatteSegmenter
from .video import member, pictures

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

#: What a model needs beside its weights; nothing that is run or unpickled is fetched.
MODEL_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


class SetupError(ValueError):
    """Something is missing for all clips: a model, a package. Ends the curation instead of rejecting one clip."""


class Finder(Protocol):
    def detect(self, frames: Tensor, words: Sequence[str], threshold: float) -> list[list[Detection]]: ...


class Cutter(Protocol):
    def segment(self, frames: Tensor, prompts: Sequence[Prompt]) -> Tensor: ...


class Follower(Protocol):
    def track(self, frames: Tensor, start: Tensor) -> Tensor: ...


class Tools:
    """See the module. verdicts: what people said about clips, by the clip's id (``audit.read_verdicts``)."""

    def __init__(self, config: CurateConfig, out: Path, verdicts: Mapping[str, Mapping[str, str]] | None = None):
        self.config, self.out, self.verdicts = config, out, verdicts or {}
        self._salient: dict[str, MatteSegmenter] = {}  # one network in several roles remembers what it has seen
        device = config.models.device
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)

    def video(self, clip: Clip) -> Path | BinaryIO:
        """The clip's video."""
        if clip.member is not None:
            return member(Path(clip.source), *clip.member)
        source = Path(clip.source)
        return self.made(clip) if source.is_dir() else source

    def made(self, clip: Clip) -> Path:
        """Where the clip's video lies below the manifest's root: it is linked there, or made there of pictures."""
        return self.out / clip.name

    def pictures(self, clip: Clip, numbers: Sequence[int] | None = None) -> Tensor:
        """Those frames (None: all of the clip) as models see them: [n, h, w, 3] in 0..1."""
        return pictures(self.video(clip), clip, numbers or range(*clip.span), self.config.side)

    @contextmanager
    def writing(self, path: Path) -> Iterator[BinaryIO]:
        """A binary file that takes ``path``'s place when all of it is written, or leaves no trace."""
        temporary = self.out / "tmp" / uuid.uuid4().hex
        temporary.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @cached_property
    def detector(self) -> Finder:
        return self._model("detector", self.config.models.detector, Detector.load)

    @cached_property
    def segmenter(self) -> Cutter:
        return self._model("segmenter", self.config.models.segmenter, Segmenter.load)

    @cached_property
    def tracker(self) -> Follower:
        models = self.config.models
        name = models.tracker or models.segmenter
        return self._model("tracker", name, VideoSegmenter.load)

    @cached_property
    def captioner(self) -> Any:
        from .captioner import Captioner

        name = self.config.models.captioner
        try:
            return Captioner(model_folder("captioner", name), self.device, DTYPES[self.config.models.precision])
        except ValueError as error:
            raise SetupError(str(error)) from error

    @cached_property
    def language(self) -> Callable[[str], Any]:
        """The spaCy pipeline."""
        name = self.config.models.language
        try:
            import spacy  # pyright: ignore[reportMissingImports]

            return spacy.load(name)
        except (ImportError, OSError) as error:
            raise SetupError(
                f"The subject's word is found by spaCy with the pipeline {name!r}, which cannot be loaded "
                f"({str(error).splitlines()[0][:120]}). Install both (pip install spacy; python -m spacy download "
                f"{name}), or give the words in the source: a column, a row's field, or NAME.word.txt."
            ) from error

    def _model(self, role: str, name: str, load: Callable[..., Any]) -> Any:
        try:
            if name.endswith(".onnx"):
                if name not in self._salient:
                    self._salient[name] = MatteSegmenter(Path(name))
                return self._salient[name]
            model = load(model_folder(role, name), DTYPES[self.config.models.precision])
        except ValueError as error:
            raise SetupError(str(error)) from error
        model.network.to(self.device)
        return model


def model_folder(role: str, name: str) -> Path:
    """The folder of a model: one on this machine, or that of a name on the hub, fetched if need be."""
    if not name:
        raise SetupError(
            f"There is no {role}, and a clip asks for one; write models.{role} = a folder or a name on the hub, give "
            "what it would find in the source, or add its stage to skip."
        )
    if Path(name).is_dir():
        return Path(name)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=MODEL_FILES))
    except Exception as error:  # the client raises exceptions of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise SetupError(
            f"models.{role} is {name!r}, which is no folder here and cannot be fetched from the hub ({reason})."
        ) from error
