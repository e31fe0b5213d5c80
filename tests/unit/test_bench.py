"""The benchmark: how sides take turns, what is made of their times, and every row once on a tiny network."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dv2_core.bench import run
from dv2_core.bench.pairs import Comparison, compare, peak_memory, seconds, table
from dv2_core.bench.rows import MEANING, ROWS, SIZES, Bench, Size
from tests.oracles.public import MODELSCOPE, REPO, TINY

CPU = torch.device("cpu")
TINY_SIZE = Size(TINY, frames=2, width=64, height=64, tokens=5, vae_channels=(32, 32))
EAGER = [name for name in ROWS if name not in ("step-compiled", "compiling")]  # a compiler takes minutes
SAME = ("step", "step-modelscope", "run", "training")


def comparison(ours: tuple[float, ...], anchor: tuple[float, ...], **more: Any) -> Comparison:
    return Comparison("step", "base", "diffusers", ours, anchor, **more)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(TINY_SIZE, CPU, torch.float32, turns=1, steps=2, modelscope=MODELSCOPE, clock="process")


def test_sides_take_turns_and_swap_who_is_first() -> None:
    calls: list[str] = []
    ours, anchor = (("A", lambda: calls.append("a")), ("B", lambda: calls.append("b")))
    found = compare("row", ours, anchor, CPU, turns=3, same=False)
    assert "".join(calls) == "ab" + "abba" + "ab"  # one call of each warms up
    assert len(found.ours) == len(found.anchor) == 3 and found.difference is None


def test_the_ratio_is_the_median_of_the_pairs_and_not_of_the_sides() -> None:
    """The machine was slow in the last two turns, for both."""
    found = comparison((1.0, 10.0, 6.0), (2.0, 20.0, 10.0))
    assert found.ratios == [0.5, 0.5, 0.6] and found.median == 0.5
    assert found.quartiles == pytest.approx((0.5, 0.55))
    assert comparison((1.0,), (4.0,)).quartiles == (0.25, 0.25)


def test_time_is_that_of_the_call_on_either_clock() -> None:
    for clock in ("wall", "process"):
        assert seconds(lambda: sum(range(100_000)), CPU, clock) > seconds(lambda: None, CPU, clock) >= 0


def test_peak_memory_counts_tensors_made_by_the_call_that_are_alive_together() -> None:
    mib = 2**18  # floats
    weight = torch.zeros(8 * mib)

    def call() -> torch.Tensor:
        first = weight[: 4 * mib] + 1
        del first
        return torch.zeros(2 * mib) + torch.ones(2 * mib)

    result, peak = peak_memory(call, CPU)
    assert result.shape == (2 * mib,) and peak == 6 * 2**20


def test_the_table_has_ratio_spread_memory_and_difference() -> None:
    full = comparison((1.0, 1.0), (2.0, 4.0), memory=(2**20, 3 * 2**20), difference=2e-6)
    lines = table([full, comparison((3.0,), (2.0,))]).splitlines()
    assert lines[2] == "| step | base | diffusers | 1 | 3 | **0.375** | 0.312-0.438 | 1 / 3 | 2e-06 |"
    assert lines[3] == "| step | base | diffusers | 3 | 2 | **1.500** | 1.500-1.500 |  |  |"


def test_a_comparison_survives_json() -> None:
    found = comparison((1.0, 2.0), (2.0, 2.0), memory=(1, 2), difference=0.5)
    assert Comparison.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("row", EAGER)
@torch.no_grad()
def test_every_row_runs_on_a_cpu_and_compared_results_agree(row: str, bench: Bench) -> None:
    found = ROWS[row](bench)
    assert found.row == row and found.median > 0
    assert found.memory is not None and min(found.memory) > 0
    assert (found.difference is not None) == (row in SAME)
    assert found.difference is None or found.difference <= 1e-4


@pytest.mark.parametrize("row", ["step-compiled", "compiling"])
@torch.no_grad()
def test_the_compiled_rows_call_compiled_modules(row: str, bench: Bench) -> None:
    """Their wrappers alone: the compiler itself takes minutes."""
    with torch.compiler.set_stance("force_eager"):
        found = ROWS[row](replace(bench, memory=False))
    assert found.row == row and found.difference is not None and found.difference <= 1e-4


def test_the_twins_share_the_weights_memory(bench: Bench) -> None:
    ours = {p.data_ptr() for p in bench.unet.parameters()}
    assert {p.data_ptr() for p in bench.diffusers.parameters()} == ours


def test_the_report_writes_what_it_prints(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "bench.json"
    run.report(replace(bench, memory=False), ["encoder", "subject"], True, out, {"size": "tiny"})
    found = json.loads(out.read_text())
    assert run.show(found) in capsys.readouterr().out
    assert [row["row"] for row in found["rows"]] == ["encoder", "subject"] and found["settings"]["size"] == "tiny"
    assert "of 50 steps of the base" in run.show(found) and "processor" in run.show(found)
    assert sum(found["profile"].values()) == pytest.approx(1)
    assert found["profile"]["convolutions"] > 0 and found["profile"]["matrix products"] > 0


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--turns", "0"), "--turns is 0"),
        (("--frames", "0"), "--frames is 0"),
        (("--device", "cpu", "--rows", "step-modelscope"), "needs --modelscope DIR"),
    ],
)
def test_arguments_that_cannot_be_run_are_refused_with_a_sentence(given: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run.main(arguments("--size", "narrow", *given))


def test_every_row_and_size_is_explained() -> None:
    assert MEANING.keys() == ROWS.keys() and SIZES.keys() == {"full", "narrow"}


def test_the_page_shows_the_recorded_tables() -> None:
    page = (REPO / "docs" / "benchmarks.md").read_text()
    recorded = sorted((REPO / "docs" / "benchmarks").glob("*.json"))
    assert recorded
    for file in recorded:
        assert run.show(json.loads(file.read_text())) in page, file.name
