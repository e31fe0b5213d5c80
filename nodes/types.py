"""The one socket type of our own; everything else is the core's."""

from __future__ import annotations

from comfy_api.latest import io

Adapter = io.Custom("DV2_ADAPTER")

CATEGORY = "DreamVideo-2"
