"""Curated boxes against the true ones, on the first clips of a world of the package's own drawn subjects, at 256 x 256
pixels: with the true masks, and with a genuinely trained network in the places of detector, segmenter and tracker."""

import os
from pathlib import Path

import pytest

from dv2_core.world.clips import World
from scripts.measure_curation import SIZE, WAY, drawn_atlas, measure

CLIPS, FRAMES = 10, 2  # the first ones; a frame costs ISNet 4 s of one core


@pytest.fixture(scope="module")
def world() -> World:
    return World(drawn_atlas(), "test", size=SIZE, num_frames=WAY)


def test_with_the_true_masks_all_boxes_are_the_true_ones(world: World, tmp_path: Path) -> None:
    counts, found = measure(world, CLIPS, FRAMES, tmp_path, True, "")
    values = sum(found.values(), [])
    assert counts.accepted == CLIPS and len(values) == CLIPS * FRAMES
    assert sum(values) / len(values) >= 0.98


def test_the_boxes_of_a_trained_network_overlap_the_true_ones_by_four_fifths(world: World, tmp_path: Path) -> None:
    """ISNet, in the file that DV2_ISNET names (scripts/test.py fetches it)."""
    counts, found = measure(world, CLIPS, FRAMES, tmp_path, False, os.environ["DV2_ISNET"])
    values = sum(found.values(), [])
    assert counts.accepted >= 8 and len(values) == counts.accepted * FRAMES
    assert sum(values) / len(values) >= 0.80
