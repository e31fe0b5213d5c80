"""How a stage goes over the clips of a batch: one by one, or as pictures that a model sees together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .clip import Clip, Reason
from .tools import SetupError, Tools

Result = Clip | Reason
Run = Callable[[Sequence[Clip], Tools], Iterator[Result]]


@dataclass(frozen=True)
class Question:
    """What a stage asks its model of one clip. picture: [h, w, 3] in 0..1. about: a word, or where to look."""

    picture: Tensor
    about: Any = None


def each(function: Callable[[Clip, Tools], Result]) -> Run:
    """A stage's ``run`` out of a function of one clip; a ValueError of its reader or model rejects that clip."""

    def run(clips: Sequence[Clip], tools: Tools) -> Iterator[Result]:
        for clip in clips:
            yield tried(function, clip, tools)

    return run


def together(
    look: Callable[[Clip, Tools], Result | Question],
    ask: Callable[[Tensor, Sequence[Any], Tools], Sequence[Any]],
    conclude: Callable[[Clip, Any, Tools], Result],
) -> Run:
    """A stage's ``run`` whose model sees the clips' pictures at once.

    look: clip -> the question about it, or the result where there is none to ask. ask: pictures [n, h, w, 3] of one
    size and what is asked of each -> n answers. conclude: clip and answer -> the result. A ValueError rejects the clip
    that it is about: if a batch raises one, its pictures are asked about one by one.
    """

    def run(clips: Sequence[Clip], tools: Tools) -> Iterator[Result]:
        found: list[Any] = [tried(look, clip, tools) for clip in clips]
        sizes: dict[Any, list[int]] = {}
        for n, question in enumerate(found):
            if isinstance(question, Question):
                sizes.setdefault(question.picture.shape, []).append(n)
        for numbers in sizes.values():
            answers = _answers(ask, [found[n] for n in numbers], tools)
            for n, answer in zip(numbers, answers, strict=True):
                found[n] = answer if isinstance(answer, Reason) else tried(conclude, clips[n], answer, tools)
        yield from found

    return run


def _answers(ask: Callable[..., Sequence[Any]], questions: Sequence[Question], tools: Tools) -> list[Any]:
    """An answer, or the reason for which there is none, to each of questions about pictures of one size."""
    try:
        pictures = torch.stack([question.picture for question in questions])
        return list(ask(pictures, [question.about for question in questions], tools))
    except SetupError:
        raise
    except ValueError as error:
        if len(questions) == 1:
            return [Reason("broken", str(error))]
        return [_answers(ask, [question], tools)[0] for question in questions]


def tried(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, or the reason for which its ValueError rejects the clip."""
    try:
        return function(*arguments)
    except SetupError:
        raise
    except ValueError as error:
        return Reason("broken", str(error))
