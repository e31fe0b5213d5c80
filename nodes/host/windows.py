"""The core's context windows on frames that are batch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from .motion import MotionControl


def frames_in_context_windows(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE wrapper: what the core leaves to the model where each frame is a row of the batch.

    - It finds its step by comparing all sigmas with all timesteps, which on older cores fails with one per frame.
    - It shows every window the first hints of a ControlNet; here each window gets the hints of its own frames.

    Raises:
        ValueError: the windows are cut along something else than the frames, or the batch is not one clip.
    """
    guider = executor.class_obj
    handler = guider.model_options.get("context_handler")
    if handler is None:
        return executor(*args, **kwargs)
    if getattr(handler, "dim", 0) != 0:
        raise ValueError(
            f"The context windows are cut along dimension {handler.dim} of the latent, which is no time here: frames "
            "are the batch of this base. Use 'Context Windows (Manual)' with dim 0."
        )
    frames = args[0].shape[0]  # of the noise
    lengths = {cond.get("dv2_video_length", frames) for conditioning in guider.conds.values() for cond in conditioning}
    if lengths - {frames}:
        raise ValueError(
            f"With context windows the whole batch is one clip, but the latent has {frames} frames and the boxes have "
            f"{min(lengths - {frames})}. Give the boxes the length of the clip, and make one clip at a time."
        )
    if hasattr(handler, "set_step"):
        set_step = type(handler).set_step
        handler.set_step = lambda timestep, options: set_step(handler, timestep[:1], options)
    controls = [control for control in _controls(guider.conds) if _has_hint_per_frame(control)]
    for control in controls:
        control.get_control = functools.partial(_of_the_window, control)
    try:
        return executor(*args, **kwargs)
    finally:
        for control in controls:
            vars(control).pop("get_control", None)


def _controls(conds: dict[str, list[dict[str, Any]]]) -> Iterator[Any]:
    for cond in (cond for conditioning in conds.values() for cond in conditioning):
        control = cond.get("control")
        while control is not None:
            yield control
            control = control.previous_controlnet


def _has_hint_per_frame(control: Any) -> bool:
    hint = getattr(control, "cond_hint_original", None)
    return not isinstance(control, MotionControl) and hint is not None and hint.shape[0] > 1


def _of_the_window(control: Any, x: Any, t: Any, cond: Any, batched_number: int, options: Any) -> Any:
    """``get_control`` with the hints of the window's frames for the time of the call."""
    hints, window = control.cond_hint_original, options.get("context_window")
    if window is None:  # the clip is no longer than a window
        return type(control).get_control(control, x, t, cond, batched_number, options)
    if max(window.index_list) >= hints.shape[0]:
        raise ValueError(
            f"A context window holds frame {max(window.index_list)}, but the ControlNet has {hints.shape[0]} hint "
            "images. Give it one for each frame of the video, or a single one for all."
        )
    control.cond_hint_original, control.cond_hint = hints[window.index_list], None
    try:
        return type(control).get_control(control, x, t, cond, batched_number, options)
    finally:
        control.cond_hint_original, control.cond_hint = hints, None
