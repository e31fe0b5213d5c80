"""The evaluation's detector: regions, boxes, and the shipped weights on drawn clips."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dv2_core.evaluate.detector import (
    DEFAULT_FILE,
    SIZE,
    Detector,
    Segmenter,
    box_of,
    connected_components,
    degrade,
    largest_region,
)
from dv2_core.evaluate.metrics import centroid_distance, mean_iou, missed


def mask_of(*rows: str) -> torch.Tensor:
    return torch.tensor([[cell == "#" for cell in row] for row in rows])


def test_connected_components_number_regions_and_leave_the_background_zero():
    mask = mask_of("##...", "##..#", "....#", ".....", "#....")
    labels = connected_components(mask[None])[0]
    assert torch.equal(labels > 0, mask)
    assert len(labels[mask].unique()) == 3
    assert len(labels[:2, :2].unique()) == 1 and labels[1, 4] == labels[2, 4]


def test_connected_components_join_over_corners_and_along_a_spiral():
    assert len(connected_components(mask_of("#..", ".#.", "..#")[None])[0].unique()) == 2
    spiral = mask_of("#######", "......#", "#####.#", "#...#.#", "#.###.#", "#.....#", "#######")
    assert len(connected_components(spiral[None])[0].unique()) == 2


def test_connected_components_of_one_mask_do_not_depend_on_the_others_in_the_batch():
    masks = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0)) > 0.6
    together = connected_components(masks)
    assert all(torch.equal(connected_components(m[None])[0], labels) for m, labels in zip(masks, together, strict=True))


def test_largest_region_drops_the_smaller_one():
    mask = mask_of("###.....", "###.....", "###.....", "........", "........", "......##")
    kept = largest_region(mask)
    assert kept[:3, :3].all() and kept.sum() == 9


def test_largest_region_is_not_cut_by_a_gap_of_two_pixels_but_by_one_of_three():
    assert largest_region(mask_of("##..##")).sum() == 4
    assert largest_region(mask_of("###...##")).sum() == 3


def test_box_of_a_mask_is_its_tight_rectangle_without_the_dilation():
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[16:32, 8:24] = True
    assert box_of(mask, 6).tolist() == [8 / 64, 16 / 64, 24 / 64, 32 / 64]


def test_a_region_under_six_pixels_wide_or_high_is_no_detection():
    for height, width in ((5, 20), (20, 5)):
        mask = torch.zeros(64, 64, dtype=torch.bool)
        mask[4 : 4 + height, 4 : 4 + width] = True
        assert np.isnan(box_of(mask, 6)).all()
    assert np.isnan(box_of(torch.zeros(64, 64, dtype=torch.bool), 6)).all()


def test_degraded_frames_stay_in_range_and_repeat_with_their_generator():
    frames = torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    first = degrade(frames, torch.Generator().manual_seed(1))
    assert first.shape == frames.shape and 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, degrade(frames, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, degrade(frames, torch.Generator().manual_seed(2)))


def test_a_saved_detector_loads_with_the_same_answers(tmp_path):
    torch.manual_seed(0)
    network = Segmenter()
    network(torch.rand(4, 3, SIZE, SIZE))  # moves the running statistics
    detector = Detector(network, {"training": "{}"})
    detector.save(tmp_path / "d.safetensors")
    loaded = Detector.load(tmp_path / "d.safetensors")
    frames = torch.rand(2, 3, SIZE, SIZE)
    assert torch.allclose(loaded.probabilities(frames), detector.probabilities(frames), atol=5e-3)
    assert loaded.metadata["training"] == "{}"


def test_a_file_that_is_no_detector_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is no detector"):
        Detector.load(tmp_path / "other.safetensors")


# --- the shipped weights ----------------------------------------------------------------------------------------------


def drawn_clip(kind: int) -> tuple[torch.Tensor, np.ndarray]:
    """A shaded ball, a house or a ring moving over a slope of colour: frames [8, 3, 64, 64] and boxes [8, 4]."""
    rng = np.random.default_rng(kind)
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    start, end, ground, slope, colour = (torch.from_numpy(rng.uniform(0, 1, 3)).float() for _ in range(5))
    frames, boxes = [], []
    for t in torch.linspace(0, 1, 8):
        centre = 16 + 32 * torch.lerp(start, end, t)
        dx, dy, radius = x - centre[0], y - centre[1], 10
        distance = (dx**2 + dy**2).sqrt()
        if kind % 3 == 0:
            inside = distance < radius
        elif kind % 3 == 1:  # a roof above a wall
            inside = (dx.abs() < 8) & (dy > -2) & (dy < 10) | (dy <= -2) & (dy > -11) & (dx.abs() < dy + 12)
        else:
            inside = (distance < radius) & (distance > 4)
        shade = (1 - 0.4 * (dx + dy) / 20).clamp(0.4, 1.4)
        background = ground[:, None, None] + 0.2 * (slope[:, None, None] - 0.5) * x / SIZE
        painted = (1 - ground)[:, None, None] * 0.6 + colour[:, None, None] * 0.4
        frames.append(torch.where(inside, painted * shade, background).clamp(0, 1))
        rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
        boxes.append([columns[0] / SIZE, rows[0] / SIZE, (columns[-1] + 1) / SIZE, (rows[-1] + 1) / SIZE])
    return torch.stack(frames), np.array(boxes, dtype=float)


def test_the_shipped_detector_is_at_most_a_megabyte_and_says_how_it_was_trained():
    assert DEFAULT_FILE.stat().st_size <= 1_000_000
    metadata = Detector.load().metadata
    assert {"training", "held_out", "license"} <= set(metadata)


def test_the_shipped_detector_finds_subjects_that_are_not_of_the_atlas():
    detector = Detector.load()
    clips = [drawn_clip(kind) for kind in range(12)]
    found = np.stack([detector.boxes(frames) for frames, _ in clips])
    target = np.stack([boxes for _, boxes in clips])
    assert mean_iou(found, target).mean() > 0.6
    assert centroid_distance(found, target).mean() < 0.1
    assert missed(found).mean() < 0.1


def test_the_shipped_detector_takes_frames_of_another_size():
    frames, boxes = drawn_clip(0)
    large = torch.nn.functional.interpolate(frames, (128, 128), mode="bilinear")
    assert mean_iou(Detector.load().boxes(large), boxes) > 0.6


def test_the_shipped_detector_finds_nothing_on_an_empty_background():
    grey = torch.linspace(0.3, 0.6, SIZE).expand(2, 3, SIZE, SIZE)
    assert missed(Detector.load().boxes(grey)).all()
