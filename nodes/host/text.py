"""Text encoders: the stock ones, and the miniature's (CLIP-shaped, word-level vocabulary)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch

from ...dv2_core.world.text import PAD, SPECIAL_WORDS, WordTokenizer
from . import compat, files

FORMAT = "dreamvideo2-text"
OPENCLIP = "transformer.resblocks.0.ln_1.weight"


def load_text_encoder(path: Path) -> Any:
    """A CLIP object for stock CLIPTextEncode: the miniature's encoder, or any that the stock CLIPLoader takes."""
    weights, metadata = files.load_weights(path)
    if metadata.get("format") != FORMAT:
        # The core takes any other file for a CLIP-L and leaves it without weights.
        if comfy.sd.detect_te_model(weights) is None and OPENCLIP not in weights:
            raise ValueError(
                f"{path.name} is not a text encoder that ComfyUI knows; it starts with {next(iter(weights))!r}. "
                "Choose the base's OpenCLIP ViT-H file or the bundled dv2-mini-text.safetensors."
            )
        try:
            return comfy.sd.load_text_encoder_state_dicts(
                [weights], folder_paths.get_folder_paths("embeddings"), comfy.sd.CLIPType.STABLE_DIFFUSION
            )
        except Exception as error:
            raise ValueError(
                f"{path.name} is not a text encoder that ComfyUI knows ({error}). Choose the base's OpenCLIP ViT-H "
                "file or the bundled dv2-mini-text.safetensors."
            ) from error
    damaged = f"{path.name} does not hold the text encoder that its metadata describes; get the file again."
    try:
        words, config = (json.loads(metadata[f"dreamvideo2.{name}"]) for name in ("words", "text"))
        target = comfy.supported_models_base.ClipTarget(_tokenizer(words), _model(config))
        clip = compat.text_encoder(target, weights)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(damaged) from error
    names = {k for k in clip.cond_stage_model.clip_l.transformer.state_dict() if not k.startswith("text_projection")}
    if names != set(weights):
        raise ValueError(damaged)
    return clip


def _tokenizer(words: list[str]) -> Any:
    """Class of a ComfyUI tokenizer over a word list; each is a class because ComfyUI builds it by itself."""

    class Words:
        """The part of a transformers tokenizer that ComfyUI's SDTokenizer asks for."""

        def __init__(self) -> None:
            self.words = WordTokenizer(words)

        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> Words:
            return cls()

        def __call__(self, text: str) -> dict[str, list[int]]:
            ids = self.words.encode(text, max_length=len(text) + 2)
            return {"input_ids": [i for i in ids if i != PAD]}

        def get_vocab(self) -> dict[str, int]:
            return {word: n for n, word in enumerate((*SPECIAL_WORDS, *words))}

    class Tokenizer(comfy.sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
            super().__init__(
                max_length=16, pad_with_end=False, embedding_directory=None, embedding_key="l", tokenizer_class=Words
            )

    class MiniTokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
            super().__init__(tokenizer_data={}, clip_name="l", tokenizer=Tokenizer)

        def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
            out = super().tokenize_with_weights(text, return_word_ids, **kwargs)
            return {name: chunks[:1] for name, chunks in out.items()}  # trained on one chunk; longer prompts are cut

    return MiniTokenizer


def _model(config: dict[str, Any]) -> Any:
    class Encoder(comfy.sd1_clip.SDClipModel):
        def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Any = None) -> None:
            super().__init__(
                device=device, dtype=dtype, layer="last", textmodel_json_config=config, return_projected_pooled=False,
                max_length=config["max_position_embeddings"], special_tokens={"start": 1, "end": 2, "pad": PAD},
                model_options=model_options or {},
            )  # fmt: skip
            # ComfyUI's CLIP has a fixed vocabulary; this one has its own, small one.
            self.transformer.text_model.embeddings.token_embedding = self.operations.Embedding(
                config["vocab_size"], config["hidden_size"], dtype=dtype, device=device
            )

    class MiniTextEncoder(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Any = None) -> None:
            super().__init__(device, dtype, model_options or {}, clip_name="l", clip_model=Encoder)

    return MiniTextEncoder
