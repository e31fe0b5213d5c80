"""Real clips as training data, from a manifest or shards, through caches of everything the frozen models compute."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..manifest import ClipRow
from .data import LADDER, Batch, DataSize, Sample, ladder_numbers, prefetched, step_numbers
from .data_config import AugmentConfig, ClipsConfig, Draws
from .data_sources import ClipSource
from .data_store import ClipStore, Models
from .encoders import CAPTIONS_AT_ONCE
from .video import Fit, sampled_frames

#: Held-out clips show their subject as it is, in one way.
UNCHANGED = AugmentConfig(mirror=0, rotate=0, scale=0, colour=0, crop=0)

#: Clips that cannot be used are all looked for before training starts; this many are told.
TOLD = 10


class RealClips:
    """Data of real clips; see :class:`~dv2_core.train.data.Data`.

    Every epoch is a permutation of the clips that depends on (seed, epoch) alone; the batch of (step, process) takes
    the next ``draws.batch`` of the endless sequence of epochs. Processes therefore never share a clip within an epoch.
    The subject image alternates from epoch to epoch between ``variants`` ones.
    """

    def __init__(self, config: ClipsConfig, draws: Draws) -> None:
        self.config, self.draws = config, draws
        self.models = Models(config)
        root = Path(config.root) if config.root else None
        if config.manifest:
            source = ClipSource.of_manifest(Path(config.manifest), root, self._check)
        else:
            source = ClipSource.of_shards(config.shards, self._check)
        if config.validation:
            held_source = ClipSource.of_manifest(Path(config.validation), root, self._check)
            self.train_clips, self.held_clips = np.arange(len(source)), np.arange(len(held_source))
            _refuse_shared(source, held_source)
        else:
            held_source = source
            self.train_clips, self.held_clips = _split(source, config.held_out)
        self.train_store = ClipStore(source, self.models, config, config.augment, config.variants)
        self.held_store = ClipStore(held_source, self.models, config, UNCHANGED, 1)
        self.held_clips = self.held_clips[np.argsort(held_source.ids[self.held_clips])]
        self.words: list[str] | None = None
        width, height = config.frame_size
        self.size = DataSize(
            clips=len(self.train_clips), held_out=len(self.held_clips), num_frames=config.num_frames,
            frame_size=config.frame_size, latent=(self.models.vae.channels, height // 8, width // 8),
            text_tokens=self.models.text.tokens, context_dim=self.models.text.width, rejected=source.rejected,
        )  # fmt: skip

    def _check(self, row: ClipRow, where: str) -> None:
        """Raises ValueError for what a row alone shows to be unusable, long before its video is read."""
        numbers = sampled_frames(row, self.config.num_frames, self.config.fps, where)
        Fit((row.width, row.height), self.config.frame_size).track(row, numbers, where)
        if row.mask_path is None and not any(row.mask_rle or ()):
            raise ValueError(
                f"{where}: there is no mask of the subject, so there is nothing to cut the subject image out with; add "
                "mask_rle or mask_path, for one frame at least, or set reject."
            )

    def prepare(self, process: int, processes: int, device: torch.device) -> None:
        """Compute what the caches lack; ValueError, after all clips were tried, names those that cannot be used."""
        self.models.device = device
        work = [(self.train_store, n) for n in self.train_clips]
        work += [(self.held_store, n) for n in self.held_clips[: self.config.validation_clips]]
        problems, captions = [], {""}
        for store, index in tqdm(work[process::processes], "caching clips", disable=process > 0, mininterval=5):
            try:
                captions.add(store.clip(int(index)).caption)
            except ValueError as error:
                problems.append(str(error))
        texts = sorted(captions)
        for start in range(0, len(texts), CAPTIONS_AT_ONCE):
            self.models.context(texts[start : start + CAPTIONS_AT_ONCE])
        self.models.release()
        if problems:
            more = f" (and {len(problems) - TOLD} more)" if len(problems) > TOLD else ""
            raise ValueError("\n".join(problems[:TOLD]) + more)

    def batch(self, step: int, process: int = 0, processes: int = 1) -> Batch:
        index, size = step * processes + process, self.draws.batch
        numbers = step_numbers(self.draws, index, self.config.num_frames, self.size.latent)
        places = [self._place(index * size + n) for n in range(size)]
        clips = [self.train_store.clip(number) for number, _ in places]
        captions = [clip.caption if kept else "" for clip, kept in zip(clips, numbers.keep_text, strict=True)]
        subjects = [clip.subjects[variant] for clip, (_, variant) in zip(clips, places, strict=True)]
        return Batch(
            latents=torch.cat([clip.latents for clip in clips]),
            masks=torch.cat([clip.masks for clip in clips]),
            subject=torch.stack(subjects),
            noise=numbers.noise, timesteps=numbers.timesteps,
            keep_ref=numbers.keep_ref, keep_motion=numbers.keep_motion,
            context=self.models.context(captions), index=index,
        )  # fmt: skip

    def _place(self, position: int) -> tuple[int, int]:
        """(clip, subject variant) at a position of the endless sequence of epochs."""
        epoch, place = divmod(position, len(self.train_clips))
        order = _order(self.draws.seed, epoch, len(self.train_clips))
        return int(self.train_clips[order[place]]), (epoch + self.draws.seed) % self.config.variants

    def batches(self, start: int, process: int = 0, processes: int = 1) -> Iterator[Batch]:
        return prefetched(self, start, process, processes, self.config.workers)

    def validation(self) -> list[Batch]:
        return [self._validation_batch(int(n)) for n in self.held_clips[: self.config.validation_clips]]

    def _validation_batch(self, index: int) -> Batch:
        clip, repeats = self.held_store.clip(index), len(LADDER)
        seed = int(self.held_store.source.ids[index]) >> 1  # of the clip itself: other clips may come and go
        return Batch(
            latents=clip.latents.repeat(repeats, 1, 1, 1),
            masks=clip.masks.repeat(repeats, 1, 1, 1),
            subject=clip.subjects.repeat(repeats, 1, 1, 1),
            context=self.models.context([clip.caption]).repeat(repeats, 1, 1),
            **ladder_numbers(seed, self.config.num_frames, self.size.latent),
        )

    def samples(self, n: int) -> list[Sample]:
        return [self._sample(int(index)) for index in self.held_clips[:n]]

    def _sample(self, index: int) -> Sample:
        clip = self.held_store.clip(index)
        context = self.models.context([clip.caption, ""])
        return Sample(
            picture=self.held_store.picture(index), boxes=clip.boxes, caption=clip.caption,
            subject=clip.subjects[0], masks=clip.masks, context=context[0], empty_context=context[1],
        )  # fmt: skip

    def decode(self, latents: Tensor) -> Tensor:
        frames = self.models.vae.decode(latents)
        self.models.vae.release()
        return frames


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, clips: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(clips)


def _split(source: ClipSource, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(training, held-out) clips: by the hash of the video's name, so that all clips of a video are on one side and
    videos that are added later move no other. At least one video is held out."""
    held = source.videos < np.uint64(share * 2**64)
    if not held.any():
        held = source.videos == source.videos.min()
    if held.all():
        raise ValueError(
            f"All clips of {source.name} are held out (data.held_out is {share}, clips of one video stay together); "
            "add videos, lower it, or name a data.validation manifest."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def _refuse_shared(train: ClipSource, held: ClipSource) -> None:
    shared = np.flatnonzero(np.isin(held.videos, train.videos))
    if shared.size:
        row, where = held.row(int(shared[0]))
        raise ValueError(
            f"{where}: the video {row.video} is also in {train.name}, so it would not be held out; remove it from one."
        )
