"""The nodes' public schema: what saved workflows rely on. A change that shows here may break somebody's workflow."""

import json
import os
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).with_name("schema.json")
# Inputs whose options are the files of this machine.
FILES = ("unet_name", "clip_name", "vae_name", "adapter_name", "image", "detector", "segmenter", "file")
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def schema(cls: Any) -> dict[str, Any]:
    """Only what every core has: texts, and fields that newer cores add, may change freely."""
    inputs = {}
    for category, found in cls.INPUT_TYPES().items():
        for name, (kind, *rest) in found.items():
            if category == "hidden":
                continue
            settings = rest[0] if rest else {}
            options = kind if isinstance(kind, list) else settings.get("options")
            kind = "COMBO" if isinstance(kind, list) else kind
            entry = {"type": kind, "optional": category == "optional"}
            if kind in WIDGETS:
                entry |= {k: settings[k] for k in ("default", "min", "max", "step", "multiline") if k in settings}
            if kind == "COMBO":
                entry["options"] = "files" if name in FILES else list(options)
            inputs[name] = entry
    outputs = [{"name": n, "type": t} for n, t in zip(cls.RETURN_NAMES, cls.RETURN_TYPES, strict=True)]
    return {"inputs": inputs, "outputs": outputs, "output_node": bool(cls.OUTPUT_NODE)}


def test_the_nodes_public_schema_is_that_of_the_snapshot(lab: Any) -> None:
    """To change it on purpose: keep old workflows working, run this test with DV2_UPDATE_SCHEMA=1, read the diff."""
    found = {name: schema(cls) for name, cls in sorted(lab.classes.items()) if name.startswith("DV2")}
    found = json.loads(json.dumps(found))
    if os.environ.get("DV2_UPDATE_SCHEMA"):
        SNAPSHOT.write_text(json.dumps(found, indent=1) + "\n")
    snapshot = json.loads(SNAPSHOT.read_text())
    changed = sorted(name for name in {*found, *snapshot} if found.get(name) != snapshot.get(name))
    differences = "\n".join(f"{n}:\n  was {snapshot.get(n)}\n  is  {found.get(n)}" for n in changed)
    assert not changed, (
        f"The public schema of {changed} changed; saved workflows may break. If this is meant, run this test once with "
        f"DV2_UPDATE_SCHEMA=1 and commit schema.json.\n{differences}"
    )


def test_every_node_of_the_pack_has_a_title_a_category_and_a_description(lab: Any) -> None:
    found = [cls for name, cls in lab.classes.items() if name.startswith("DV2")]
    assert len(found) >= 10
    for cls in found:
        info = cls.GET_SCHEMA()
        assert info.display_name and info.description and info.category == "DreamVideo-2", info.node_id
