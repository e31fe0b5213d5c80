"""Boxes on their way into files and back: JSON, CSV, and the metadata of a saved video."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

KEYFRAMES = json.dumps({
    "version": 1, "width": 64, "height": 48, "length": 8, "fps": 12,
    "tracks": [{"id": "dog", "label": "a dog", "interpolation": "smooth", "keyframes": [
        {"frame": 0, "box": [0, 0, 0.5, 0.5], "easing": "ease-in"}, {"frame": 7, "box": [0.5, 0.5, 1, 1]}]}],
})  # fmt: skip
OUTPUTS = ("keyframes", "bounding_boxes", "width", "height", "length", "fps")


def save(lab, **inputs):
    settings = {"keyframes": KEYFRAMES, "filename_prefix": "boxes/mine", "format": "json", **inputs}
    before = files(lab)
    lab.classes["DV2SaveBoxes"].execute(**settings)
    (new,) = files(lab) - before
    return new


def files(lab):
    return {path for path in (Path(lab.engine.base_dir) / "output").rglob("*") if path.is_file()}


def load(lab, file, **inputs):
    settings = {"width": 0, "height": 0, "length": 0, **inputs}
    return dict(zip(OUTPUTS, lab.call("DV2LoadBoxes", file=file, **settings), strict=True))


def refused(lab, class_type, **inputs):
    graph = type(lab.graph()[0])()
    if class_type == "DV2SaveBoxes":
        graph.add(class_type, keyframes=KEYFRAMES, **inputs)
    else:
        loaded = graph.add(class_type, **inputs)
        graph.add("DV2SaveBoxes", keyframes=(loaded, 0), filename_prefix="never", format="json")
    return lab.complaint(lab.run(graph))[1]


def test_json_brings_keyframes_easings_and_curves_back_as_they_were(lab):
    path = save(lab)
    assert path.parent.name == "boxes" and path.name == "mine_00001_.json"
    out = load(lab, f"boxes/{path.name} [output]")
    assert json.loads(out["keyframes"]) == json.loads(KEYFRAMES)
    assert [out[name] for name in OUTPUTS[2:]] == [64, 48, 8, 12.0]
    assert out["bounding_boxes"][0][0]["width"] == 32
    assert f"boxes/{path.name} [output]" in lab.pack("nodes.box_files").box_files()


def test_csv_brings_every_frames_box_back(lab):
    path = save(lab, format="csv")
    assert path.read_text().startswith("frame,obj_id,label,x1,y1,x2,y2,visible\n0,dog,a dog,0,0,32,24,1\n")
    out = load(lab, f"boxes/{path.name} [output]", width=64, height=48)
    assert out["length"] == 8 and json.loads(out["keyframes"])["tracks"][0]["label"] == "a dog"
    assert "set width and height" in refused(lab, "DV2LoadBoxes", file=f"boxes/{path.name} [output]", width=0,
                                             height=0, length=0)  # fmt: skip


def test_nothing_is_ever_overwritten(lab):
    first = save(lab, filename_prefix="boxes/twice")
    text = first.read_text()
    second = save(lab, filename_prefix="boxes/twice", keyframes=KEYFRAMES.replace("dog", "cat"))
    assert (first.name, second.name) == ("twice_00001_.json", "twice_00002_.json")
    assert first.read_text() == text != second.read_text()


def video(lab, **changes):
    """An mp4 as Create Video, Embed Boxes and the core's Save Video make it; its path."""
    frames = torch.rand(8, 48, 64, 3, generator=torch.Generator().manual_seed(1))
    (made,) = lab.call("CreateVideo", images=frames, fps=12.0)
    (embedded,) = lab.call("DV2EmbedBoxes", video=made, keyframes=KEYFRAMES)
    before, cls = files(lab), lab.classes["SaveVideo"]
    hidden = type("Hidden", (), {"prompt": {"1": "the prompt"}, "extra_pnginfo": {"workflow": {"nodes": []}}})
    saver = type("Saver", (cls,), {"hidden": hidden})
    saver.execute(video=embedded, **{"filename_prefix": "clip", "format": "mp4", "codec": "h264", **changes})
    (new,) = files(lab) - before
    return made, embedded, new


def test_a_saved_video_gives_its_boxes_back_and_keeps_the_workflow(lab):
    made, embedded, path = video(lab)
    assert type(embedded) is type(made) and embedded.get_dimensions() == (64, 48)
    with av.open(str(path)) as container:
        told = dict(container.metadata)
        assert sum(1 for _ in container.decode(video=0)) == 8
    assert json.loads(told["dv2_boxes"]) == json.loads(KEYFRAMES)
    assert json.loads(told["workflow"]) == {"nodes": []} and json.loads(told["prompt"]) == {"1": "the prompt"}
    out = load(lab, f"{path.name} [output]")
    assert json.loads(out["keyframes"]) == json.loads(KEYFRAMES)


