"""What a node has to say without stopping: on the node itself in ComfyUI's page, and warnings in the log too."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from server import PromptServer


def say(node: Any, text: str, warnings: Sequence[str] = ()) -> None:
    """Shows `text`, and below it each of `warnings`, on a node class whose schema asks for the hidden unique_id.

    By the core's progress text, which both of its renderers show on the node until its next run.
    """
    for warning in warnings:
        logging.warning("DreamVideo-2: %s", warning)
    # Called directly, without a prompt, a node has no hidden values and there is no page.
    node_id = getattr(getattr(node, "hidden", None), "unique_id", None)
    if node_id is not None:
        PromptServer.instance.send_progress_text("\n".join([text, *(f"⚠ {w}" for w in warnings)]), node_id)
