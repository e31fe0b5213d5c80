"""The stages, in the order of arXiv 2410.13830's appendix: each takes a clip and gives it back with its part added, or
the reason for which it is not used.

1. Subject word: ``caption``, ``subject``. 2. Boxes and masks: ``detect`` (Grounding DINO on the first frame),
``segment`` (SAM 2 there), ``track`` (SAM 2's video model in DEVA's place), ``boxes``. 3. The three filters: exactly one
box of the word (in ``detect``), ``size``, and ``motion``. Around them what raw videos need (``probe``, ``split``), what
may be given instead (``given``), a filter for subjects that get lost (``visible``), optional ones for quality
(``blur``, ``cut``, ``text``) and what a person said on the audit page (``verdict``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import rle
from ..boxes import Box
from ..segment import Detection, Prompt
from ..segment.compose import without_specks
from .clip import Clip, Reason
from .config import CurateConfig
from .geometry import box_of, enlarged, first_box, in_fractions, in_pixels, iou
from .given import read_given
from .passes import Question, Result, Run, each, together
from .tools import Tools
from .video import cuts, encode, picture_files
from .video import probe as probe_video
from .video import split as split_scenes
from .words import subject_word

#: Height in pixels of the frames that sharpness is measured in.
SHARPNESS_HEIGHT = 256


@dataclass(frozen=True)
class Stage:
    """One step.

    run: clips -> their results, in order, as they come. reads: the settings that it depends on, beside the clip.
    judges: it decides and changes nothing but the scores, so that nothing after it depends on it, and a person may
    overrule it. asks: what of a person's verdict it looks at, if anything.
    whole: what a model sees together may change the last digits, so the stage runs for all clips of a batch or none.
    """

    name: str
    run: Run
    reads: Callable[[CurateConfig], Any]
    judges: bool = False
    asks: str = ""
    whole: bool = False


# --- raw videos -------------------------------------------------------------------------------------------------------


def probe(clip: Clip, tools: Tools) -> Result:
    """Size, frames and speed of the video; pictures in a folder are made a video first."""
    source = Path(clip.source)
    if source.is_dir():
        files = picture_files(source)
        if not files:
            return Reason("empty", "the folder holds no pictures")
        with tools.writing(tools.made(clip)) as file:
            encode(files, clip.fps or tools.config.fps, file)
    elif not source.is_file():
        return Reason("missing", "there is no such video")
    found = probe_video(tools.video(clip), tools.config.probe)
    if isinstance(found, Reason):
        return found
    if clip.frames is not None and clip.frames[1] > found["length"]:
        return Reason("broken", f"it has {found['length']} frames, the list says {list(clip.frames)}")
    return replace(clip, **found)


def split(clip: Clip, tools: Tools) -> Result:
    """Where the video's scenes are, in parts of a clip's length. A clip whose frames are given is one part."""
    if clip.frames is not None:
        return replace(clip, scenes=(clip.frames,))
    config = tools.config.split
    fewest, most = (max(1, round(s * clip.fps)) for s in (config.min_seconds, config.max_seconds))
    found = split_scenes(clip.length, cuts(tools.video(clip), config.cut), fewest, most)
    if not found:
        return Reason("short", f"no scene of its {clip.length / clip.fps:.1f} s lasts {config.min_seconds:g} s")
    return replace(clip, scenes=tuple(found))


def parts(clip: Clip) -> list[Clip]:
    """The clips that the video is split into; all of it where that stage is skipped. A box of the video's first frame
    belongs to the first of them."""
    elsewhere = replace(clip, start=None, start_mask=None, ref_frame=None)
    scenes = clip.scenes or (clip.span,)
    return [replace(clip if a == clip.first else elsewhere, frames=(a, b), scenes=()) for a, b in scenes]


def given(clip: Clip, tools: Tools) -> Result:
    """Masks and boxes that lie beside the video."""
    return read_given(clip)


# --- 1. the subject's word --------------------------------------------------------------------------------------------


def _uncaptioned(clip: Clip, tools: Tools) -> Result | Question:
    """What the clip shows: as given, or of its middle frame."""
    return clip if clip.caption else Question(tools.pictures(clip, [sum(clip.span) // 2])[0])


def _captions(pictures: Tensor, _: Sequence[None], tools: Tools) -> list[str]:
    config = tools.config.caption
    return tools.captioner.captions(pictures, config.prompt, config.tokens)


def _captioned(clip: Clip, words: str, tools: Tools) -> Result:
    return replace(clip, caption=words) if words else Reason("no caption", "the captioner had nothing to say")


caption = together(_uncaptioned, _captions, _captioned)


def subject(clip: Clip, tools: Tools) -> Result:
    """The word for the subject: given, or the caption's. Where masks or boxes are given, none is needed."""
    told = tools.verdicts.get(clip.id, {}).get("word")
    if told:
        return replace(clip, phrase=told)
    if clip.phrase or clip.masks or clip.boxes:
        return clip
    word = subject_word(tools.language(clip.caption), tools.config.subject.ignore)
    return replace(clip, phrase=word) if word else Reason("no subject", f"no noun names one in {clip.caption!r}")


