"""Source (c) of the paper (arXiv 2410.13830, inference): boxes of a reference video, here of its subject's masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from .interpolate import from_visible
from .keyframe_track import check_choice
from .linking import from_detections
from .track import Box, BoxTrack

Component = Literal["all", "largest", "follow"]

#: Pieces of a frame's mask that are looked at, largest first; specks are no subject.
MOST = 16

#: Left, top, right and bottom in pixels, right and bottom exclusive.
Edges = tuple[int, int, int, int]


def from_masks(mask: Tensor, component: Component = "all", point: Sequence[float] | None = None) -> BoxTrack:
    """The tight rectangle around each frame's mask > 0.5.

    mask: [F, H, W], values 0..1. A frame with nothing above 0.5 is not visible; its box is interpolated linearly
    between its visible neighbours (held at the ends). Inverse of `rasterize`. `fill_gaps` and `smooth` repair what a
    segmenter left out or made tremble.
    component: what of the mask is the subject. "all": everything; "largest": in every frame the largest of the pieces
        that hang together (over edges or corners); "follow": one piece from frame to frame, as `from_detections` does
        it with candidates.
    point: (x, y), fractions of the canvas, in the first frame that is not empty: the piece that "follow" starts with.
        None: the largest of all frames.

    Raises ValueError for another shape, NaN, a mask that is empty in every frame, and a point without "follow".
    """
    check_choice(component, Component, "component")
    if point is not None and component != "follow":
        raise ValueError(f'A point chooses the piece to follow, but the component is {component}; make it "follow".')
    if mask.ndim != 3 or 0 in mask.shape:
        raise ValueError(f"The mask has shape {list(mask.shape)}; give one mask per frame, [frames, height, width].")
    frames, height, width = mask.shape
    if bool(mask.amin().isnan()):
        raise ValueError(f"The mask of shape {list(mask.shape)} contains NaN; give values from 0 to 1.")
    inside = mask > 0.5  # [F, H, W]
    columns, rows = inside.any(dim=1).tolist(), inside.any(dim=2).tolist()  # F lists of W, of H flags
    candidates: list[list[tuple[Box, float]]] = [[] for _ in range(frames)]
    for t in range(frames):
        if True in rows[t]:
            (left, right), (top, bottom) = _extent(columns[t]), _extent(rows[t])
            whole = left, top, right, bottom
            pieces = [(whole, 1)] if component == "all" else _pieces(inside[t], whole)
            candidates[t] = [(_fractions(edges, width, height), float(pixels)) for edges, pixels in pieces]
    if not any(candidates):
        raise ValueError(
            f"The mask is empty (nothing above 0.5) in all {frames} frames; no box can be made from it. Check that it "
            "marks the subject with 1 and is not inverted."
        )
    if component == "follow":
        return from_detections(candidates, point)
    return from_visible({t: found[0][0] for t, found in enumerate(candidates) if found}, frames)


def _fractions(edges: Edges, width: int, height: int) -> Box:
    return edges[0] / width, edges[1] / height, edges[2] / width, edges[3] / height


def _extent(flags: list[bool]) -> tuple[int, int]:
    """First set position, and one past the last."""
    return flags.index(True), len(flags) - flags[::-1].index(True)


def _pieces(inside: Tensor, edges: Edges) -> list[tuple[Edges, int]]:
    """Edges and number of pixels of the MOST largest connected pieces of one frame's mask [H, W], largest first."""
    import numpy as np
    from scipy import ndimage

    left, top, right, bottom = edges
    labels = np.empty((bottom - top, right - left), np.int32)
    ndimage.label(inside[top:bottom, left:right].cpu().numpy(), structure=np.ones((3, 3)), output=labels)
    pixels = np.bincount(labels.ravel())[1:]
    places = ndimage.find_objects(labels)
    pieces = []
    for i in np.argsort(-pixels, kind="stable")[:MOST]:
        y, x = places[i][0], places[i][1]
        pieces.append(((left + x.start, top + y.start, left + x.stop, top + y.stop), int(pixels[i])))
    return pieces
