"""Real clips as the UNet sees them: latents, subject latents and text embeddings, computed once and kept on disk."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..boxes import BoxTrack, rasterize
from ..manifest import ClipRow
from .augment import SMALLEST, large_enough, subject_picture
from .cache import Cache, Digests
from .data_config import AugmentConfig, ClipsConfig
from .data_sources import ClipSource
from .encoders import VAE, TextEncoder
from .video import Fit, read_frames, sampled_frames

#: Raised whenever this code computes another value from the same settings, so that older entries are not used.
VERSION = 1

#: Latents and embeddings are kept in half precision: half the disk, and rounding far below the autoencoder's error.
STORED = torch.float16


class Models:
    """The frozen models, the cache of what they computed, and the device that they compute on."""

    def __init__(self, config: ClipsConfig) -> None:
        self.vae, self.text = VAE(Path(config.vae)), TextEncoder(Path(config.text_encoder))
        self.cache, self.digests = Cache(Path(config.cache)), Digests(Path(config.cache))
        self.device = torch.device("cpu")

    def context(self, captions: list[str]) -> Tensor:
        """Embeddings [N, L, D] of captions, one cache entry each."""
        keys = {c: {"version": VERSION, "text": self.text.digest, "caption": c} for c in captions}
        entries = {caption: self.cache.get(key) for caption, key in keys.items()}
        missing = [caption for caption, entry in entries.items() if entry is None]
        if missing:
            for caption, context in zip(missing, self.text.encode(missing, self.device), strict=True):
                entries[caption] = {"context": context.to(STORED)}
                self.cache.put(keys[caption], entries[caption] or {})
        found = [entry["context"] for entry in map(entries.__getitem__, captions) if entry is not None]
        return torch.stack(found).float()

    def encode(self, frames: Tensor) -> Tensor:
        """Frames [N, 3, H, W] -> latents [N, C, h, w] as they are stored."""
        latents = self.vae.encode(frames, self.device).to(STORED)
        if not bool(torch.isfinite(latents).all()):
            raise ValueError(
                f"The autoencoder {self.vae.location} gives latents that are not finite; use another file."
            )
        return latents

    def release(self) -> None:
        """Free the models' weights; what is missing in the cache later is computed on the CPU."""
        self.vae.release()
        self.text.release()
        self.device = torch.device("cpu")


@dataclass(frozen=True)
class StoredClip:
    """A clip of F frames, ready for a batch."""

    caption: str
    boxes: BoxTrack  # F frames, fractions of the cropped frame
    masks: Tensor  # [F, 1, H, W], 1 inside the box
    latents: Tensor  # [F, C, h, w]
    subjects: Tensor  # [variants, C, h, w]: the subject from different frames, changed differently


class ClipStore:
    """The clips of one source, by their number."""

    def __init__(
        self, source: ClipSource, models: Models, config: ClipsConfig, augment: AugmentConfig, variants: int
    ) -> None:
        self.source, self.models, self.config = source, models, config
        self.augment, self.variants = augment, variants
        self._keys: dict[int, tuple[dict, dict]] = {}

    def clip(self, index: int) -> StoredClip:
        """Clip ``index``, from the cache or computed. Raises ValueError for a clip that cannot be used."""
        row, where = self.source.row(index)
        boxes = self._fit(row).track(row, self._numbers(row, where), where)
        latents, subjects = self._encoded(index)
        masks = rasterize(boxes, *self.config.frame_size)[:, None]
        return StoredClip(row.caption, boxes, masks, latents.float(), subjects.float())

    def picture(self, index: int, variant: int = 0) -> Tensor:
        """The subject image [3, H, W] of a variant, from the video."""
        return self._pictures_and_frames(index, [variant], frames=False)[0][0]

    def _encoded(self, index: int) -> tuple[Tensor, Tensor]:
        clip_key, subject_key = self._keys_of(index)
        clip, subject = self.models.cache.get(clip_key), self.models.cache.get(subject_key)
        if clip is None or subject is None:
            variants = range(self.variants) if subject is None else ()
            pictures, frames = self._pictures_and_frames(index, variants, frames=clip is None)
            if clip is None:
                clip = {"latents": self.models.encode(torch.stack(frames))}
                self.models.cache.put(clip_key, clip)
            if subject is None:
                subject = {"subjects": self.models.encode(torch.stack(pictures))}
                self.models.cache.put(subject_key, subject)
        return clip["latents"], subject["subjects"]

    def _keys_of(self, index: int) -> tuple[dict, dict]:
        """What the two cache entries of a clip are computed from."""
        if index not in self._keys:
            row, where = self.source.row(index)
            common = {
                "version": VERSION, "vae": self.models.vae.digest, "size": self.config.frame_size,
                "video": self.source.video_digest(index, self.models.digests),
            }  # fmt: skip
            clip = {**common, "frames": self._numbers(row, where)}
            subject = {
                **common, "subject": row.id, "variants": self.variants, "augment": asdict(self.augment),
                "masks": self.source.masks_digest(row, where, self.models.digests),
            }  # fmt: skip
            self._keys[index] = clip, subject
        return self._keys[index]

    def _pictures_and_frames(
        self, index: int, variants: range | list[int] | tuple[()], frames: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Subject images [3, H, W] of the variants and, if asked for, the clip's frames [3, H, W]; decoded once."""
        row, where = self.source.row(index)
        numbers = self._numbers(row, where) if frames else []
        picks = {}
        if variants:
            masks = {number: self.source.mask(row, where, number) for number in range(*row.frames)}
            shown = [number for number, mask in masks.items() if mask is not None and large_enough(mask)]
            if not shown:
                raise ValueError(
                    f"{where}: no frame has a mask of the subject {SMALLEST} pixels wide or high, so there is nothing "
                    "to cut the subject image out with; add masks, or set reject."
                )
            for variant in variants:
                rng = np.random.Generator(np.random.Philox(key=[_seed(row), variant]))
                number = shown[int(rng.integers(len(shown)))]
                picks[variant] = number, masks[number], rng
        fit, fitted, pictures = self._fit(row), {}, {}
        wanted = {*numbers, *(number for number, _, _ in picks.values())}
        for number, pixels in read_frames(self.source.video(index), wanted, row, where):
            if number in numbers:
                fitted[number] = fit.frame(pixels)
            for variant, (picked, mask, rng) in picks.items():
                if picked == number:
                    pictures[variant] = subject_picture(pixels, mask, self.config.frame_size, self.augment, rng)
        return [pictures[variant] for variant in variants], [fitted[number] for number in numbers]

    def _numbers(self, row: ClipRow, where: str) -> list[int]:
        return sampled_frames(row, self.config.num_frames, self.config.fps, where)

    def _fit(self, row: ClipRow) -> Fit:
        return Fit((row.width, row.height), self.config.frame_size)


def _seed(row: ClipRow) -> int:
    return int.from_bytes(hashlib.sha256(row.id.encode()).digest()[:8], "big")
