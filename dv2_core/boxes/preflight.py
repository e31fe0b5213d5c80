"""What is worth saying about boxes before any heavy work starts: sentences, errors apart from warnings.

An error is what cannot give the video that was asked for. A warning is what runs, but hardly as it was meant: a box
outside the canvas, too small to be seen by the model, or faster or larger than anything its adapter was trained on.

Decided once for every source: a box that leaves the canvas is cut to it (`cut`), and under half a pixel is no longer
shown. A visible box always covers at least one pixel (`pixel_edges`), however thin; under one latent cell it weighs as
much as its share of the cell, because masks are area-averaged to the latent's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .curves import centre
from .keyframes import KeyframePlan
from .plan import BoxPlan
from .track import ROUNDING, BoxTrack, cut

#: Pixels of the canvas along one side of a cell of the latent.
LATENT_CELL = 8


@dataclass(frozen=True)
class Preflight:
    """Sentences, each naming the values and the fix. Without errors the boxes can be used."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def raise_errors(self) -> None:
        """Raises ValueError with all errors, if there are any."""
        if self.errors:
            raise ValueError(" ".join(self.errors))


def check_plan(boxes: BoxPlan | KeyframePlan, length: int | None = None, trained_frames: int | None = None,
               fastest: float | None = None, area: tuple[float, float] | None = None) -> Preflight:  # fmt: skip
    """Everything below, for every track.

    boxes: a keyframe document is also asked what of it lies outside the canvas; a BoxPlan is cut to it already.
    length: frames of the video that the boxes are for; None: as many as they have.
    trained_frames, fastest, area: what the adapter was trained on, None where it does not say: frames per clip, the
        largest of `speeds`, smallest and largest of `areas`.
    """
    plan = boxes.evaluate() if isinstance(boxes, KeyframePlan) else boxes
    errors = frame_count(plan.length, length)
    warnings = few_frames(length or plan.length) + long_clip(length or plan.length, trained_frames)
    if isinstance(boxes, KeyframePlan):
        warnings += off_canvas(boxes)
    for track in plan.tracks:
        name = f"Track {track.obj_id!r}: " if len(plan.tracks) > 1 else ""
        errors += [name + sentence for sentence in never_visible(track)]
        said = small_boxes(track, plan.width, plan.height)
        said += fast_boxes(track, plan.width / plan.height, fastest) + odd_sizes(track, area)
        warnings += [name + sentence for sentence in said]
    return Preflight(tuple(errors), tuple(warnings))


def frame_count(found: int, length: int | None) -> list[str]:
    """Error: the boxes are for another number of frames than the video."""
    if length is None or found == length:
        return []
    return [
        f"The boxes have {found} frames and the video {length}; resample the boxes to {length}, or set the length to "
        f"{found}."
    ]


def never_visible(track: BoxTrack) -> list[str]:
    """Error: no frame shows the subject."""
    if any(track.visible):
        return []
    return [f"The subject is hidden in all {track.length} frames; give at least one frame a visible box on the canvas."]


def few_frames(length: int) -> list[str]:
    """Warning: one frame has no motion."""
    if length >= 2:
        return []
    return ["There is 1 frame, in which nothing moves; set the length to at least 2 for a video."]


def long_clip(length: int, trained_frames: int | None) -> list[str]:
    """Warning: more frames than the adapter's training clips."""
    if trained_frames is None or length <= trained_frames:
        return []
    return [
        f"The video has {length} frames and the adapter was trained on {trained_frames}; set the length to "
        f"{trained_frames}, or use a context window node."
    ]


def off_canvas(document: KeyframePlan) -> list[str]:
    """Warnings: frames that were meant to be visible, whose box lies outside the canvas wholly or in part."""
    said = []
    for track in document.tracks:
        outside, partly = [], []
        shown = track.visible(document.length)
        for t, box in enumerate(track.boxes(document.length)):
            inside, kept = cut(box, document.width, document.height)
            if shown[t] and not kept:
                outside.append(t)
            elif shown[t] and any(abs(a - b) > ROUNDING for a, b in zip(inside, box, strict=True)):
                partly.append(t)
        name = f"Track {track.obj_id!r}: " if len(document.tracks) > 1 else ""
        if outside:
            said.append(
                f"{name}In {_frames(outside)} the box lies outside the {document.width}x{document.height} canvas, so "
                "the subject is hidden there; move the box inside if it should be seen."
            )
        if partly:
            said.append(
                f"{name}In {_frames(partly)} the box leaves the {document.width}x{document.height} canvas and is cut "
                "to it; keep it inside if the whole subject should be seen."
            )
    return said


