"""Captions for clips that come without one, from any model of `transformers` that writes about a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Captioner:
    """A vision-language model of a local folder: BLIP, or a chat model such as Qwen2-VL.

    Raises ValueError for a folder that holds no such model.
    """

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        import transformers as tf

        options: dict[str, Any] = {"local_files_only": True}
        try:
            self.processor: Any = tf.AutoProcessor.from_pretrained(folder, **options)
            model: Any = tf.AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, **options
            )
        except Exception as error:  # the library raises exceptions of many kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise ValueError(f"The captioner in {folder} cannot be loaded ({reason}).") from error
        self.model, self.device, self.dtype = model.to(device).eval(), device, dtype

    @torch.no_grad()
    def captions(self, frames: Sequence[Tensor], prompt: str, tokens: int) -> list[str]:
        """One caption for each picture [H, W, 3], 0..1; the likeliest words, no sampling."""
        pictures = [(frame.clamp(0, 1) * 255).round().byte().cpu().numpy() for frame in frames]
        text = [self._text(prompt)] * len(pictures) if prompt else None
        inputs = self.processor(images=pictures, text=text, return_tensors="pt").to(self.device, self.dtype)
        out = self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        given = inputs["input_ids"] if "input_ids" in inputs else out[:, :0]
        if out.shape[1] > given.shape[1] and torch.equal(out[:, : given.shape[1]], given):
            out = out[:, given.shape[1] :]  # models that go on from the prompt repeat it
        return [" ".join(line.split()) for line in self.processor.batch_decode(out, skip_special_tokens=True)]

    def _text(self, prompt: str) -> str:
        if not getattr(self.processor, "chat_template", None):
            return prompt
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
