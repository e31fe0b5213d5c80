"""Folders: videos with files beside them, DAVIS and VOS, DreamVideo-Omni cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from ...boxes.formats import omni
from ...boxes.formats.folder import read_text
from ..clip import Clip
from ..config import CurateConfig
from ..geometry import in_pixels
from ..video import PICTURES, picture_files
from .common import VIDEOS, named, text_beside


def read_folder(source: Path, config: CurateConfig) -> Iterator[Clip]:
    """Every video below a folder. Beside NAME.mp4: NAME.txt (caption), NAME.word.txt (the subject's word), NAME.masks/
    (PNGs) and NAME.boxes.json, each optional."""
    videos = sorted(file for file in source.rglob("*") if file.suffix.lower() in VIDEOS and file.is_file())
    if not videos:
        raise ValueError(f"There is no video in {source}; give the folder of your {', '.join(VIDEOS)} files.")
    for video in videos:
        masks, boxes = video.with_suffix(".masks"), video.with_suffix(".boxes.json")
        yield Clip(
            name=named(video.relative_to(source)), source=str(video), caption=text_beside(video, ".txt"),
            phrase=text_beside(video, ".word.txt"), mask_folder=str(masks) if masks.is_dir() else None,
            box_file=str(boxes) if boxes.is_file() else None,
        )  # fmt: skip


def read_davis(source: Path, config: CurateConfig) -> Iterator[Clip]:
    """``JPEGImages/[480p/]NAME/00000.jpg`` with ``Annotations/[480p/]NAME/00000.png``, as DAVIS and YouTube-VOS have
    them; one clip per subject of the first annotation.

    Captions come from NAME.txt beside the folder of pictures; words from meta.json's categories (YouTube-VOS), else
    from the folder's name.
    """
    root = source if (source / "JPEGImages").is_dir() else next(source.glob("*/JPEGImages")).parent
    pictures, annotations, categories = root / "JPEGImages", root / "Annotations", _categories(root / "meta.json")
    folders = sorted({file.parent for file in pictures.rglob("*") if file.suffix.lower() in PICTURES})
    if not folders:
        raise ValueError(f"There are no pictures in {pictures}; give a folder as DAVIS or YouTube-VOS has it.")
    for folder in folders:
        below = folder.relative_to(pictures)
        masks = annotations / below
        common: dict[str, Any] = {
            "name": named(below.with_name(f"{below.name}.mp4")), "source": str(folder), "fps": config.fps,
            "caption": text_beside(folder.with_name(f"{folder.name}.mp4"), ".txt"),
        }  # fmt: skip
        ids = _ids(masks)
        words = categories.get(folder.name, {})
        name = " ".join(part for part in folder.name.replace("_", "-").split("-") if part.isalpha())
        for obj_id in ids:
            yield Clip(**common, obj_id=obj_id, phrase=words.get(obj_id, name), mask_folder=str(masks))
        if not ids:
            yield Clip(**common, phrase=name)


def read_omni(source: Path, config: CurateConfig) -> Iterator[Clip]:
    """Cases of DreamVideo-Omni with their video: ``NAME/metadata.json`` (caption, a box per frame and subject) and one
    video, or a folder ``frames/`` of pictures; one clip per subject. Facts: ``boxes.formats.omni``."""
    single = (source / "metadata.json").is_file()
    cases = [source] if single else sorted(file.parent for file in source.glob("*/metadata.json"))
    for case in cases:
        data = json.loads(read_text(case / "metadata.json"))
        plan = omni.read(case, int(data.get("width", 832)), int(data.get("height", 480)))
        found = sorted(file for file in case.iterdir() if file.suffix.lower() in VIDEOS)
        frames = case / "frames"
        video = found[0] if found else frames if frames.is_dir() and picture_files(frames) else case / "video.mp4"
        below = Path(case.name) if single else case.relative_to(source)
        name = named(below / (video.name if video.suffix else "frames.mp4"))
        for track in plan.tracks:
            shown = zip(track.boxes, track.visible, strict=True)
            boxes = tuple(in_pixels(box, plan.width, plan.height) if seen else None for box, seen in shown)
            yield Clip(
                name=name, source=str(video), caption=str(data.get("caption", "")), obj_id=track.obj_id,
                phrase=track.label, frames=(0, plan.length), boxes=boxes, fps=config.fps,
            )  # fmt: skip


def _ids(masks: Path) -> list[str]:
    """The subjects of the first annotation that has any, as their numbers in its palette; "0" is white on black."""
    for file in sorted(masks.glob("*.png")):
        with Image.open(file, formats=["PNG"]) as picture:
            colours = [number for number, count in enumerate(picture.histogram()[:256]) if count and 0 < number < 255]
            if picture.mode == "P" and colours:
                return [str(number) for number in colours]
            if picture.mode != "P" and picture.convert("L").getextrema()[1] == 255:
                return ["0"]
    return []


def _categories(file: Path) -> dict[str, dict[str, str]]:
    """{video: {subject: category}} of YouTube-VOS's meta.json."""
    if not file.is_file():
        return {}
    try:
        return {
            name: {str(number): str(entry.get("category", "")) for number, entry in video.get("objects", {}).items()}
            for name, video in json.loads(read_text(file))["videos"].items()
        }
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{file.name} is not as YouTube-VOS writes it ({error}); get it again, or remove it."
        ) from error