def small_boxes(track: BoxTrack, width: int, height: int, cell: int = LATENT_CELL) -> list[str]:
    """Warning: visible boxes that are narrower or lower than one cell of the latent."""
    sizes = {t: ((x2 - x1) * width, (y2 - y1) * height) for t, (x1, y1, x2, y2) in _visible(track)}
    small = [t for t, size in sizes.items() if min(size) < cell - 1e-6]
    if not small:
        return []
    least = min((sizes[t] for t in small), key=min)
    return [
        f"In {_frames(small)} the box is under one latent cell of {cell} pixels ({least[0]:.3g}x{least[1]:.3g} at the "
        f"smallest), which the model can hardly see; make it at least {cell}x{cell} pixels."
    ]


def fast_boxes(track: BoxTrack, aspect: float, fastest: float | None) -> list[str]:
    """Warning: faster than in training. aspect: width / height of the canvas; fastest: as of `speeds`."""
    found = speeds(track, aspect)
    fast = [t for t, speed in found.items() if fastest is not None and speed > fastest]
    if not fast:
        return []
    most = max(found.values())
    return [
        f"In {_frames(fast)} the box moves by up to {most:.2g} of the canvas' height per frame, and the adapter was "
        f"trained on at most {fastest:.2g}; use more frames or a shorter path."
    ]


def odd_sizes(track: BoxTrack, area: tuple[float, float] | None) -> list[str]:
    """Warnings: larger or smaller than in training. area: smallest and largest of `areas`."""
    if area is None:
        return []
    found, said = areas(track), []
    for word, fix, odd, worst in (
        ("smaller", "larger", [t for t, value in found.items() if value < area[0]], min),
        ("larger", "smaller", [t for t, value in found.items() if value > area[1]], max),
    ):
        if odd:
            said.append(
                f"In {_frames(odd)} the box is {word} than any that the adapter was trained on: "
                f"{100 * worst(found.values()):.2g} % of the canvas, where training had {100 * area[0]:.2g} to "
                f"{100 * area[1]:.2g} %. Make it {fix}."
            )
    return said


def speeds(track: BoxTrack, aspect: float) -> dict[int, float]:
    """How far the centre moved since the frame before, in canvas heights, for every frame visible in both.

    aspect: width / height of the canvas.
    """
    found: dict[int, float] = {}
    for t in range(1, track.length):
        if track.visible[t] and track.visible[t - 1]:
            (x0, y0), (x1, y1) = centre(track.boxes[t - 1]), centre(track.boxes[t])
            found[t] = math.hypot((x1 - x0) * aspect, y1 - y0)
    return found


def areas(track: BoxTrack) -> dict[int, float]:
    """Area of every visible frame's box as a share of the canvas."""
    return {t: (x2 - x1) * (y2 - y1) for t, (x1, y1, x2, y2) in _visible(track)}


def _visible(track: BoxTrack) -> list[tuple[int, tuple[float, float, float, float]]]:
    return [(t, box) for t, box in enumerate(track.boxes) if track.visible[t]]


def _frames(frames: Sequence[int]) -> str:
    """Frame numbers, ascending, in words: "frame 3", "frames 3 to 5 and 8"; only the first runs of many."""
    runs: list[tuple[int, int]] = []
    for t in frames:
        if runs and runs[-1][1] == t - 1:
            runs[-1] = runs[-1][0], t
        else:
            runs.append((t, t))
    words = [f"{a}" if a == b else f"{a} to {b}" for a, b in runs[:4]]
    if len(runs) > 4:
        words.append(f"{len(runs) - 4} more stretches")
    joined = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"frame{'s' if len(frames) > 1 else ''} {joined}"
