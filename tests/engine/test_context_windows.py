"""The core's context windows: clips longer than what the base and the adapter were trained for."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch


def test_context_windows_equal_runs_of_each_window_with_its_own_masks(
    lab: Any, ready: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.sample

    base, adapter, half = ready.base, ready.adapter, lab.FRAMES
    masks, noise = lab.masks(2 * half), lab.noise(2 * half, 24, 8, 8)
    given = [noise]
    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda *_: given[-1])
    encoder, counted = lab.pack("dv2_core.model").MotionModule, []
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda *args: (counted.append(1), encode(*args))[1])

    def run(model: Any, masks: torch.Tensor, frames: int) -> torch.Tensor:
        model = lab.refer(model, adapter, base.vae, masks=masks)
        return lab.sample(model, *lab.move(base.positive, base.negative, adapter, masks=masks), lab.latent(frames))

    (windowed,) = lab.call(
        "ContextWindowsManual", model=base.model, context_length=half, context_overlap=0, context_stride=1, dim=0,
        context_schedule="standard_static", closed_loop=False, fuse_method="pyramid",
    )  # fmt: skip
    whole = run(windowed, masks, 2 * half)
    assert len(counted) == 2  # once per window, not once per window and step
    for n in range(2):
        rows = slice(n * half, (n + 1) * half)
        given.append(noise[rows])
        assert lab.relative_error(whole[rows], run(base.model, masks[rows], half)) < 1e-5


def test_overlapping_context_windows_run_and_too_few_masks_for_them_are_refused(
    lab: Any, ready: SimpleNamespace
) -> None:
    (windowed,) = lab.call(
        "ContextWindowsManual", model=ready.base.model, context_length=8, context_overlap=4, context_stride=1, dim=0,
        context_schedule="looped_uniform", closed_loop=True, fuse_method="pyramid",
    )  # fmt: skip
    masks = lab.masks(12)
    model = lab.refer(windowed, ready.adapter, ready.base.vae, masks=masks)
    conds = lab.move(ready.base.positive, ready.base.negative, ready.adapter, masks=masks)
    assert bool(torch.isfinite(lab.sample(model, *conds, lab.latent(12))).all())
    few = lab.refer(windowed, ready.adapter, ready.base.vae)
    with pytest.raises(ValueError, match="8 box masks"):
        lab.sample(few, ready.base.positive, ready.base.negative, lab.latent(12))


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "batched"])
def test_a_clip_longer_than_the_adapters_runs_in_windows_with_both_halves(
    lab: Any, ready: SimpleNamespace, schedule: str
) -> None:
    """21 frames in windows of 8, the last of them shorter or pushed back, depending on the schedule."""
    frames = 21
    masks = lab.masks(frames)
    (windowed,) = lab.call(
        "ContextWindowsManual", model=ready.base.model, context_length=8, context_overlap=2, context_stride=1, dim=0,
        context_schedule=schedule, closed_loop=False, fuse_method="relative",
    )  # fmt: skip
    model = lab.refer(windowed, ready.adapter, ready.base.vae, masks=masks)
    conds = lab.move(ready.base.positive, ready.base.negative, ready.adapter, masks=masks)
    samples = lab.sample(model, *conds, lab.latent(frames))
    assert samples.shape[0] == frames and bool(torch.isfinite(samples).all())
    plain = lab.sample(windowed, ready.base.positive, ready.base.negative, lab.latent(frames))
    differences = (samples - plain).flatten(1).abs().amax(dim=1)
    assert bool((differences > 1e-2 * plain.abs().max()).all())  # the method acts in every frame


def test_windows_along_another_dimension_than_the_frames_are_refused(lab: Any, ready: SimpleNamespace) -> None:
    """The node for Wan cuts along dimension 2, which would be the height of each frame here."""
    (windowed,) = lab.call(
        "WanContextWindowsManual", model=ready.base.model, context_length=5, context_overlap=2, context_stride=1,
        context_schedule="standard_static", closed_loop=False, fuse_method="pyramid",
    )  # fmt: skip
    with pytest.raises(ValueError, match="along dimension 2 of the latent, .* with dim 0"):
        lab.sample(windowed, ready.base.positive, ready.base.negative)


def test_two_videos_in_a_batch_cannot_be_one_clip_for_context_windows(lab: Any, ready: SimpleNamespace) -> None:
    (windowed,) = lab.call(
        "ContextWindowsManual", model=ready.base.model, context_length=8, context_overlap=0, context_stride=1, dim=0,
        context_schedule="standard_static", closed_loop=False, fuse_method="pyramid",
    )  # fmt: skip
    with pytest.raises(ValueError, match="the latent has 16 frames and the boxes have 8"):
        lab.sample(windowed, ready.positive, ready.negative, lab.latent(16))
