"""Metrics of optical flow, as pure functions: dynamic degree, and whether the subject or the camera moves.

Flow is [F - 1, 2, H, W]: how far each pixel of a frame has moved in the next one, (x, y) in pixels. The network is in
`models`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .metrics import covered, missed

Array = np.ndarray

FASTEST = 0.05  # share of the pixels whose mean speed stands for a step
STEP = 6.0  # pixels per step, on frames whose shorter side is 256, from which on a step counts as moving
SHARE = 4 / 16  # of the frames that must move
FPS = 8.0  # frames per second at which steps are looked at


def every_eighth_second(frames: Array, fps: float) -> Array:
    """The frames [F, ...] that the dynamic degree looks at: about FPS of a second, always from the first on."""
    return frames[:: max(1, round(fps / FPS))]


def step_speeds(flow: Array) -> Array:
    """[F - 1, 2, H, W] -> [F - 1] pixels per step: mean speed of each step's fastest 5 % of the pixels."""
    speeds = np.sort(np.hypot(flow[:, 0], flow[:, 1]).reshape(len(flow), -1), axis=1)
    return speeds[:, -max(1, int(speeds.shape[1] * FASTEST)) :].mean(1)


def dynamic_degree(flow: Array, fps: float = FPS) -> float:
    """DD of one clip: 1 if it moves, else 0; of many clips, the mean is the share that moves.

    flow: between the frames of `every_eighth_second`. fps: of the video. A step moves if `step_speeds` is above STEP x
    shorter side / 256 (more for less than 8 fps); a clip moves if a quarter of its frames do, and one step at least.
    Source: VBench, vbench/dynamic_degree.py, with RAFT; the paper reports its mean (0.592 to 0.952)."""
    threshold = STEP * min(flow.shape[-2:]) / 256 * max(1.0, FPS / fps)
    return float((step_speeds(flow) > threshold).sum() >= max(1, round((len(flow) + 1) * SHARE)))


@dataclass(frozen=True)
class CameraMotion:
    """Means over the steps, in frame diagonals per step; NaN where no step could be judged.

    background: speed of what lies outside the boxes. subject: speed of the boxes against that background."""

    background: float
    subject: float

    @property
    def share(self) -> float:
        """How much of the motion is the camera's, 0..1: 0 over a still background, 1 where a still subject is filmed by
        a moving camera, which satisfies mIoU as well; 0.5 for equal speeds. NaN if nothing moves."""
        total = self.background + self.subject
        return self.background / total if total > 0 else float("nan")


def camera_motion(flow: Array, boxes: Array) -> CameraMotion:
    """Tell camera and subject apart, which mIoU cannot (the complaint of the paper's reviewers; our measure).

    flow [F - 1, 2, H, W] of a clip whose subject is in boxes [F, 4] (0..1, NaN: not found). The background's motion is
    the median flow of the pixels outside the boxes of both frames, so it sees pans, not zooms. Steps without both
    boxes or without background are left out."""
    height, width = flow.shape[-2:]
    diagonal = float(np.hypot(width, height))
    inside = covered(boxes, height, width)
    outside = (~(inside[1:] | inside[:-1])).numpy()  # [F - 1, H, W]
    moved = np.diff((boxes[:, :2] + boxes[:, 2:]) / 2 * (width, height), axis=0)  # [F - 1, 2]
    background, subject = [], []
    for step in range(len(flow)):
        if missed(boxes[step]) or missed(boxes[step + 1]) or not outside[step].any():
            continue
        drift = np.median(flow[step][:, outside[step]], axis=1)  # [2]
        background.append(np.hypot(*drift) / diagonal)
        subject.append(np.hypot(*(moved[step] - drift)) / diagonal)
    if not background:
        return CameraMotion(float("nan"), float("nan"))
    return CameraMotion(float(np.mean(background)), float(np.mean(subject)))
