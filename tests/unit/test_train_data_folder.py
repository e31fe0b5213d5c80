"""A manifest from a folder of videos with captions and masks beside them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dv2_core.drawn import subject_names
from dv2_core.manifest import read_rows
from dv2_core.train.write_manifest import write_manifest
from tests.drawn_clips import draw_frames, write_clip, write_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos with captions and masks beside them, as a user has them."""
    for name in subject_names()[:2]:
        frames, masks = draw_frames(name)
        write_video(tmp_path / f"{name}.mp4", frames)
        (tmp_path / f"{name}.txt").write_text(f"a {name} moving right\n")
        (tmp_path / f"{name}.masks").mkdir()
        for n, mask in enumerate(masks):
            Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{name}.masks" / f"mask_{n + 1:05d}_.png")
    return tmp_path


def test_a_folder_of_videos_captions_and_masks_becomes_the_manifest_of_its_clips(folder: Path) -> None:
    path, notes = write_manifest(folder, seconds=0.25)
    rows = [row for *_, row in read_rows(path) if row is not None]
    names = subject_names()[:2]
    assert [(row.video, row.frames) for row in rows] == [
        (f"{n}.mp4", f) for n in sorted(names) for f in ((0, 4), (4, 8))
    ]
    assert len(notes) == 2 and "2 of 2 parts" in notes[0]
    whole = write_clip(folder, sorted(names)[0])
    assert [list(box or ()) for box in rows[0].boxes + rows[1].boxes] == whole["boxes"][:8]
    assert rows[0].mask_rle is not None and [dict(mask or {}) for mask in rows[0].mask_rle] == whole["mask_rle"][:4]
    assert rows[0].caption == whole["caption"] and (rows[0].fps, rows[0].width, rows[0].height) == (16, 64, 48)


def test_few_masks_are_enough_where_the_boxes_are_given(folder: Path) -> None:
    name = subject_names()[0]
    for n, file in enumerate(sorted((folder / f"{name}.masks").iterdir())):
        file.rename(file.with_name("frame 00006.png")) if n == 6 else file.unlink()
    boxes = {"first": [2, 8, 28, 34], "last": [29, 8, 55, 34]}
    (folder / f"{name}.boxes.json").write_text(json.dumps(boxes))
    path, _ = write_manifest(folder, seconds=0.25)
    rows = [row for *_, row in read_rows(path) if row is not None and row.video == f"{name}.mp4"]
    assert [row.frames for row in rows] == [(4, 8)]  # the other parts have no mask
    assert rows[0].boxes[2] == (20.0, 8.0, 46.0, 34.0)
    assert rows[0].mask_rle is not None and [mask is None for mask in rows[0].mask_rle] == [True, True, False, True]


def test_a_video_without_caption_masks_or_fitting_masks_gets_a_sentence(folder: Path) -> None:
    name = sorted(subject_names()[:2])[0]
    first = sorted((folder / f"{name}.masks").iterdir())[0]
    first.unlink()
    with pytest.raises(ValueError, match="mask_00010_.png: the video has frames 0 to 9; give one mask per frame"):
        write_manifest(folder)
    shutil.rmtree(folder / f"{name}.masks")
    with pytest.raises(ValueError, match=f"There is no {name}.masks/ with PNG masks"):
        write_manifest(folder)
    (folder / f"{name}.txt").unlink()
    with pytest.raises(ValueError, match=f"{name}.mp4 has no caption"):
        write_manifest(folder)
    with pytest.raises(ValueError, match="There is no video in"):
        write_manifest(folder / "nothing")
