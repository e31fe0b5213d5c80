"""The paper's three filters, and the others, at their thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dv2_core import rle
from dv2_core.boxes import Box
from dv2_core.curate import stages
from dv2_core.curate.clip import Clip, Reason
from dv2_core.curate.passes import Result, Run
from dv2_core.segment import Detection
from tests.curation import settings

CLIP = Clip(
    "videos/a.mp4", "a.mp4", caption="a dog", phrase="dog", frames=(0, 4), fps=8.0, length=4, width=200, height=100
)
LEFT, RIGHT, NEAR = (0.1, 0.1, 0.3, 0.5), (0.6, 0.1, 0.8, 0.5), (0.11, 0.1, 0.31, 0.5)


@dataclass
class Found:
    """A detector that finds the same in every picture; by word, or whatever the word is."""

    boxes: list[tuple[Box, float]]
    word: str = ""

    def detect(self, frames: torch.Tensor, words: Sequence[str], threshold: float) -> list[list[Detection]]:
        found = [Detection(box, score) for box, score in self.boxes if score >= threshold]
        return [found if self.word in ("", word) else [] for _, word in zip(frames, words, strict=True)]


def tools(*found: tuple[Box, float], word: str = "", **values: Any) -> Any:
    config: Any = settings(Path("x"), **values)
    return SimpleNamespace(
        config=config, verdicts={}, detector=Found(list(found), word), pictures=lambda *_: torch.zeros(1, 50, 100, 3)
    )


def with_boxes(*boxes: Any) -> Clip:
    return replace(CLIP, frames=(0, len(boxes)), boxes=boxes)


def one(run: Run, clip: Clip, tools: Any) -> Result:
    """What a stage that takes several clips at once makes of this one."""
    (result,) = run([clip], tools)
    return result


def code(result: Clip | Reason) -> str:
    return result.code if isinstance(result, Reason) else "kept"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], "no box"),
        ([(LEFT, 0.34)], "no box"),
        ([(LEFT, 0.9), (RIGHT, 0.34)], "kept"),
        ([(LEFT, 0.9), (RIGHT, 0.5)], "several boxes"),
        ([(LEFT, 0.9), (NEAR, 0.8)], "kept"),  # one thing, found twice
    ],
)
def test_exactly_one_box_of_the_word_in_the_first_frame_is_kept(found: list[Any], expected: str) -> None:
    result = one(stages.detect, CLIP, tools(*found))
    assert code(result) == expected
    if isinstance(result, Clip):
        assert (result.start, result.ref_frame, result.scores) == ((20.0, 10.0, 60.0, 50.0), 0, {"grounding": 0.9})


def test_nothing_is_detected_where_boxes_or_masks_are_given_and_nothing_without_a_word() -> None:
    given = with_boxes((1.0, 1.0, 9.0, 9.0))
    assert one(stages.detect, given, tools()) is given
    assert code(one(stages.detect, replace(CLIP, phrase=""), tools((LEFT, 0.9)))) == "no subject"


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 40, 40), "kept"),
        ((0, 0, 9, 90), "small"),  # 4.5 % of the width
        ((0, 0, 180, 4), "small"),  # 4 % of the height
        ((0, 0, 18, 9), "small"),  # 0.8 % of the area
        ((0, 0, 181, 50), "large"),
        ((0, 0, 50, 96), "large"),
        ((0, 0, 179, 94), "large"),  # 84 % of the area
    ],
)
def test_the_first_box_is_neither_too_small_nor_nearly_the_whole_frame(box: Any, expected: str) -> None:
    assert code(stages.size(with_boxes(box), tools())) == expected
    assert code(stages.size(replace(CLIP, start=box, ref_frame=0), tools())) == expected


def test_the_first_box_of_masks_is_that_of_the_first_frame_that_shows_the_subject() -> None:
    mask = torch.zeros(100, 200, dtype=torch.bool)
    mask[10:14, 50:100] = True
    assert code(stages.size(replace(CLIP, masks=(None, rle.encode(mask.numpy()), None, None)), tools())) == "small"


@pytest.mark.parametrize(
    ("last", "overlap"), [((40, 0, 80, 40), 0.0), ((20, 0, 60, 40), 1 / 3), ((6, 0, 46, 40), 34 / 46)]
)
def test_first_and_last_box_must_differ(last: Any, overlap: float) -> None:
    moving = stages.motion(with_boxes((0, 0, 40, 40), (0, 0, 40, 40), last, None), tools())
    assert isinstance(moving, Clip) and moving.scores == {"overlap": round(overlap, 4)}
    strict = tools(motion={"overlap": overlap - 1e-3})
    assert code(stages.motion(with_boxes((0, 0, 40, 40), last), strict)) == "still"


def test_the_subject_must_be_seen_in_most_frames() -> None:
    box = (0, 0, 40, 40)
    assert code(stages.visible(with_boxes(*[box] * 9, None), tools())) == "kept"
    assert code(stages.visible(with_boxes(*[box] * 8, None, None), tools())) == "lost"


def test_a_watermark_in_the_first_frame_is_found_by_the_detector() -> None:
    assert code(one(stages.text, CLIP, tools((LEFT, 0.5), word="watermark"))) == "text"
    assert code(one(stages.text, CLIP, tools((LEFT, 0.5), word="dog"))) == "kept"


def test_a_clip_whose_frames_have_boxes_and_no_mask_is_of_no_use_to_the_trainer() -> None:
    assert code(stages.boxes(with_boxes((0, 0, 40, 40)), tools())) == "no mask"


def test_only_the_first_part_of_a_video_has_the_box_of_its_first_frame() -> None:
    first, second = stages.parts(replace(CLIP, frames=None, scenes=((0, 2), (2, 4)), start=(0, 0, 9, 9), ref_frame=0))
    assert (first.start, first.ref_frame, first.frames) == ((0, 0, 9, 9), 0, (0, 2))
    assert (second.start, second.ref_frame, second.id) == (None, None, "videos/a.mp4:2-4:0")
