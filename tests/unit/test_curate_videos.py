"""Videos as they come: what cannot be used says why, and nothing stops the others."""

import json
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dv2_core import rle
from dv2_core.curate.video import cuts, split
from tests.curation import NAMES, reasons_of, rows_of, run, write_folder, write_masks
from tests.drawn_clips import FPS, draw_frames, write_video


def broken(path: Path) -> None:
    path.write_bytes(b"this is no video" * 40)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    write_video(path, draw_frames(NAMES[0])[0])
    path.write_bytes(path.read_bytes()[:-600])


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())


def huge(path: Path) -> None:
    write_video(path, np.zeros((1, 64, 5000, 3), np.uint8))


def long(path: Path) -> None:
    write_video(path, np.zeros((90, 16, 16, 3), np.uint8))


def rotated(path: Path) -> None:
    """A quarter turn in the track's header, as telephones write it."""
    write_video(path, draw_frames(NAMES[0])[0])
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))


def uneven(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, time in zip(
            draw_frames(NAMES[0])[0], (0, 60, 120, 400, 420, 480, 900, 960, 1020, 1500), strict=True
        ):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def brief(path: Path) -> None:
    write_video(path, draw_frames(NAMES[0])[0][:3])


BAD: dict[Callable[[Path], None], str] = {
    broken: "broken: it cannot be decoded after 0 frames",
    empty: "empty: the file has no bytes",
    cut_off: "broken: its frames cannot be decoded",
    sound_only: "no video: the file has no video stream",
    huge: "huge: 5000x64 pixels, the longer side may have 4096",
    long: "huge: longer than 5 s; cut it into parts",
    rotated: "rotated: players turn it by 270 degrees",
    uneven: "variable frame rate: ",
    brief: "short: no scene of its 0.2 s lasts 0.5 s",
}


def test_every_kind_of_unusable_video_has_its_reason_and_the_good_one_beside_them_is_used(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "videos", NAMES[:1])
    for make in BAD:
        make(folder / f"{make.__name__}.mp4")
    run(folder, tmp_path / "out", probe={"max_seconds": 5.0})
    assert [row.video for row in rows_of(tmp_path / "out")] == [f"videos/{NAMES[0]}.mp4"]
    reasons = reasons_of(tmp_path / "out")
    assert reasons.keys() == {f"{make.__name__}.mp4" for make in BAD}
    for make, start in BAD.items():
        assert reasons[f"{make.__name__}.mp4"].startswith(start), reasons
    assert str(tmp_path) not in (tmp_path / "out" / "clips.jsonl").read_text()


def test_masks_that_do_not_fit_their_video_reject_the_clip(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "videos", NAMES[:2])
    write_video(folder / f"{NAMES[0]}.mp4", np.zeros((10, 32, 32, 3), np.uint8))
    (folder / f"{NAMES[1]}.masks" / "00009.png").rename(folder / f"{NAMES[1]}.masks" / "00077.png")
    (folder / f"{NAMES[1]}.masks" / "00008.png").unlink()
    run(folder, tmp_path / "out")
    reasons = reasons_of(tmp_path / "out")
    assert reasons[f"{NAMES[0]}.mp4"].startswith("broken") and "64x48, the video 32x32" in reasons[f"{NAMES[0]}.mp4"]
    assert "00077.png: the video has frames 0 to 9" in reasons[f"{NAMES[1]}.mp4"]


def write_two_scenes(folder: Path) -> np.ndarray:
    """``two.mp4``: ten frames of a subject on one background and ten on another; the subject's masks [20, H, W]."""
    (first, masks), (second, others) = draw_frames(NAMES[0]), draw_frames(NAMES[1])
    write_video(folder / "two.mp4", np.concatenate([first, 255 - second]))
    return np.concatenate([masks, others])


def test_a_cut_begins_another_clip(tmp_path: Path) -> None:
    write_masks(tmp_path / "two.masks", write_two_scenes(tmp_path))
    assert cuts(tmp_path / "two.mp4", 0.2) == [10]
    assert cuts(tmp_path / "two.mp4", 0.2, (2, 9)) == cuts(tmp_path / "two.mp4", 0.2, (10, 20)) == []
    (tmp_path / "two.txt").write_text("two scenes")
    run(tmp_path, tmp_path / "out")
    assert [row.frames for row in rows_of(tmp_path / "out")] == [(0, 10), (10, 20)]


def test_a_clip_whose_frames_are_given_is_rejected_for_a_cut_within_it_if_asked_to(tmp_path: Path) -> None:
    masks = [rle.encode(mask) for mask in write_two_scenes(tmp_path)]
    for first in (0, 6):
        row = {"video": "two.mp4", "caption": "two scenes", "fps": 16, "width": 64, "height": 48}
        row |= {"frames": [first, first + 8], "mask_rle": masks[first : first + 8]}
        row["boxes"] = [[3 * t, 8, 3 * t + 20, 34] for t in range(8)]
        with (tmp_path / "list.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    run(tmp_path / "list.jsonl", tmp_path / "out", skip=["blur", "text"])
    assert [row.frames for row in rows_of(tmp_path / "out")] == [(0, 8)]
    assert reasons_of(tmp_path / "out") == {"two.mp4": "cut: a scene begins in frame 10"}


@pytest.mark.parametrize(
    ("length", "starts", "expected"),
    [
        (100, [], [(0, 33), (33, 67), (67, 100)]),
        (39, [], [(0, 39)]),
        (100, [3, 60], [(3, 31), (31, 60), (60, 100)]),
        (45, [], [(0, 22), (22, 45)]),
        (19, [], []),
        (41, [21], [(0, 21), (21, 41)]),
    ],
)
def test_scenes_are_cut_into_equal_parts_of_twenty_to_forty_frames(
    length: int, starts: list[int], expected: list[tuple[int, int]]
) -> None:
    assert split(length, starts, 20, 40) == expected


def test_where_equal_parts_would_be_too_short_the_tail_is_left_out() -> None:
    assert split(50, [], 30, 40) == [(0, 40)]


def test_a_blurred_clip_is_rejected_if_asked_to(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "videos", NAMES[:1])
    run(folder, tmp_path / "out", skip=["cut", "text"], quality={"sharpness": 0.0})
    sharpness = rows_of(tmp_path / "out")[0].scores["sharpness"]
    run(folder, tmp_path / "out", skip=["cut", "text"], quality={"sharpness": sharpness + 1})
    assert reasons_of(tmp_path / "out")[f"{NAMES[0]}.mp4"].startswith(f"blurred: its sharpness is {sharpness:.1f}")
