"""Folders and files of boxes: as other projects write them, and as somebody hostile would."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dv2_core.boxes import BoxPlan, BoxTrack
from dv2_core.boxes.formats import davis, folder, omni, read_any, write

W, H = 64, 32


@pytest.fixture
def plan() -> BoxPlan:
    first = BoxTrack(((0.0, 0.0, 0.25, 0.5), (0.25, 0.25, 0.5, 0.75)), obj_id="1")
    return BoxPlan((first, BoxTrack(((0.5, 0.5, 1.0, 1.0),) * 2, (True, False), "2")), W, H)


def refusal(path: Path, fmt: str = "auto", size: Any = (8, 8), length: int | None = None) -> str:
    with pytest.raises(ValueError) as error:
        read_any(path, W, H, length, fmt, size=size)
    message = str(error.value)
    assert type(error.value) is ValueError and message.endswith(".") and "\n" not in message and len(message) < 700
    assert str(path.parent) not in message  # a server's folders are nobody's business
    return message


def png(path: Path, colours: Any, mode: str = "P") -> Path:
    path.parent.mkdir(exist_ok=True)
    picture = Image.fromarray(np.asarray(colours, np.uint8))
    if mode == "P":
        picture.putpalette([0, 0, 0, 255, 0, 0] + [9] * 762)
    picture.convert(mode).save(path)
    return path


def white(left: int = 8) -> np.ndarray:
    picture = np.zeros((H, W), np.uint8)
    picture[8:16, left : left + 16] = 255
    return picture


# --- mask folders ---


def test_a_davis_folder_gives_every_colour_but_background_and_void_a_track(tmp_path):
    for n, left in enumerate((8, 16, 24)):
        colours = np.zeros((H, W), np.uint8)
        colours[0:4, 0:64] = 255
        colours[8:16, left : left + 16] = 1
        if n != 1:
            colours[20:24, 0:8] = 3
        png(tmp_path / "bear" / f"{n + 5:05d}.png", colours)
    plan = read_any(tmp_path / "bear", W, H, 3)
    assert [track.obj_id for track in plan.tracks] == ["1", "3"]
    assert [box[0] * W for box in plan.tracks[0].boxes] == [8, 16, 24]
    assert plan.tracks[1].visible == (True, False, True)


@pytest.mark.parametrize("mode", ["L", "1", "RGB"])
def test_one_subject_in_black_and_white_is_read_in_whatever_mode_it_was_saved(tmp_path, mode):
    png(tmp_path / "masks" / "0.png", white(), mode)
    (track,) = read_any(tmp_path / "masks", W, H).tracks
    assert (track.obj_id, track.boxes) == ("1", ((8 / W, 8 / H, 24 / W, 16 / H),))


def test_masks_of_another_size_than_the_video_are_scaled_to_it(tmp_path):
    png(tmp_path / "masks" / "0.png", white(), "L")
    plan = read_any(tmp_path / "masks", 2 * W, 3 * H)
    assert plan.tracks[0].boxes[0] == (8 / W, 8 / H, 24 / W, 16 / H) and (plan.width, plan.height) == (2 * W, 3 * H)


def test_written_mask_pictures_have_the_ids_as_colours_or_count_from_one(tmp_path, plan):
    write(plan, "davis", tmp_path / "a")
    with Image.open(tmp_path / "a" / "00000.png") as picture:
        assert picture.mode == "P" and sorted(set(np.asarray(picture).ravel())) == [0, 1, 2]
    tracks = (BoxTrack(plan.tracks[0].boxes, obj_id="dog"),)
    write(BoxPlan(tracks, W, H), "davis", tmp_path / "b")
    assert read_any(tmp_path / "b", W, H).tracks[0].obj_id == "1"


def small_png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises width x height pixels, and whose data are a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def spoil_masks(kind: str, masks: Path, outside: Path) -> None:
    """A folder of two good masks with one thing wrong."""
    for n in range(2):
        png(masks / f"{n:05d}.png", white(), "L")
    second = masks / "00001.png"
    if kind == "missing frame":
        second.rename(masks / "00002.png")
    elif kind == "no number":
        second.rename(masks / "second.png")
    elif kind == "same number":
        second.rename(masks / "0.png")
    elif kind == "empty file":
        second.write_bytes(b"")
    elif kind == "text":
        second.write_text("not a picture")
    elif kind == "gif":
        Image.fromarray(white()).save(second, "GIF")
    elif kind == "cut off":
        second.write_bytes(second.read_bytes()[:60])
    elif kind == "bomb":
        second.write_bytes(small_png_of(60_000, 60_000))
    elif kind == "wide bomb":
        second.write_bytes(small_png_of(2_000_000_000, 1))
    elif kind == "missing rows":
        second.write_bytes(small_png_of(W, 100_000))
    elif kind == "other size":
        png(second, np.zeros((H, W + 1)), "L")
    elif kind == "grey":
        png(second, white() // 2, "L")
    elif kind == "colours":
        png(second, np.stack([white(), white(16), white()], -1), "RGB")
    elif kind == "transparent":
        png(second, white(), "LA")
    elif kind == "link":
        second.unlink()
        second.symlink_to(png(outside / "0.png", white(), "L"))
    elif kind == "folder":
        second.unlink()
        second.mkdir()
    elif kind == "pipe":
        second.unlink()
        os.mkfifo(second)
    elif kind == "large file":
        with second.open("r+b") as file:
            file.truncate(davis.MAX_BYTES + 1)


MASKS = {
    "missing frame": "none of frame 1", "no number": "'second.png'", "same number": "each frame one",
    "empty file": "no readable PNG", "text": "no readable PNG", "gif": "no readable PNG", "cut off": "no readable PNG",
    "bomb": "00001.png", "wide bomb": "00001.png", "missing rows": "00001.png", "other size": "65x32 pixels",
    "grey": "neither a palette", "colours": "neither a palette", "transparent": "neither a palette",
    "link": "no plain file", "folder": "no plain file", "pipe": "no plain file", "large file": "bytes; at most",
}  # fmt: skip


@pytest.mark.parametrize("kind", MASKS)
def test_a_spoiled_mask_folder_is_refused_with_a_sentence(tmp_path, kind):
    spoil_masks(kind, tmp_path / "masks", tmp_path / "outside")
    assert MASKS[kind] in refusal(tmp_path / "masks")


def test_mask_folders_without_masks_and_of_another_length_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no .png files" in refusal(tmp_path / "empty")
    assert "cannot be read" in refusal(tmp_path / "not there")
    png(tmp_path / "black" / "0.png", np.zeros((H, W)), "L")
    assert "None of the 1 frames" in refusal(tmp_path / "black")
    png(tmp_path / "one" / "0.png", white(), "L")
    assert "1 mask pictures for 16 frames" in refusal(tmp_path / "one", length=16)
    assert "is one; choose a file" in refusal(tmp_path / "one", "csv")


def test_a_png_with_any_byte_changed_is_read_or_refused_with_a_sentence(tmp_path):
    good = png(tmp_path / "masks" / "0.png", white(), "P").read_bytes()
    for at in range(0, len(good), max(1, len(good) // 150)):
        (tmp_path / "masks" / "0.png").write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        try:
            read_any(tmp_path / "masks", W, H)
        except ValueError as error:
            assert type(error) is ValueError and str(error).endswith(".")


# --- DreamVideo-Omni cases ---


def case(path: Path, **changes: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    frames = [{"frame_idx": t, "bboxes": [{"bbox": [8 * t, 0, 8 * t + 16, 16], "obj_id": "0"}]} for t in range(2)]
    data = {"caption": "a dog", "mode": "single_object", "width": W, "height": H, "frames_info": frames, **changes}
    (path / "metadata.json").write_text(json.dumps({k: v for k, v in data.items() if v is not None}), encoding="utf-8")
    return path


def points(path: Path, tracks: Any = None, name: str = "tracks/pred_tracks.npy", **changes: Any) -> Path:
    """A case with points only."""
    case(path, frames_info=None, paths={"tracks": {"tracks": name}}, **changes)
    if tracks is not None:
        (path / "tracks").mkdir(exist_ok=True)
        np.save(path / "tracks" / "pred_tracks.npy", tracks)
    return path


def test_a_case_is_read_as_fractions_of_its_own_size(tmp_path):
    plan = read_any(case(tmp_path / "0"), 448, 256, 2)
    assert plan.tracks[0].boxes[1] == (8 / W, 0, 24 / W, 16 / H) and plan.width == 448


def test_a_case_with_points_only_needs_their_box_size_in_its_own_pixels(tmp_path):
    tracks = np.full((1, 3, 2, 2), 16.0, np.float32)
    plan = read_any(points(tmp_path / "0", tracks), 128, 64, size=(16, 8))
    assert plan.length == 3 and len(plan.tracks) == 2
    assert plan.tracks[0].boxes[0] == (8 / W, 12 / H, 24 / W, 20 / H)
    assert "no box size" in refusal(tmp_path / "0", size=None)


def test_a_written_case_holds_what_the_other_repository_reads(tmp_path, plan):
    written = write(plan, "omni", tmp_path / "case")
    data = json.loads((written / "metadata.json").read_text(encoding="utf-8"))
    assert data["frames_info"][1] == {"frame_idx": 1, "bboxes": [{"bbox": [16, 8, 32, 24], "obj_id": "1"}]}
    tracks = np.load(written / data["paths"]["tracks"]["tracks"])
    visible = np.load(written / data["paths"]["tracks"]["visibility"])
    assert tracks.shape == (1, 2, 2, 2) and tracks.dtype == np.float32 and tracks[0, 0, 0].tolist() == [8, 8]
    assert visible.tolist() == [[[True, True], [True, False]]] and data["obj_track_idx"] == [0, 1]


def test_the_tracks_of_a_written_case_are_bound_to_its_subjects_in_the_order_of_their_ids(tmp_path):
    box = ((0.0, 0.0, 0.5, 0.5),)
    tracks = [BoxTrack(box, (), "b"), BoxTrack(box, (), "10"), BoxTrack(box, (False,), "x"), BoxTrack(box, (), "9")]
    written = write(BoxPlan(tuple(tracks), W, H), "omni", tmp_path / "case")
    assert json.loads((written / "metadata.json").read_text(encoding="utf-8"))["obj_track_idx"] == [3, 1, 0]


class Trap:
    """An object whose unpickling would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def spoil_case(kind: str, root: Path) -> Path:
    path, good = root / "case", np.full((1, 2, 1, 2), 8.0, np.float32)
    if kind.startswith("path "):
        np.save(root / "secret.npy", good)
        return points(path, good, kind.removeprefix("path ").replace("ROOT", str(root)))
    points(path, good)
    file = path / "tracks" / "pred_tracks.npy"
    if kind == "link":
        file.unlink()
        np.save(root / "secret.npy", good)
        file.symlink_to(root / "secret.npy")
    elif kind == "linked folder":
        file.unlink()
        file.parent.rmdir()
        (root / "other").mkdir()
        np.save(root / "other" / "pred_tracks.npy", good)
        file.parent.symlink_to(root / "other")
    elif kind == "circle":
        file.unlink()
        file.symlink_to(file)
    elif kind == "missing":
        file.unlink()
    elif kind == "pickle":
        np.save(file, np.array([Trap(root / "trapped")], object), allow_pickle=True)
    elif kind == "promises":
        head, data = file.read_bytes().split(b"\n", 1)
        file.write_bytes(head.replace(b"(1, 2, 1, 2)", b"(1, 9999999, 9999, 2)") + b"\n" + data)
    elif kind == "header":
        file.write_bytes(file.read_bytes().replace(b"'descr'", b"'descr\n"))
    elif kind == "text":
        file.write_text("[[8, 8]]")
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "zip":
        np.savez(file.with_suffix(""), good)
        file.with_suffix("").with_suffix(".npz").rename(file)
    elif kind == "words":
        np.save(file, np.array([["a"]]))
    elif kind == "shape":
        np.save(file, good[0, 0])
    elif kind == "nan":
        np.save(file, good * np.nan)
    elif kind == "large":
        with file.open("r+b") as handle:
            handle.truncate(omni.MAX_BYTES + 1)
    elif kind == "pipe":
        file.unlink()
        os.mkfifo(file)
    elif kind == "no metadata":
        (path / "metadata.json").unlink()
        (path / "metadata.json").mkdir()
    elif kind == "long metadata":
        (path / "metadata.json").write_text(" " * (folder.MAX_TEXT_BYTES + 1))
    elif kind == "latin metadata":
        (path / "metadata.json").write_bytes(b'{"caption": "\xe9"}')
    elif kind == "linked metadata":
        (path / "metadata.json").rename(root / "metadata.json")
        (path / "metadata.json").symlink_to(root / "metadata.json")
    elif kind == "broken metadata":
        (path / "metadata.json").write_text('{"width": 64')
    return path


