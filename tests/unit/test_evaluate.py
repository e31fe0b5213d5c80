"""The evaluation around the metrics: pairs and galleries, prompts, scores, files, resuming."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dv2_core.boxes import parse_boxes, rasterize
from dv2_core.evaluate.metrics import GALLERY
from dv2_core.evaluate.pairs import draw_pairs, galleries, to_bytes, to_frames
from dv2_core.evaluate.prompts import (
    CONDITIONS,
    REAL_FILE,
    SHOWN,
    SUBJECT_FILE,
    Setup,
    boxes_json,
    generate,
    reconstruct,
    write_inputs,
)
from dv2_core.evaluate.report import table, write
from dv2_core.evaluate.run import check_settings, find_weights, render
from dv2_core.evaluate.scores import score, shuffled
from dv2_core.evaluate.sheet import CELL, GAP, sheet
from dv2_core.world.atlas import Atlas, Sprite


class Oracle:
    """A detector that knows the answer: gives the boxes of the clips it is shown, in their order."""

    def __init__(self, answers):
        self.answers = iter(answers)

    def boxes(self, frames):
        return next(self.answers)


class FakeComfy:
    """Counts the prompts it is given and answers each with a grey clip."""

    def __init__(self):
        self.prompts = []

    def run(self, prompt, show):
        self.prompts.append((prompt, show))
        return np.full((8, 64, 64, 3), len(self.prompts), np.uint8)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    """60 held-out and 4 training concepts: two-coloured ellipses, each in two styles."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    rgba, sprites = [], []
    for concept in range(64):
        for style in ("noto", "fluent-3d"):
            picture = np.zeros((64, 64, 4), np.uint8)
            inside = (x / rng.uniform(0.5, 1)) ** 2 + (y / rng.uniform(0.5, 1)) ** 2 < 1
            picture[inside & (x < 0)] = (*rng.integers(0, 255, 3), 255)
            picture[inside & (x >= 0)] = (*rng.integers(0, 255, 3), 255)
            rgba.append(picture)
            split = "train" if concept < 4 else "test"
            sprites.append(Sprite(f"{concept:x}", f"thing{concept}", style, "Apache-2.0", split))
    return Atlas(np.stack(rgba), sprites)


@pytest.fixture(scope="module")
def pairs(atlas):
    return draw_pairs(atlas, 12)


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_every_gallery_holds_48_different_held_out_concepts(atlas):
    held_out = {atlas.sprites[i].name for i in atlas.indices("test")}
    drawn = draw_pairs(atlas, 2 * GALLERY)
    assert [len(gallery) for gallery in galleries(len(drawn))] == [GALLERY, GALLERY]
    for gallery in galleries(len(drawn)):
        concepts = {drawn[i].clip.concept for i in gallery}
        assert len(concepts) == GALLERY and concepts <= held_out


def test_a_larger_evaluation_begins_with_the_pairs_of_a_smaller_one(atlas, pairs):
    more = draw_pairs(atlas, 24)
    for few, many in zip(pairs, more, strict=False):
        assert few.number == many.number and few.clip.caption == many.clip.caption
        assert torch.equal(few.clip.frames, many.clip.frames)


def test_pairs_that_would_leave_a_gallery_half_full_are_refused(atlas):
    for count in (0, 49, 95):
        with pytest.raises(ValueError, match="multiple of 48"):
            draw_pairs(atlas, count)


def test_an_atlas_with_too_few_held_out_concepts_is_refused(atlas):
    few = Atlas(atlas.rgba[:20], atlas.sprites[:20])
    with pytest.raises(ValueError, match="6 held-out concepts"):
        draw_pairs(few, 12)


def test_frames_become_bytes_and_come_back_within_half_a_level(pairs):
    frames = pairs[0].clip.frames
    assert (to_frames(to_bytes(frames)) - frames).abs().max() <= 0.5 / 255 + 1e-6


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_the_boxes_in_a_prompt_make_exactly_the_masks_of_the_clip(pairs):
    for pair in pairs:
        track = parse_boxes(boxes_json(pair), 8, 64, 64)
        assert torch.equal(rasterize(track, 64, 64), pair.clip.masks)


def test_a_condition_that_is_left_out_has_no_node_in_the_prompt(pairs):
    kinds = {c.name: {n["class_type"] for n in generate(pairs[0], c, Setup()).values()} for c in CONDITIONS}
    boxes, subject = {"DV2BoxesToMask", "DV2MotionEncoder"}, {"DV2LoadSubject", "DV2ReferenceAttention"}
    assert not kinds["text only"] & (boxes | subject)
    assert boxes <= kinds["boxes only"] and not kinds["boxes only"] & subject
    assert subject <= kinds["subject only"] and not kinds["subject only"] & boxes
    assert boxes | subject <= kinds["boxes + subject"]


def test_only_with_boxes_is_the_subject_masked(pairs):
    alone, both = (generate(pairs[0], c, Setup())["reference"]["inputs"] for c in CONDITIONS[2:])
    assert "masks" not in alone and both["masks"] == ["boxes", 0]


def test_every_row_starts_a_pair_from_the_same_noise_and_every_pair_from_its_own(pairs):
    seeds = {(p.number, generate(p, c, Setup(seed=7))["sampler"]["inputs"]["seed"]) for p in pairs for c in CONDITIONS}
    assert seeds == {(pair.number, 7 + pair.number) for pair in pairs}


