"""What a node has to say without stopping: shown on the node by web/js/notices.js, and warnings in the log too."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any


def said(text: str, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """The ui value of a node that says `text` and, below it, each of `warnings`.

    Not the core's progress text: the page would save that with the node's widgets, and it is lost on a cached run.
    Such a node has `has_intermediate_output` in its schema: a core that knows it (0.19 does) sends the value again
    where a run takes the node from the cache, as after a reload of the page.
    """
    for warning in warnings:
        logging.warning("DreamVideo-2: %s", warning)
    return {"dv2_said": [text, *warnings]}
