"""JSON text from strangers -> Python values: what Python's reader would let pass or choke on is a sentence here."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from .track import show

#: Longest text accepted, in characters; a thousand frames of boxes are about 75 kB a track.
MAX_TEXT = 4_000_000


def read_json(text: str, accepted: str) -> Any:
    """The value of a JSON text; `accepted` says in the error sentences what should have been given.

    Raises ValueError for what is not text, empty, longer than MAX_TEXT, not JSON, nested too deeply, NaN or infinite,
    a number of more than 18 digits, or an object that names a key twice.
    """
    if not isinstance(text, str):
        raise ValueError(f"The boxes are {show(text)}, not text; give JSON such as {accepted}.")
    if len(text) > MAX_TEXT:
        raise ValueError(f"The box text has {len(text)} characters; at most {MAX_TEXT} are read. Use fewer keyframes.")
    if not text.strip():
        raise ValueError(f"The box text {text[:20]!r} is empty. Accepted: {accepted}.")
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        near = text[max(error.pos - 15, 0) : error.pos + 15]
        raise ValueError(
            f"The box text is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}, near {near!r}. "
            f"Accepted: {accepted}."
        ) from None
    except RecursionError:
        raise ValueError(f"The box text {text[:20]!r}... is nested too deeply. Accepted: {accepted}.") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"The box text contains {name}; every number must be finite.")


def _parse_int(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError(
            f"The box text contains the number {digits[:18]}... of {len(digits)} digits; no box needs more than 18."
        )
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"The key {show(key)} appears twice in one object of the box text; keep one of the two.")
        found[key] = value
    return found
