"""The evaluation around the metrics: pairs and galleries, prompts, scores."""

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
    generate,
    noise_seed,
    reconstruct,
)
from dv2_core.evaluate.scores import columns, score, shuffled
from dv2_core.world.atlas import Atlas
from tests.unit.evaluation import Oracle

pytestmark = pytest.mark.usefixtures("few_resamples")


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_every_gallery_holds_48_different_held_out_concepts(atlas):
    held_out = {atlas.sprites[i].name for i in atlas.indices("test")}
    drawn = draw_pairs(atlas, 2 * GALLERY)
    assert [len(gallery) for gallery in galleries(drawn)] == [GALLERY, GALLERY]
    for gallery in galleries(drawn):
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


def test_an_atlas_with_few_held_out_concepts_has_galleries_of_all_of_them(atlas):
    few = Atlas(atlas.rgba[:20], atlas.sprites[:20])
    drawn = draw_pairs(few, 12)
    assert galleries(drawn) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert len({pair.clip.concept for pair in drawn[:6]}) == 6
    with pytest.raises(ValueError, match="multiple of 6"):
        draw_pairs(few, 8)


def test_frames_become_bytes_and_come_back_within_half_a_level(pairs):
    frames = pairs[0].clip.frames
    assert (to_frames(to_bytes(frames)) - frames).abs().max() <= 0.5 / 255 + 1e-6


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_the_boxes_in_a_prompt_make_exactly_the_masks_of_the_clip(pairs):
    for pair in pairs:
        track = parse_boxes(pair.boxes_text, 8, 64, 64)
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


def test_every_row_starts_a_pair_from_the_same_noise_and_every_pair_and_sampling_seed_from_its_own(pairs):
    setup = Setup(seed=7)
    seeds = {(p.number, generate(p, c, setup)["sampler"]["inputs"]["seed"]) for p in pairs for c in CONDITIONS}
    assert seeds == {(pair.number, noise_seed(setup, pair)) for pair in pairs}
    assert len({noise_seed(Setup(seed=seed), pair) for seed in range(3) for pair in pairs}) == 3 * len(pairs)


def test_every_link_of_the_prompts_leads_to_a_node(pairs):
    prompts = [generate(pairs[0], c, Setup()) for c in CONDITIONS] + [reconstruct(pairs[0], Setup())]
    for prompt in prompts:
        links = [v for node in prompt.values() for v in node["inputs"].values() if isinstance(v, list)]
        assert SHOWN in prompt and all(link[0] in prompt for link in links)


def test_the_input_files_hold_the_subject_with_transparency_and_all_frames_of_a_still_clip(atlas, tmp_path):
    moving = draw_pairs(atlas, 1)[0]
    pair = replace(moving, clip=replace(moving.clip, frames=moving.clip.frames[:1].expand(8, -1, -1, -1)))
    pair.write_inputs(tmp_path)
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
    values = {name: value for name, (value, _, _) in columns([scores]).items()}
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
    assert columns([scores])["colour"][0] == 0
    assert scores.static.max() == 0 and scores.flicker.max() < 1e-9
    assert scores.mIoU.mean() == 1 and scores.top1.mean() <= 0.2


def test_real_clips_have_a_still_background_and_one_that_flickers_is_seen(pairs):
    real = [pair.real for pair in pairs]
    assert score(real, pairs, Oracle(p.boxes for p in pairs)).static.max() < 0.01
    flickering = [clip.copy() for clip in real]
    for clip in flickering:
        clip[::2] = 255 - clip[::2]
    assert score(flickering, pairs, Oracle(p.boxes for p in pairs)).static.min() > 0.05


def test_several_seeds_count_as_one_clip_per_pair_with_the_mean_of_the_seeds(pairs):
    real, grey = [p.real for p in pairs], [np.full_like(p.real, 128) for p in pairs]
    good = score(real, pairs, Oracle(p.boxes for p in pairs))
    bad = score(grey, pairs, Oracle(np.full((8, 4), np.nan) for _ in pairs))
    for name, estimate in columns([good, good, good]).items():  # repeating a seed makes nothing surer
        assert estimate == pytest.approx(columns([good])[name]), name
    both = columns([good, bad])
    assert both["mIoU"] == (0.5, 0.5, 0.5)  # every pair has 1 and 0
    assert both["colour"][0] == pytest.approx(columns([good])["colour"][0] / 2)
