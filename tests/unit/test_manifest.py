"""The manifest of clips: rows survive a round trip, bad rows get a sentence, masks are COCO's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dv2_core import rle
from dv2_core.manifest import below, parse_row, read_rows

ROW: dict[str, Any] = {
    "video": "a/b.mp4",
    "caption": "a red fish moving left",
    "fps": 25,
    "frames": [10, 13],
    "width": 12,
    "height": 8,
    "subject": {"phrase": "fish", "obj_id": 1},
    "boxes": [[0, 0, 4, 4], None, [1.5, 2, 12.4, 8]],
    "mask_rle": [{"size": [8, 12], "counts": [3, 5, 88]}, None, None],
    "ref_frame": 12,
    "scores": {"grounding": 0.5},
    "reject": None,
}


def line(**changes: Any) -> str:
    return json.dumps({k: v for k, v in {**ROW, **changes}.items() if v != "leave out"})


def test_a_row_is_read_with_its_boxes_cut_to_the_frame_and_written_back_the_same() -> None:
    row = parse_row(line(), "clips.jsonl:1")
    assert row is not None
    assert (row.video, row.fps, row.frames, row.phrase, row.obj_id) == ("a/b.mp4", 25.0, (10, 13), "fish", "1")
    assert row.boxes == ((0, 0, 4, 4), None, (1.5, 2, 12, 8))
    assert parse_row(row.to_json(), "again") == row


def test_a_rejected_row_needs_no_boxes_and_is_no_clip() -> None:
    assert parse_row('{"video": "x.mp4", "caption": "", "reject": "two boxes"}', "clips.jsonl:1") is None


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"video": "../x.mp4"}, "video .*leaves the manifest's root"),
        ({"video": "/etc/passwd"}, "leaves the manifest's root"),
        ({"video": "C:\\x.mp4"}, "leaves the manifest's root"),
        ({"video": "a\\..\\..\\x.mp4"}, "leaves the manifest's root"),
        ({"mask_path": "../masks", "mask_rle": None}, "mask_path .*leaves the manifest's root"),
        ({"mask_path": "masks"}, "beside mask_rle; keep one"),
        ({"caption": " "}, "caption .*is no text"),
        ({"fps": 0}, "fps 0 is no number from 0.1"),
        ({"fps": True}, "fps true is no number"),
        ({"fps": "25"}, "fps .*is no number"),
        ({"frames": [3, 3]}, "frames .*holds no frames"),
        ({"frames": [10, 14]}, "boxes 3 entries do not fit the 4 frames"),
        ({"frames": [1.0, 4]}, r"frames .*is not \[first, end\]"),
        ({"width": 0}, "width 0 is no whole number"),
        ({"boxes": [None, None, None]}, "boxes are null in every frame"),
        ({"boxes": [[4, 0, 1, 4], None, None]}, r"boxes\[0\] .*is no part of the 12x8 frame"),
        ({"boxes": [None, [0, 0, 20, 4], None]}, r"boxes\[1\] .*is no part"),
        ({"boxes": [None, [0, 0, "1", 4], None]}, r"boxes\[1\] .*is no box"),
        ({"boxes": {"0": [0, 0, 1, 1]}}, "boxes .*is no list"),
        (
            {"mask_rle": [{"size": [12, 8], "counts": [96]}, None, None]},
            r"mask_rle\[0\].size .*is not \[height, width\]",
        ),
        ({"mask_rle": [{"counts": [96]}, None, None]}, r"mask_rle\[0\] .*is no mask"),
        ({"ref_frame": 13}, "ref_frame 13 is no whole number from 10 to 12"),
        ({"subject": "fish"}, "subject .*is not a subject"),
        ({"scores": {"a": "b"}}, "scores .*is no object of numbers"),
        ({"reject": True}, "reject true is neither null nor a reason"),
        ({"catpion": "x"}, "field .catpion. is unknown; known are video"),
        ({"width": "leave out"}, "the field width is missing"),
    ],
)
def test_a_bad_row_gets_a_sentence_with_its_place_and_field(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^clips.jsonl:7: .*{sentence}"):
        parse_row(line(**changes), "clips.jsonl:7")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"video": NaN}',
        '{"video": "a", "video": "b"}',
        '{"fps": 1' + "0" * 400 + "}",
        "[" * 100_000,
        "\udcff",
    ],
)
def test_what_is_no_json_object_gets_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="^clips.jsonl:7: "):
        parse_row(text.encode("utf-8", "surrogateescape"), "clips.jsonl:7")


def test_reading_a_file_names_the_line_and_skips_blank_ones(tmp_path: Path) -> None:
    manifest = tmp_path / "clips.jsonl"
    manifest.write_text(f"{line()}\n\n{line(reject='blurred')}\n{line(fps=-1)}\n")
    rows = read_rows(manifest)
    offset, length, where, row = next(rows)
    assert (offset, where) == (0, "clips.jsonl:1") and row is not None
    assert manifest.read_bytes()[offset : offset + length] == f"{line()}\n".encode()
    assert next(rows)[2:] == ("clips.jsonl:3", None)
    with pytest.raises(ValueError, match="^clips.jsonl:4: fps"):
        next(rows)


def test_a_link_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "x.mp4").symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(ValueError, match="x.mp4.* leads out of"):
        below(tmp_path / "root", "x.mp4", "clips.jsonl:1")
    with pytest.raises(ValueError, match="there is no 'y.mp4'"):
        below(tmp_path / "root", "y.mp4", "clips.jsonl:1")


def test_compressed_run_lengths_are_those_of_pycocotools() -> None:
    y, x = np.mgrid[:12, :10]
    disc = (y - 6) ** 2 + (x - 4) ** 2 < 16
    assert rle.encode(disc) == {"size": [12, 10], "counts": "`0562O00000001Ne0"}
    assert rle.encode(np.ones((3, 2))) == {"size": [3, 2], "counts": "06"}
    assert rle.encode(np.zeros((3, 2))) == {"size": [3, 2], "counts": "6"}
    assert rle.decode({"size": [2, 3], "counts": [1, 2, 3]}).tolist() == [[False, True, False], [True, False, False]]


@given(st.data(), st.integers(1, 40), st.integers(1, 40))
def test_masks_survive_encoding(data: st.DataObject, height: int, width: int) -> None:
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(pixels).reshape(height, width)
    assert np.array_equal(rle.decode(rle.encode(mask)), mask)


@pytest.mark.parametrize("counts", [[3], [3, -1, 4], [2.0, 4], "é", "P", "06" * 20, [6, 10**30]])
def test_run_lengths_that_do_not_fit_the_mask_get_a_sentence(counts: Any) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        rle.decode({"size": [3, 2], "counts": counts})
