"""What there is to curate, in the forms in which others keep it."""

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dv2_core import rle
from dv2_core.boxes import BoxPlan, BoxTrack
from dv2_core.boxes.formats import davis, omni
from dv2_core.curate.clip import Clip
from dv2_core.curate.importers import kind_of, read_source
from tests.curation import NAMES, reasons_of, rows_of, run, settings, write_folder
from tests.drawn_clips import draw_frames, write_clips, write_video

BOX = [2.0, 8.0, 28.0, 34.0]


def read(source: Path, **values: Any) -> list[Clip]:
    return list(read_source(settings(source, **values)))


def listed(clip: Clip) -> tuple[str, str, str, str]:
    return clip.name, Path(clip.source).name, clip.caption, clip.phrase


def test_a_folder_is_read_with_its_folders_and_what_lies_beside_each_video(tmp_path: Path) -> None:
    write_folder(tmp_path / "b", NAMES[:1])
    write_folder(tmp_path, NAMES[1:2], masks=False)
    (tmp_path / f"{NAMES[1]}.word.txt").write_text("a\nword ")
    (tmp_path / f"{NAMES[1]}.boxes.json").write_text("[]")
    deep, flat = read(tmp_path)
    assert listed(deep) == (f"videos/b/{NAMES[0]}.mp4", f"{NAMES[0]}.mp4", f"a {NAMES[0]} moving right", "")
    assert deep.mask_folder == str(tmp_path / "b" / f"{NAMES[0]}.masks") and deep.box_file is None
    assert (flat.phrase, flat.mask_folder, Path(flat.box_file or "").name) == ("a word", None, f"{NAMES[1]}.boxes.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="There is no video in"):
        read(tmp_path / "empty")


def test_jsonl_lists_are_read_under_the_names_that_others_use(tmp_path: Path) -> None:
    rows = [
        {"video": "a/1.mp4", "caption": "a dog", "subject": {"phrase": "dog"}},
        {"video_path": "2.mp4", "text": "a cat", "word": "cat"},
        {"file": "3.mp4"},
    ]
    (tmp_path / "list.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    assert [listed(clip) for clip in read(tmp_path / "list.jsonl")] == [
        ("videos/a/1.mp4", "1.mp4", "a dog", "dog"), ("videos/2.mp4", "2.mp4", "a cat", "cat"),
        ("videos/3.mp4", "3.mp4", "", ""),
    ]  # fmt: skip
    assert read(tmp_path / "list.jsonl", root="/elsewhere")[0].source == "/elsewhere/a/1.mp4"


@pytest.mark.parametrize("path", ["../a.mp4", "/etc/a.mp4", "a/../../b.mp4", "C:\\a.mp4", "\0.mp4"])
def test_a_list_names_no_file_outside_its_root(path: str, tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text(json.dumps({"video": path}))
    with pytest.raises(ValueError, match=r"list.jsonl:1: the path .* (is not below|leaves) the root"):
        read(tmp_path / "list.jsonl")


@pytest.mark.parametrize(("text", "part"), [("{", "not a JSON row"), ("[]", "not list"), ("{}", "no field names the")])
def test_a_line_that_is_no_row_is_named(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text(f'{{"video": "a.mp4"}}\n{text}\n')
    with pytest.raises(ValueError, match=f"list.jsonl:2: .*{part}"):
        read(tmp_path / "list.jsonl")


def test_a_manifest_is_curated_again_with_its_boxes_and_masks_as_they_are(tmp_path: Path) -> None:
    rows = write_clips(tmp_path / "videos", 3)
    lines = [json.dumps(row) for row in rows] + [json.dumps({"video": "x.mp4", "reject": "why"})]
    (tmp_path / "videos" / "clips.jsonl").write_text("\n".join(lines))
    run(tmp_path / "videos" / "clips.jsonl", tmp_path / "out")
    for row, given in zip(rows_of(tmp_path / "out"), rows, strict=True):
        assert [list(box or ()) for box in row.boxes] == given["boxes"] and list(row.mask_rle or ()) == given[
            "mask_rle"
        ]
        assert (row.id, row.phrase) == (f"videos/{given['video']}:0-10:1", given["subject"]["phrase"])


def test_a_table_as_webvid_has_it_finds_its_videos_and_says_which_are_missing(tmp_path: Path) -> None:
    write_folder(tmp_path / "000_050", NAMES[:1])
    (tmp_path / "000_050" / f"{NAMES[0]}.mp4").rename(tmp_path / "000_050" / "77.mp4")
    with (tmp_path / "results.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["videoid", "contentUrl", "duration", "page_dir", "name"])
        table.writerow([77, "https://x/77.mp4", "PT00H00M01S", "000_050", "A toadstool, moving"])
        table.writerow([78, "https://x/78.mp4", "PT00H00M01S", "000_100", "Nothing"])
    first, second = read(tmp_path / "results.csv")
    assert listed(first) == ("videos/000_050/77.mp4", "77.mp4", "A toadstool, moving", "")
    run(tmp_path / "results.csv", tmp_path / "out", skip=["subject", "blur", "cut", "text"])
    assert reasons_of(tmp_path / "out")["78.mp4"] == "missing: there is no such video"
    assert reasons_of(tmp_path / "out")["77.mp4"] == "no subject: there is no word for it"


def put(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def test_shards_with_captions_and_shards_that_curation_wrote_are_read(tmp_path: Path) -> None:
    rows = write_clips(tmp_path / "videos", 2)
    for n, row in enumerate(rows):
        with tarfile.open(tmp_path / f"s-{n:03d}.tar", "w") as tar:
            put(tar, "x/0.mp4", (tmp_path / "videos" / row["video"]).read_bytes())
            put(tar, "x/0.txt", b"from text")
            put(tar, "x/0.json", json.dumps(row if n else {"duration": 3}).encode())
    first, second = read(tmp_path / "s-{000..001}.tar")
    assert listed(first) == ("videos/s-000/x/0.mp4", "s-000.tar", "from text", "")
    assert second.caption == rows[1]["caption"] and second.masks is not None and second.frames == (0, 10)
    run(tmp_path / "s-001.tar", tmp_path / "out", shards=5)
    again = run(tmp_path / "out" / "shards" / "clips-00000.tar", tmp_path / "again")
    assert again.accepted == 1
    assert rows_of(tmp_path / "again")[0].boxes == rows_of(tmp_path / "out")[0].boxes
    video = rows_of(tmp_path / "again")[0].video
    assert (tmp_path / "again" / video).read_bytes() == (tmp_path / "videos" / rows[1]["video"]).read_bytes()
    (tmp_path / "s-002.tar").write_bytes(b"no tar")
    with pytest.raises(ValueError, match="s-002.tar is no uncompressed tar file"):
        read(tmp_path / "s-002.tar")


@pytest.mark.parametrize("layout", ["JPEGImages/480p", "train/JPEGImages"])
def test_davis_and_vos_folders_give_a_clip_per_subject_of_the_first_annotation(layout: str, tmp_path: Path) -> None:
    root, name = tmp_path / "set", "brown-dog_2"
    pictures = root / layout / name
    pictures.mkdir(parents=True)
    for t, frame in enumerate(draw_frames(NAMES[0])[0]):
        Image.fromarray(frame).save(pictures / f"{5 * t:05d}.png")
    moving = tuple((t / 20, 0.2, t / 20 + 0.3, 0.7) for t in range(10))
    tracks = (BoxTrack(moving, obj_id="1"), BoxTrack(((0.1, 0.8, 0.3, 0.95),) * 10, obj_id="3"))
    marks = Path(str(pictures).replace("JPEGImages", "Annotations"))
    davis.write(BoxPlan(tracks, 64, 48, 8.0), marks)
    for file in sorted(marks.iterdir(), reverse=True):
        file.rename(file.with_name(f"{5 * int(file.stem):05d}.png"))
    (pictures.parent / f"{name}.txt").write_text("two things")
    one, three = read(root)
    assert (one.obj_id, three.obj_id, one.phrase, one.caption) == ("1", "3", "brown dog", "two things")
    run(root, tmp_path / "out", fps=16.0)
    (row,) = rows_of(tmp_path / "out")
    assert (row.obj_id, row.fps, row.frames) == ("1", 16.0, (0, 10)) and row.video.endswith(f"{name}.mp4")
    for box, true in zip(row.boxes, moving, strict=True):
        assert box is not None and np.allclose(np.array(box) / [64, 48, 64, 48], true, atol=1 / 48)
    assert reasons_of(tmp_path / "out")[f"{name}.mp4"].startswith("still")


def test_vos_categories_are_the_subjects_words(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages" / "0a1b").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "JPEGImages" / "0a1b" / "00000.jpg")
    davis.write(BoxPlan((BoxTrack(((0.0, 0.0, 0.5, 0.5),), obj_id="2"),), 8, 8, 6.0), tmp_path / "Annotations" / "0a1b")
    meta = {"videos": {"0a1b": {"objects": {"2": {"category": "sheep", "frames": ["00000"]}}}}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    (clip,) = read(tmp_path)
    assert (clip.obj_id, clip.phrase) == ("2", "sheep")


def test_cases_of_dreamvideo_omni_bring_their_boxes(tmp_path: Path) -> None:
    frames, masks = draw_frames(NAMES[0])
    boxes = tuple((t / 20, 0.25, t / 20 + 0.25, 0.75) for t in range(10))
    omni.write(BoxPlan((BoxTrack(boxes, obj_id="4", label="dog"),), 64, 48, 16.0), tmp_path / "cases" / "7")
    write_video(tmp_path / "cases" / "7" / "video.mp4", frames)
    (clip,) = read(tmp_path / "cases")
    assert (clip.name, clip.obj_id, clip.phrase, clip.frames) == ("videos/7/video.mp4", "4", "dog", (0, 10))
    assert clip.boxes is not None and clip.boxes[2] == (6.0, 12.0, 22.0, 36.0)
    (tmp_path / "cases" / "7" / "video.mp4").unlink()
    run(tmp_path / "cases", tmp_path / "out")
    assert reasons_of(tmp_path / "out") == {"video.mp4": "missing: there is no such video"}


def test_videobooth_lists_bring_the_first_frames_box_and_mask(tmp_path: Path) -> None:
    frames, masks = draw_frames(NAMES[0])
    folder = tmp_path / "dog" / "12"
    folder.mkdir(parents=True)
    write_video(tmp_path / "12.mp4", frames)
    entries = [{"value": 0, "label": "background"}, {"value": 1, "label": "dog", "logit": 0.8, "box": BOX}]
    (folder / "mask.json").write_text(json.dumps(entries))
    Image.fromarray(masks[0].astype(np.uint8) * 255).save(folder / "mask_1.png")
    (tmp_path / "dog.csv").write_text("videoid,page_dir,name\n12,,a dog\n")
    for source in (tmp_path, tmp_path / "dog.csv"):
        (clip,) = read(source)
        assert listed(clip) == ("videos/12.mp4", "12.mp4", "a dog", "dog")
        assert (clip.start, clip.ref_frame, clip.obj_id) == (tuple(BOX), 0, "1")
        assert clip.start_mask is not None and (rle.decode(clip.start_mask) == masks[0]).all()
    (folder / "mask_1.png").unlink()
    with pytest.raises(ValueError, match="mask.json: there is no mask_1.png beside it"):
        read(tmp_path)


def test_a_video_that_is_listed_twice_is_used_once(tmp_path: Path) -> None:
    rows = write_clips(tmp_path / "videos", 1)
    (tmp_path / "videos" / "clips.jsonl").write_text(2 * (json.dumps(rows[0]) + "\n"))
    assert run(tmp_path / "videos" / "clips.jsonl", tmp_path / "out").rejected == {"import": {"listed twice": 1}}


def test_a_source_that_is_not_there_or_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.doc").write_text("x")
    for source in (tmp_path / "nothing", tmp_path / "a.doc"):
        with pytest.raises(ValueError, match="give a folder of videos, a list"):
            kind_of(source)
    with pytest.raises(ValueError, match="there is no file"):
        read(tmp_path / "no-{0..3}.tar")
