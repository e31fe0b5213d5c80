"""One video of a benchmark to its numbers: the paper's nine metrics, and those beyond it, by the networks there are."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..segment import GROUNDING_DINO
from ..segment import Detector as GroundingDino
from .adherence import Adherence
from .benchmark import Metrics, Subject, Video
from .detector import Detector as MiniatureDetector
from .metrics import Array, copy_paste, in_box_crops, missed, pixel_similarity, subject_crop
from .models import Clip, Dino, Finder, Flow, WordFinder, model_folder
from .motion import camera_motion, dynamic_degree, every_eighth_second
from .pairs import to_frames
from .similarity import regions, subject_similarity, temporal_consistency, text_similarity

MINIATURE = "miniature"
DETAIL = 32  # side of the crops that the copy-paste score compares, pixels

#: The paper's nine metrics, in its order, and the ones beyond it: name -> what larger values are.
PAPER = ("CLIP-T", "R-CLIP", "R-DINO", "CLIP-I", "DINO-I", "T. Cons.", "mIoU", "CD", "DD")
BEYOND = ("found", "pixels", "copy-paste", "camera")

#: What is known of one video: its values by name (NaN: not measured), the boxes found, and IoU and distance per frame.
Score = dict[str, Any]


class Judge:
    """Measures videos with the networks of `Metrics`; loads them when it is made, and keeps them on `device`.

    Raises ValueError, a sentence, for a network that is missing or damaged."""

    def __init__(self, metrics: Metrics, device: str = "cpu"):
        self.metrics = metrics
        self.clip = Clip.load(metrics.clip) if metrics.clip else None
        self.dino = Dino.load(metrics.dino) if metrics.dino else None
        self.flow = Flow.load(metrics.flow) if metrics.flow else None
        self.miniature = MiniatureDetector.load() if metrics.detector == MINIATURE else None
        named = metrics.detector if metrics.detector != MINIATURE else ""
        self.detector = GroundingDino.load(model_folder(GROUNDING_DINO, named)) if named else None
        for model in (self.clip, self.dino, self.flow, self.detector):
            if model is not None:
                model.network.to(device)
        self._subjects: dict[tuple[str, str], Array] = {}

    def score(self, video: Video, frames: Array, fps: float) -> Score:
        """frames uint8 [F, H, W, 3] of the video."""
        values = {name: float("nan") for name in (*PAPER, *BEYOND)}
        score: Score = {"values": values, "detected": None, "iou": None, "distance": None}
        inside, canvas = regions(frames, video.boxes), video.subject.canvas(video.width, video.height)
        if self.clip:
            whole, subject = self.clip.pictures(frames), self._embedded(self.clip, video.subject, canvas)
            values["CLIP-T"] = text_similarity(whole, self.clip.text(video.caption))
            values["T. Cons."] = temporal_consistency(whole)
            values["CLIP-I"] = subject_similarity(whole, subject)
            values["R-CLIP"] = subject_similarity(self.clip.pictures(inside), subject)
        if self.dino:
            subject = self._embedded(self.dino, video.subject, canvas)
            values["DINO-I"] = subject_similarity(self.dino.pictures(frames), subject)
            values["R-DINO"] = subject_similarity(self.dino.pictures(inside), subject)
        values |= self._pixels(video, frames)
        finder = self._finder(video)
        if finder:
            result = Adherence(
                video.boxes, finder.boxes(to_frames(frames)), frames.shape[2], frames.shape[1], self.metrics.misses
            )
            values |= {"mIoU": result.mIoU, "CD": result.CD, "found": result.detection_rate}
            score |= {"detected": result.detected.tolist(), "iou": result.iou.tolist(),
                      "distance": result.distance.tolist()}  # fmt: skip
        if self.flow:
            values["DD"] = dynamic_degree(self.flow.steps(every_eighth_second(frames, fps)), fps)
            if finder:
                values["camera"] = camera_motion(self.flow.steps(frames), np.array(score["detected"])).share
        return score

    def _finder(self, video: Video) -> Finder | None:
        if self.detector:
            return WordFinder(self.detector, video.subject.word, self.metrics.threshold)
        return self.miniature

    def _embedded(self, network: Clip | Dino, subject: Subject, canvas: Array) -> Array:
        key = (type(network).__name__, subject.name)
        if key not in self._subjects:
            self._subjects[key] = network.pictures([canvas])
        return self._subjects[key]

    def _pixels(self, video: Video, frames: Array) -> dict[str, float]:
        """What needs no network: the similarity of pixels, and the copy-paste score."""
        asked = ~missed(video.boxes)
        shown, boxes = to_frames(frames[asked]), video.boxes[asked]
        colour, alpha = video.subject.cut_out
        picture = colour.permute(2, 0, 1)
        coarse = pixel_similarity(in_box_crops(shown, boxes).mean(0), subject_crop(picture, alpha))
        fine = copy_paste(in_box_crops(shown, boxes, DETAIL), subject_crop(picture, alpha, DETAIL))
        return {"pixels": coarse, "copy-paste": fine}
