"""Curated boxes against the true ones, on whole clips of the mini-world at 256 x 256 pixels: with the true masks, and
with a genuinely trained network in the places of detector, segmenter and tracker.

scripts/test.py makes the files that DV2_ATLAS and DV2_ISNET name. docs/curation.md has the table of more clips."""

import os
from pathlib import Path

import pytest

from dv2_core.world.atlas import Atlas
from dv2_core.world.clips import World
from scripts.measure_curation import SIZE, mean_iou, measure

CLIPS = 5  # the first ones; each of their 40 frames costs ISNet 4 s of one core


@pytest.fixture(scope="module")
def world() -> World:
    return World(Atlas.load(os.environ["DV2_ATLAS"]), "test", size=SIZE)


def test_with_the_true_masks_all_boxes_are_the_true_ones(world: World, tmp_path: Path) -> None:
    counts, clips = measure(world, CLIPS, tmp_path, True, "")
    assert counts.accepted == len(clips) == CLIPS
    assert mean_iou(clips) >= 0.98


def test_the_boxes_of_a_trained_network_overlap_the_true_ones_by_four_fifths(world: World, tmp_path: Path) -> None:
    """Boxes of accepted clips; docs/curation.md has both means of 16 clips, also the one with rejected ones as 0."""
    counts, clips = measure(world, CLIPS, tmp_path, False, os.environ["DV2_ISNET"])
    accepted = [clip for clip in clips if clip.accepted]
    assert len(accepted) == counts.accepted >= CLIPS - 1
    assert mean_iou(accepted) >= 0.80
