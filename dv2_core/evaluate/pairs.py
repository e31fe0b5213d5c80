"""The held-out (subject, path) pairs of the evaluation, and the galleries in which a subject has to be recognised."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..world.atlas import Atlas
from ..world.clips import Clip, World
from .metrics import GALLERY
from .prompts import REAL_FILE, SUBJECT_FILE

SEED = 2410  # of the test world; trainings look at other seeds of it
SAMPLED = 8  # clips that stand for the world in its digest


@dataclass(frozen=True)
class Pair:
    """Pair `number` (from 0) of the evaluation: a held-out subject, a path, a caption, and their real clip."""

    number: int
    clip: Clip
    gallery: int = 0  # number of the gallery in which its subject has to be recognised

    @property
    def boxes(self) -> np.ndarray:
        """float64 [F, 4] in 0..1"""
        return self.clip.boxes.double().numpy()

    @property
    def real(self) -> np.ndarray:
        """The real clip, uint8 [F, R, R, 3]."""
        return to_bytes(self.clip.frames)

    @property
    def caption(self) -> str:
        return self.clip.caption

    @property
    def boxes_text(self) -> str:
        """One [x1, y1, x2, y2] in pixels per frame."""
        scale = (self.width, self.height, self.width, self.height)
        return json.dumps([[round(float(v) * side) for v, side in zip(b, scale, strict=True)] for b in self.boxes])

    @property
    def width(self) -> int:
        return self.clip.masks.shape[2]

    @property
    def height(self) -> int:
        return self.clip.masks.shape[1]

    @property
    def length(self) -> int:
        return self.clip.masks.shape[0]

    def write_inputs(self, folder: Path) -> None:
        """Put the subject (PNG with transparency) and the real clip (a page per frame) into ComfyUI's input folder."""
        subject = Image.fromarray(to_bytes(self.clip.subject[None])[0])
        subject.putalpha(Image.fromarray(self.clip.subject_alpha.byte().numpy() * 255))
        subject.save(folder / SUBJECT_FILE.format(self.number))
        # TIFF, because its writer keeps equal frames: those of a clip that stands still.
        first, *rest = (Image.fromarray(frame) for frame in self.real)
        first.save(folder / REAL_FILE.format(self.number), save_all=True, append_images=rest)


def gallery_size(atlas: Atlas) -> int:
    """Subjects in one gallery: 48, or all held-out concepts of an atlas that has fewer."""
    return min(GALLERY, len({atlas.sprites[i].name for i in atlas.indices("test")}))


def draw_pairs(atlas: Atlas, count: int, size: int = 64, num_frames: int = 8) -> list[Pair]:
    """The first `count` pairs; always the same, and the first 48 are the same whatever the count.

    The pairs are cut into galleries (`gallery_size`). A gallery holds a concept once at most: the clips of the test
    world are taken in their order, and one whose concept the gallery already has is left out. So telling the subjects
    of a gallery apart never means telling two pictures of one concept apart.

    Raises ValueError unless count fills one gallery in part, or galleries as a whole."""
    each = gallery_size(atlas)
    if count < 1 or (count > each and count % each):
        raise ValueError(
            f"{count} pairs do not fill galleries of {each} (the atlas's held-out concepts, at most {GALLERY}); "
            f"choose a multiple of {each}, or fewer."
        )
    world = World(atlas, "test", size, num_frames, seed=SEED)
    pairs: list[Pair] = []
    index, seen = 0, set()
    while len(pairs) < count:
        clip = world.clip(index)
        index += 1
        if clip.concept in seen:
            continue
        seen.add(clip.concept)
        pairs.append(Pair(len(pairs), clip, len(pairs) // each))
        if len(pairs) % each == 0:
            seen = set()
    return pairs


def digest_of(atlas: Atlas) -> str:
    """SHA-256 that changes with an atlas's names and pixels, and with what the world makes of them."""
    names = "\n".join(f"{sprite.name} {sprite.split}" for sprite in atlas.sprites)
    digest = hashlib.sha256(names.encode() + atlas.rgba.tobytes())
    world = World(atlas, "test", seed=SEED)
    for clip in map(world.clip, range(SAMPLED)):
        digest.update(clip.caption.encode() + to_bytes(clip.frames).tobytes() + to_bytes(clip.subject[None]).tobytes())
    return digest.hexdigest()


def galleries(pairs: list[Pair]) -> list[list[int]]:
    """The numbers of the pairs in each gallery."""
    members: dict[int, list[int]] = {}
    for pair in pairs:
        members.setdefault(pair.gallery, []).append(pair.number)
    return list(members.values())


def to_bytes(frames: torch.Tensor) -> np.ndarray:
    """float [F, 3, H, W] in 0..1 -> uint8 [F, H, W, 3]."""
    return (frames.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def to_frames(pictures: np.ndarray) -> torch.Tensor:
    """uint8 [F, H, W, 3] -> float32 [F, 3, H, W] in 0..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