CASES = {
    "path ../secret.npy": "outside", "path ROOT/secret.npy": "outside", "path tracks/../../secret.npy": "outside",
    "path ..\\secret.npy": "no path inside", "path C:secret.npy": "no path inside", "path .": "no plain file",
    "path tracks": "no plain file", "path a\0b.npy": "no path inside", "path " + "a" * 300: "no path inside",
    "link": "outside", "linked folder": "outside", "circle": "", "missing": "cannot be read", "pickle": "no array",
    "promises": "no array", "header": "no array", "text": "no array", "empty": "no array", "zip": "no array",
    "words": "array of", "shape": "array of", "nan": "finite", "large": "bytes; at most", "pipe": "no plain file",
    "no metadata": "no plain file", "long metadata": "bytes; at most", "latin metadata": "UTF-8",
    "linked metadata": "no plain file", "broken metadata": "not valid JSON",
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES, ids=[str(n) for n in range(len(CASES))])
def test_a_spoiled_case_is_refused_and_nothing_outside_it_is_read_or_run(tmp_path, kind):
    assert CASES[kind] in refusal(spoil_case(kind, tmp_path))
    assert not (tmp_path / "trapped").exists()


# --- single files, and writing ---


def test_a_file_is_read_by_what_is_in_it(tmp_path, plan):
    for fmt in ("csv", "keyframes"):
        (tmp_path / "boxes.txt").write_text(write(plan, fmt), encoding="utf-8-sig")
        assert read_any(tmp_path / "boxes.txt", W, H, 2).tracks[0].boxes == plan.tracks[0].boxes


def test_a_text_that_looks_like_a_path_never_opens_the_file(tmp_path, plan):
    (tmp_path / "boxes.csv").write_text(write(plan, "csv"))
    with pytest.raises(ValueError, match="not valid JSON"):
        read_any(str(tmp_path / "boxes.csv"), W, H)


@pytest.mark.parametrize("name", ["missing.json", "a\0b.json", "x" * 300])
def test_a_file_that_cannot_be_there_is_refused_with_a_sentence(tmp_path, name):
    assert "cannot be read" in refusal(tmp_path / name)


@pytest.mark.parametrize("fmt", ["omni", "davis"])
def test_nothing_is_written_over_what_is_there_already(tmp_path, plan, fmt):
    write(plan, fmt, tmp_path / "new")
    before = sorted(path.name for path in (tmp_path / "new").iterdir())
    with pytest.raises(ValueError, match="new exists already"):
        write(plan, fmt, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == before
    with pytest.raises(ValueError, match="name a new folder"):
        write(plan, fmt)