def test_the_video_that_came_in_is_saved_without_boxes_still(lab, tmp_path):
    made, _, _ = video(lab)
    made.save_to(str(tmp_path / "plain.mp4"), metadata={"prompt": "x"})
    with av.open(str(tmp_path / "plain.mp4")) as container:
        assert set(container.metadata) >= {"prompt"} and "dv2_boxes" not in container.metadata


def test_a_webm_keeps_the_boxes_too(lab, tmp_path):
    _, _, path = video(lab)
    target = Path(lab.engine.base_dir) / "input" / "again.webm"
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        container.metadata["DV2_BOXES"] = source.metadata["dv2_boxes"]
        stream = container.add_stream("libvpx-vp9", rate=12)
        stream.width, stream.height = 64, 48
        for frame in source.decode(video=0):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert json.loads(load(lab, "again.webm")["keyframes"]) == json.loads(KEYFRAMES)


@pytest.fixture
def input_folder(lab):
    folder = Path(lab.engine.base_dir) / "input"
    (folder / "notes.json").write_text("no JSON at all")
    (folder / "noise.mp4").write_bytes(b"no video at all" * 40)
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/hostname\n")
    (folder / "latin.csv").write_bytes("frame,x1,y1,x2,y2\n0,é".encode("latin-1"))
    (folder / "first_last.json").write_text('{"first": [0, 0, 32, 24], "last": [32, 24, 64, 48]}')
    (folder / "picture.png").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("nowhere.json", "is not in ComfyUI's input or output folder"),
        ("../secret.json", "is not in ComfyUI's input or output folder"),
        ("/etc/hostname", "is not in ComfyUI's input or output folder"),
        ("a\0b.json", "is not in ComfyUI's input or output folder"),
        ("picture.png", "is no file of boxes"),
        ("notes.json", "not valid JSON"),
        ("noise.mp4", "cannot be read as a video"),
        ("playlist.mp4", "cannot be read as a video"),
        ("latin.csv", "UTF-8"),
        ("first_last.json", "how many frames"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence(lab, input_folder, file, sentence):
    found = refused(lab, "DV2LoadBoxes", file=file, width=64, height=48, length=0)
    assert sentence in found and "Traceback" not in found


def test_a_video_without_boxes_is_refused_and_told_what_has_them(lab):
    made, _, _ = video(lab)
    made.save_to(str(Path(lab.engine.base_dir) / "input" / "plain.mp4"))
    found = refused(lab, "DV2LoadBoxes", file="plain.mp4", width=0, height=0, length=0)
    assert "no boxes in its metadata" in found and "Embed Boxes" in found


def test_a_text_that_does_not_say_its_frames_is_read_for_the_length_that_is_given(lab, input_folder):
    out = load(lab, "first_last.json", width=64, height=48, length=5)
    assert out["length"] == 5 and out["bounding_boxes"][4][0]["x"] == 32


def test_a_folder_of_boxes_says_its_size_itself(lab):
    given = Path(lab.engine.base_dir) / "input"
    formats = lab.pack("dv2_core.boxes.formats")
    plan = lab.pack("dv2_core.boxes").KeyframePlan.from_json(KEYFRAMES).evaluate()
    for fmt, file in (("omni", "metadata.json"), ("davis", "00000.png")):
        formats.write(plan, fmt, given / f"of_{fmt}")
        out = load(lab, f"of_{fmt}/{file}")
        assert [out[name] for name in ("width", "height", "length")] == [64, 48, 8]
        assert out["bounding_boxes"][0][0]["width"] == 32
        assert load(lab, f"of_{fmt}/{file}", width=128, height=96)["bounding_boxes"][0][0]["width"] == 64


def test_a_case_without_boxes_is_read_with_the_size_of_the_boxes_around_its_points(lab):
    case = Path(lab.engine.base_dir) / "input" / "points_only"
    (case / "tracks").mkdir(parents=True)
    np.save(case / "tracks" / "p.npy", np.full((1, 4, 1, 2), 20.0))
    (case / "metadata.json").write_text(json.dumps({"paths": {"tracks": {"tracks": "tracks/p.npy"}}}))
    given = {"file": "points_only/metadata.json", "width": 64, "height": 48}
    out = load(lab, **given, box_width=8, box_height=8)
    assert out["bounding_boxes"][3][0]["x"] == 16 and out["length"] == 4
    with pytest.raises(ValueError, match="no box size"):
        load(lab, **given)
    with pytest.raises(ValueError, match="set width and height"):
        load(lab, **{**given, "width": 0}, box_width=8, box_height=8)


@pytest.mark.parametrize("prefix", ["../outside", "/tmp/outside", "boxes/..", "", "boxes/", "a\0b"])
def test_a_name_outside_the_output_folder_is_refused_and_writes_nothing(lab, prefix):
    before = files(lab)
    assert "output folder" in refused(lab, "DV2SaveBoxes", filename_prefix=prefix, format="json")
    assert files(lab) == before


def test_a_bad_document_is_refused_before_a_file_is_made(lab):
    before = files(lab)
    with pytest.raises(ValueError, match="version 2"):
        save(lab, keyframes=KEYFRAMES.replace('"version": 1', '"version": 2'))
    assert files(lab) == before