# --- 2. boxes and masks -----------------------------------------------------------------------------------------------


def _unlocated(clip: Clip, tools: Tools) -> Result | Question:
    """The subject's box in the first frame; rejects unless there is exactly one (the first of the three filters)."""
    if clip.start or clip.masks or clip.boxes:
        return clip
    if not clip.phrase:
        return Reason("no subject", "there is no word for it")
    return Question(tools.pictures(clip, [clip.first])[0], clip.phrase)


def _detections(pictures: Tensor, words: Sequence[str], tools: Tools) -> list[list[Detection]]:
    return tools.detector.detect(pictures, words, tools.config.detect.threshold)


def _located(clip: Clip, found: list[Detection], tools: Tools) -> Result:
    apart: list[Box] = []
    for detection in found:
        if all(iou(detection.box, box) <= tools.config.detect.same for box in apart):
            apart.append(detection.box)
    if len(apart) != 1:
        code = "several boxes" if apart else "no box"
        return Reason(code, f"{len(apart)} boxes of {clip.phrase!r} in the first frame, not one")
    located = replace(clip, start=in_pixels(apart[0], clip.width, clip.height), ref_frame=clip.first)
    return located.scored(grounding=found[0].score)


detect = together(_unlocated, _detections, _located)


def _unsegmented(clip: Clip, tools: Tools) -> Result | Question:
    """The subject's mask in the first frame."""
    if clip.masks or clip.start_mask:
        return clip
    box, number = first_box(clip)
    return Question(tools.pictures(clip, [number])[0], Prompt(box=in_fractions(box, clip)))


def _first_masks(pictures: Tensor, prompts: Sequence[Prompt], tools: Tools) -> list[Tensor]:
    return list(without_specks(tools.segmenter.segment(pictures, prompts)))


def _segmented(clip: Clip, mask: Tensor, tools: Tools) -> Result:
    if not bool(mask.any()):
        return Reason("no mask", "nothing is segmented in the subject's box")
    return replace(clip, start_mask=rle.encode(enlarged(mask[None], clip)[0]), ref_frame=first_box(clip)[1])


segment = together(_unsegmented, _first_masks, _segmented)


def track(clip: Clip, tools: Tools) -> Result:
    """The mask in every frame. Where boxes are given, the first frame's mask is enough."""
    if clip.masks or clip.start_mask is None:
        return clip
    if clip.boxes:
        masks = tuple(clip.start_mask if n == clip.ref_frame else None for n in range(*clip.span))
        return replace(clip, masks=masks, start_mask=None)
    frames = tools.pictures(clip)
    start = torch.from_numpy(rle.decode(clip.start_mask))[None, None].float()
    small = F.interpolate(start, frames.shape[1:3], mode="area")[0, 0] >= 0.5
    if not bool(small.any()):
        return Reason("small", "nothing is left of the subject at the size at which it is tracked")
    masks = enlarged(without_specks(tools.tracker.track(frames, small)), clip)
    found = tuple(rle.encode(mask) if mask.any() else None for mask in masks)
    return replace(clip, masks=found, start_mask=None)


def boxes(clip: Clip, tools: Tools) -> Result:
    """The tight box around the mask in every frame."""
    if not any(clip.masks or ()):
        return Reason("no mask", "no frame has a mask, so there is nothing to cut the subject image out with")
    if clip.boxes:
        return clip
    return replace(clip, boxes=tuple(box_of(mask) for mask in clip.masks or ()))


# --- 3. the filters ---------------------------------------------------------------------------------------------------


def size(clip: Clip, tools: Tools) -> Result:
    """Width, height and area of the first box, as shares of the frame: neither too small nor nearly all of it."""
    config = tools.config.size
    x1, y1, x2, y2 = in_fractions(first_box(clip)[0], clip)
    shares = {"width": x2 - x1, "height": y2 - y1, "area": (x2 - x1) * (y2 - y1)}
    for name, share in shares.items():
        least, most = getattr(config, name)
        if not least <= share <= most:
            code = "small" if share < least else "large"
            return Reason(code, f"the first box takes {share:.1%} of the frame's {name}, not {least:.0%} to {most:.0%}")
    return clip