def test_every_link_of_the_prompts_leads_to_a_node(pairs):
    prompts = [generate(pairs[0], c, Setup()) for c in CONDITIONS] + [reconstruct(pairs[0], Setup())]
    for prompt in prompts:
        links = [v for node in prompt.values() for v in node["inputs"].values() if isinstance(v, list)]
        assert SHOWN in prompt and all(link[0] in prompt for link in links)


def test_the_input_files_hold_the_subject_with_transparency_and_all_frames_of_a_still_clip(atlas, tmp_path):
    moving = draw_pairs(atlas, 1)[0]
    pair = replace(moving, clip=replace(moving.clip, frames=moving.clip.frames[:1].expand(8, -1, -1, -1)))
    write_inputs(pair, tmp_path)
    subject = np.asarray(Image.open(tmp_path / SUBJECT_FILE.format(pair.number)))
    assert np.array_equal(subject[..., 3] == 255, pair.clip.subject_alpha.numpy())
    assert np.array_equal(subject[..., :3], to_bytes(pair.clip.subject[None])[0])
    with Image.open(tmp_path / REAL_FILE.format(pair.number)) as real:
        assert real.n_frames == 8
        for index, frame in enumerate(pair.real):
            real.seek(index)
            assert np.array_equal(np.asarray(real), frame)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_real_clips_with_perfect_detections_score_the_best_there_is(pairs):
    scores = score([p.real for p in pairs], pairs, Oracle(p.boxes for p in pairs))
    values = {name: value for name, (value, _, _) in scores.columns().items()}
    assert values["mIoU"] == 1 and values["CD"] == 0 and values["misses"] == 0
    assert values["top1"] == 1 and values["top5"] == 1
    assert values["colour"] > 0.97 and values["own"] < 0.1 < 0.2 < values["other"]


def test_a_clip_without_detections_scores_zero_iou_distance_one_and_all_missed(pairs):
    answers = [np.full((8, 4), np.nan) if p.number % 2 else p.boxes for p in pairs]
    scores = score([p.real for p in pairs], pairs, Oracle(answers))
    assert scores.mIoU.tolist() == [1, 0] * 6
    assert scores.CD.tolist() == [0, 1] * 6
    assert scores.misses.tolist() == [0, 1] * 6


def test_shuffled_boxes_are_those_of_another_pair(pairs):
    boxes_of = shuffled(pairs)
    assert np.array_equal(boxes_of(3), pairs[4].boxes) and np.array_equal(boxes_of(11), pairs[0].boxes)
    scores = score([p.real for p in pairs], pairs, Oracle(p.boxes for p in pairs), boxes_of)
    assert scores.mIoU.mean() < 0.5 and scores.top1.mean() < 0.7


def test_grey_clips_have_the_right_boxes_and_no_subject(pairs):
    grey = [np.full_like(p.real, 128) for p in pairs]
    scores = score(grey, pairs, Oracle(p.boxes for p in pairs))
    assert scores.columns()["colour"][0] == 0
    assert scores.mIoU.mean() == 1 and scores.top1.mean() <= 0.2


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_report_has_a_line_per_row_and_the_same_numbers_as_json(pairs, tmp_path):
    scores = score([p.real for p in pairs], pairs, Oracle(p.boxes for p in pairs))
    text = write(tmp_path, {"real clips": scores, "again": scores}, {"pairs": 12})
    assert text == table({"real clips": scores, "again": scores}) and text in (tmp_path / "results.md").read_text()
    assert [line.split(" | ")[0].strip("| ") for line in text.splitlines()[2:]] == ["real clips", "again"]
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["about"] == {"pairs": 12}
    assert saved["rows"]["again"]["mIoU"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_the_sheet_shows_four_best_four_median_and_four_worst_clips(pairs):
    picture = sheet(pairs, [p.real for p in pairs], np.linspace(1, 0, 12))
    assert picture.width == 10 * (CELL + GAP) + GAP
    first_row = np.asarray(picture)[: picture.height // 12]
    again = sheet(pairs[:4], [p.real for p in pairs[:4]], np.linspace(1, 0, 4))
    assert np.array_equal(first_row, np.asarray(again)[: picture.height // 12])


def test_an_interrupted_evaluation_makes_only_the_clips_that_are_missing(pairs, tmp_path):
    first, second = FakeComfy(), FakeComfy()
    made = render(first, pairs[:3], tmp_path, lambda pair: {"n": pair.number})
    again = render(second, pairs[:5], tmp_path, lambda pair: {"n": pair.number})
    assert [prompt["n"] for prompt, _ in second.prompts] == [3, 4]
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=False))


def test_clips_of_other_settings_are_not_mixed_into_a_folder(tmp_path):
    check_settings(tmp_path / "settings.json", {"cfg": 2.0})
    check_settings(tmp_path / "settings.json", {"cfg": 2.0})
    with pytest.raises(ValueError, match="other weights or settings"):
        check_settings(tmp_path / "settings.json", {"cfg": 3.0})


def test_weights_are_found_at_any_depth_and_two_of_a_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "x.safetensors").touch()
    assert find_weights(tmp_path, "x.safetensors") == (tmp_path / "a" / "x.safetensors").resolve()
    (tmp_path / "b" / "x.safetensors").touch()
    with pytest.raises(ValueError, match="2 times"):
        find_weights(tmp_path, "x.safetensors")
    with pytest.raises(ValueError, match="Neither"):
        find_weights(tmp_path, "nowhere.safetensors")
