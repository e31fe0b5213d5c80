"""docs/scale.md: its tables are what its script makes of the measurements, and these are of today's networks."""

import json
from dataclasses import replace
from typing import Any

import pytest

from dv2_core.model import Adapter, AdapterConfig, UNet3D
from scripts import scale_tables
from tests.oracles.public import REPO

COUNTED = json.loads((REPO / "docs" / "scale" / "count.json").read_text())


def parameters(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_tables_of_the_page_are_those_of_the_script() -> None:
    page, found = (REPO / "docs" / "scale.md").read_text(), scale_tables.measured()
    assert scale_tables.filled(page, found) == page
    found["variants"]["paper"]["flops"]["backward"] *= 2
    assert scale_tables.filled(page, found) != page


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="0 places for the table parameters"):
        scale_tables.filled("no table", scale_tables.measured())


@pytest.mark.parametrize("variant", COUNTED["variants"])
def test_counted_parameters_are_those_of_the_networks(variant: str) -> None:
    settings = dict(setting.split(" = ") for setting in variant.split(", ")) if variant != "paper" else {}
    adapter: Any = Adapter(replace(AdapterConfig(), **settings), device="meta")
    motion = adapter.motion
    parts = {"ref": adapter.ref, "encoder": motion.encoder, "control": motion.controlnet}
    counted = COUNTED["variants"][variant]["parameters"]
    assert {name: parameters(part) for name, part in parts.items()} | {"base": counted["base"]} == counted


def test_the_counted_base_is_the_full_size() -> None:
    base = parameters(UNet3D(AdapterConfig().unet, device="meta"))
    assert {row["parameters"]["base"] for row in COUNTED["variants"].values()} == {base}