def visible(clip: Clip, tools: Tools) -> Result:
    """The subject is seen in enough frames."""
    least, found = tools.config.visible.least, clip.boxes or ()
    share = sum(box is not None for box in found) / max(1, len(found))
    if share < least:
        return Reason("lost", f"the subject is seen in {share:.0%} of the frames, not {least:.0%}")
    return clip.scored(visible=share)


def motion(clip: Clip, tools: Tools) -> Result:
    """The first and the last box differ enough."""
    found, most = [box for box in clip.boxes or () if box], tools.config.motion.overlap
    overlap = iou(found[0], found[-1])
    if overlap > most:
        return Reason("still", f"the first and the last box overlap by {overlap:.2f} (IoU), more than {most:g}")
    return clip.scored(overlap=overlap)


# --- optional filters, and people -------------------------------------------------------------------------------------


def blur(clip: Clip, tools: Tools) -> Result:
    """The sharpest of three frames is sharp: variance of the Laplacian of its brightness."""
    from scipy.ndimage import laplace

    first, end = clip.span
    frames = tools.pictures(clip, sorted({first, (first + end) // 2, end - 1}))
    weights = torch.tensor([0.299, 0.587, 0.114])
    grey = (frames @ weights * 255)[:, None]
    width = max(1, round(SHARPNESS_HEIGHT * clip.width / clip.height))
    shown = F.interpolate(grey, (SHARPNESS_HEIGHT, width), mode="bilinear", antialias=True)[:, 0]
    sharpness = max(float(laplace(frame).var()) for frame in shown.numpy())
    if sharpness < tools.config.quality.sharpness:
        return Reason("blurred", f"its sharpness is {sharpness:.1f}, less than {tools.config.quality.sharpness:g}")
    return clip.scored(sharpness=sharpness)


def cut(clip: Clip, tools: Tools) -> Result:
    """No scene begins within a clip whose frames were given."""
    found = cuts(tools.video(clip), tools.config.split.cut, clip.span)
    return Reason("cut", f"a scene begins in frame {found[0]}") if found else clip


def _first_frame(clip: Clip, tools: Tools) -> Question:
    """The detector sees no watermark and no caption in the first frame."""
    return Question(tools.pictures(clip, [clip.first])[0])


def _texts(pictures: Tensor, _: Sequence[None], tools: Tools) -> list[dict[str, float]]:
    """{word: best score} of what is found in each picture."""
    config = tools.config.quality
    scores: list[dict[str, float]] = [{} for _ in pictures]
    for word in config.text:
        found = tools.detector.detect(pictures, [word] * len(pictures), config.text_threshold)
        for picture, detections in zip(scores, found, strict=True):
            if detections:
                picture[word] = detections[0].score
    return scores


def _without_text(clip: Clip, found: dict[str, float], tools: Tools) -> Result:
    for word, score in found.items():
        return Reason("text", f"{word} in the first frame (score {score:.2f})")
    return clip


text = together(_first_frame, _texts, _without_text)


def verdict(clip: Clip, tools: Tools) -> Result:
    """What a person said on the audit page."""
    told = tools.verdicts.get(clip.id, {})
    return Reason("verdict", "a person rejected it") if told.get("verdict") == "reject" else clip


def _nothing(config: CurateConfig) -> Any:
    return None


def _looks(config: CurateConfig, *tables: Any) -> list[Any]:
    return [config.side, config.models.precision, *tables]


VIDEO_STAGES = (
    Stage("probe", each(probe), lambda c: [c.probe, c.fps]),
    Stage("split", each(split), lambda c: c.split),
)

CLIP_STAGES = (
    Stage("verdict", each(verdict), _nothing, judges=True, asks="verdict"),
    Stage("given", each(given), _nothing),
    Stage("caption", caption, lambda c: _looks(c, c.caption, c.models.captioner), whole=True),
    Stage("subject", each(subject), lambda c: [c.subject, c.models.language], asks="word"),
    Stage("blur", each(blur), lambda c: [c.side, c.quality.sharpness], judges=True),
    Stage("cut", each(cut), lambda c: c.split.cut, judges=True),
    Stage("detect", detect, lambda c: _looks(c, c.detect, c.models.detector), whole=True),
    Stage("size", each(size), lambda c: c.size, judges=True),
    Stage("text", text, lambda c: _looks(c, c.quality, c.models.detector), judges=True, whole=True),
    Stage("segment", segment, lambda c: _looks(c, c.models.segmenter), whole=True),
    Stage("track", each(track), lambda c: _looks(c, c.models.tracker or c.models.segmenter)),
    Stage("boxes", each(boxes), _nothing),
    Stage("visible", each(visible), lambda c: c.visible, judges=True),
    Stage("motion", each(motion), lambda c: c.motion, judges=True),
)
