"""Verdicts, table and figure of the ablation, on numbers made by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dv2_core.ablate import measure, table
from dv2_core.ablate.directions import (
    DIRECTIONS,
    ORDERS,
    Direction,
    Order,
    Scatter,
    Verdict,
    against_full,
    compare,
    compare_order,
    verdicts,
)
from dv2_core.ablate.figure import plot
from dv2_core.ablate.measure import METRICS, Values, draws, stack, statistic
from dv2_core.ablate.rows import ROWS, UNTRAINED, Row

PAIRS = 12


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESAMPLES", 200)


def values(level: float, seed: int = 0, noise: float = 0.02) -> Values:
    """A result around `level` in every metric; colours that correlate with the subject's by about `level`."""
    rng = np.random.default_rng(seed)
    subject = np.random.default_rng(99).uniform(size=(PAIRS, 3))
    shown = level * subject + (1 - level) * rng.uniform(size=(PAIRS, 3))
    names = {metric.values for metric in METRICS.values()} - {"colours"}
    result = {name: level + noise * rng.standard_normal(PAIRS) for name in sorted(names)}
    return {**result, "colours": np.concatenate([shown, subject], 1)}


def seeds(level: float, spread: float = 0.0) -> dict[int, Values]:
    return {0: values(level - spread, 1), 1: values(level + spread, 2)}


CLAIM = Direction("a is more", "here", "mIoU", "a", "b")


def results(
    a: dict[int, Values], b: dict[int, Values], spread: float = 0.002
) -> dict[str, dict[int, dict[int, Values]]]:
    """Rows a and b at step 9, and four others whose seeds differ by about `spread`."""
    rng = np.random.default_rng(7)
    others = {f"other {n}": {9: seeds(0.5, spread * rng.standard_normal())} for n in range(4)}
    return {"a": {9: a}, "b": {9: b}, **others}


def judged(curves: dict[str, dict[int, dict[int, Values]]]) -> Verdict:
    return compare(CLAIM, curves, 9, Scatter(curves, 9))


def test_a_difference_in_the_claims_direction_holds_and_the_other_way_round_is_reversed() -> None:
    verdict = judged(results(seeds(0.7), seeds(0.5)))
    assert verdict.outcome == "holds" and verdict.difference == pytest.approx(0.2, abs=0.02)
    assert verdict.low is not None and verdict.high is not None and 0 < verdict.low < 0.2 < verdict.high < 0.3
    assert judged(results(seeds(0.5), seeds(0.7))).outcome == "reversed"


def test_the_opposite_claim_has_the_opposite_interval() -> None:
    curves = results(seeds(0.51), seeds(0.5), spread=0.01)
    scatter, opposite = Scatter(curves, 9), Direction("b is more", "here", "mIoU", "b", "a")
    verdict, other = compare(CLAIM, curves, 9, scatter), compare(opposite, curves, 9, scatter)
    assert verdict.low is not None and verdict.high is not None
    assert (other.low, other.high) == pytest.approx((-verdict.high, -verdict.low), abs=1e-12)


def test_a_difference_smaller_than_the_scatter_of_the_pairs_is_not_resolved() -> None:
    a, b = ({seed: values(level, seed + first, 0.2) for seed in (0, 1)} for level, first in ((0.505, 1), (0.5, 3)))
    assert judged(results(a, b)).outcome == "not resolved"


def test_a_difference_smaller_than_the_scatter_of_the_seeds_is_not_resolved_though_both_seeds_have_it() -> None:
    a, b = seeds(0.53), seeds(0.5)
    assert judged(results(a, b, spread=0.001)).outcome == "holds"
    assert judged(results(a, b, spread=0.1)).outcome == "not resolved"


def test_two_seeds_that_disagree_leave_a_direction_unresolved() -> None:
    assert judged(results({0: values(0.9, 1), 1: values(0.4, 2)}, seeds(0.5))).outcome == "not resolved"


def test_one_seed_or_two_rows_resolve_nothing() -> None:
    curves = results(seeds(0.9), seeds(0.5))
    one_seed = {name: {9: {0: steps[9][0]}} for name, steps in curves.items()}
    assert judged(one_seed).outcome == "not resolved" and judged(one_seed).difference == pytest.approx(0.4, abs=0.02)
    assert judged({name: curves[name] for name in ("a", "b")}).outcome == "not resolved"


def test_only_seeds_that_both_rows_have_are_compared() -> None:
    verdict = judged(results({0: values(0.9, 1), 1: values(0.6, 2)}, {1: values(0.5, 2)}))
    assert verdict.difference == pytest.approx(0.1, abs=1e-6)


def test_a_row_without_results_at_the_last_step_is_not_measured() -> None:
    curves = {**results(seeds(0.7), seeds(0.5)), "b": {5: seeds(0.5)}}
    assert judged(curves).outcome == "not measured" and judged(curves).difference is None


def test_differences_are_paired_so_a_shared_scatter_of_the_pairs_cancels() -> None:
    scatter = np.random.default_rng(5).standard_normal(PAIRS)
    high, low = ({seed: {**values(0.5, seed), "mIoU": level + scatter} for seed in (0, 1)} for level in (0.6, 0.4))
    verdict = judged(results(high, low))
    assert verdict.outcome == "holds" and verdict.low is not None and verdict.low > 0.15


def test_rows_that_sample_from_the_same_weights_need_no_scatter_of_trainings() -> None:
    direction = Direction("kept is more", "here", "mIoU", "full", "uncond-none")
    curves = {"full": {9: seeds(0.7)}, "uncond-none": {9: seeds(0.6)}}
    assert compare(direction, curves, 9, Scatter(curves, 9)).outcome == "holds"


def test_the_scatter_of_trainings_is_what_row_and_seed_leave_over() -> None:
    rng = np.random.default_rng(3)
    rests = 0.01 * rng.standard_normal((40, 2))
    curves = {
        str(row): {
            9: {seed: {**values(0.5), "mIoU": np.full(PAIRS, row + 5 * seed + rests[row, seed])} for seed in (0, 1)}
        }
        for row in range(40)
    }
    pool = Scatter(curves, 9).pool("mIoU")
    assert pool.std() == pytest.approx(0.01, rel=0.2) and abs(pool.mean()) < 1e-9


def curve(control: list[float], identity: list[float]) -> dict[int, dict[int, Values]]:
    steps = {}
    for number, (high, low) in enumerate(zip(control, identity, strict=True), start=7):
        by_seed = {seed: values(low, number + 10 * seed) for seed in (0, 1)}
        steps[number] = {seed: {**one, "mIoU": values(high, number)["mIoU"]} for seed, one in by_seed.items()}
    return steps


def test_what_reaches_its_end_sooner_is_learned_before_the_other() -> None:
    order = Order("control first", "here", "naive", "mIoU", "top5")
    base = {**results(seeds(0.5), seeds(0.5)), "untrained": {0: {0: values(0.1)}}}
    sooner = {**base, "naive": curve([0.6, 0.8, 0.9], [0.2, 0.3, 0.5])}
    verdict = compare_order(order, sooner, values(0.95), Scatter(sooner, 9))
    assert verdict.outcome == "holds" and verdict.difference is not None
    expected = (np.mean([0.6, 0.8, 0.9]) - np.mean([0.2, 0.3, 0.5])) / 0.85
    assert verdict.difference == pytest.approx(expected, abs=0.05)
    later = {**base, "naive": curve([0.2, 0.3, 0.5], [0.6, 0.8, 0.9])}
    assert compare_order(order, later, values(0.95), Scatter(later, 9)).outcome == "reversed"
    del sooner["untrained"]
    assert compare_order(order, sooner, values(0.95), Scatter(sooner, 9)).outcome == "not measured"


def test_every_direction_names_rows_and_metrics_that_exist() -> None:
    names = {row.name for row in ROWS}
    assert all({d.higher, d.lower} <= names and d.metric in METRICS for d in DIRECTIONS)
    assert all(o.row in names and {o.first, o.then} <= METRICS.keys() for o in ORDERS)
    curved = {row.name for row in ROWS if row.curve}
    assert {o.row for o in ORDERS} <= curved


def test_the_papers_own_numbers_have_the_directions_that_are_claimed() -> None:
    paper = {row.name: dict(zip(("mIoU", "CD", "identity"), row.paper, strict=False)) for row in ROWS if row.paper}
    checked = 0
    for direction in DIRECTIONS:
        kind = "mIoU" if direction.metric == "mIoU" else "identity"
        high, low = (paper.get(name, {}).get(kind) for name in (direction.higher, direction.lower))
        if direction.source.startswith("Table") and direction.metric != "static" and high and low:
            assert high > low, direction
            checked += 1
    assert checked >= 9


def test_colour_correlation_is_taken_over_pairs_and_then_averaged_over_seeds() -> None:
    one, two = values(1.0, 1), values(0.0, 2)
    both = stack([one, two])
    assert statistic("colour", stack([one])) == pytest.approx(1.0)
    expected = (statistic("colour", stack([one])) + statistic("colour", stack([two]))) / 2
    assert statistic("colour", both) == pytest.approx(expected)


def test_the_bootstrap_draws_are_always_the_same_and_keep_the_seeds_where_told() -> None:
    assert np.array_equal(np.array(draws(2, 2)), np.array(draws(2, 2)))
    assert all(list(chosen) == [0, 1] for chosen, _ in draws(2, 5, redraw_seeds=False))
    assert {tuple(chosen) for chosen, _ in draws(2, 5)} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_results_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    written = values(0.5)
    written["static"][3] = np.nan  # boxes that leave no background
    measure.save(tmp_path / "row" / "result.json", written, {"seed": 1})
    read, about = measure.load(tmp_path / "row" / "result.json")
    assert about == {"seed": 1} and read.keys() == written.keys()
    assert all(np.allclose(read[name], written[name], atol=1e-6, equal_nan=True) for name in read)
    assert not np.isnan(statistic("static", stack([read])))


def test_the_table_holds_our_values_with_intervals_beside_the_papers(tmp_path: Path) -> None:
    full = next(row for row in ROWS if row.name == "full")
    lines = [table.line(UNTRAINED, {0: values(0.1)}), table.line(full, seeds(0.6, 0.01))]
    references = [table.reference_line("real clips", values(0.9))]
    curves = {**results(seeds(0.5), seeds(0.5)), "full": {9: seeds(0.6)}, "mask-1": {9: seeds(0.5)}}
    judged, differences = verdicts(curves, values(0.9), 9), against_full(curves, 9, table.AGAINST)
    page = table.write(tmp_path, lines, references, judged, differences, {"steps": 9})
    beside = page.split("## Beside the paper")[1]
    head, _, base, ours, real, *_ = [line for line in beside.splitlines() if line.startswith("|")]
    assert head.count("|") == base.count("|") == ours.count("|") == real.count("|")
    assert ours.split(" | ")[1] == "2" and "0.670 | 0.048 | 0.392" in ours and "0.670" not in base
    low, high = ours.split("(")[1].split(")")[0].split("..")
    assert float(low) < 0.6 < float(high)
    assert "| the blended mask raises control | Table 5-6, mask | mIoU: full > mask-1 | holds |" in page
    assert "not measured" in page and (tmp_path / "table.md").read_text() == page

    stored = json.loads((tmp_path / "table.json").read_text())
    cell = stored["rows"][1]["metrics"]["mIoU"]
    assert cell["value"] == pytest.approx(np.mean(list(cell["seeds"].values())))
    assert stored["rows"][1]["paper"]["R-DINO"] == 0.392 and stored["references"][0]["row"] == "real clips"
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["untrained", "full", "real clips"]
    assert float(rows[1]["mIoU"]) == pytest.approx(cell["value"], abs=1e-6) and rows[0]["paper_mIoU"] == ""


def test_every_row_is_held_against_the_full_method_and_what_is_resolved_is_bold() -> None:
    curves = {**results(seeds(0.5), seeds(0.5)), "full": {9: seeds(0.6)}, "mask-1": {9: seeds(0.5)},
              "loss-1": {9: {1: values(0.6, 2)}}}  # fmt: skip
    differences = against_full(curves, 9, table.AGAINST)
    assert list(differences) == ["mask-1", "loss-1"]
    less = differences["mask-1"]["mIoU"]
    assert less.outcome == "reversed" and less.difference == pytest.approx(-0.1, abs=0.01)
    assert differences["loss-1"]["mIoU"].difference == pytest.approx(0, abs=1e-9)  # of the common seed
    by_name = {row.name: row for row in ROWS}
    lines = [table.line(by_name[name], curves[name][9]) for name in ("full", "mask-1", "loss-1")]
    full, lost, alike = table.against_table(lines, differences).splitlines()[2:]
    assert full.startswith("| `full` | 2 | .6") and "**" not in full and full.split(" | ")[3] == ""
    assert full.endswith("| .670 | .392 |") and lost.endswith("| .601 | .370 |")
    assert lost.split(" | ")[3].startswith("**-.1") and alike.split(" | ")[1] == "1" and "**" not in alike


def test_the_value_of_a_row_is_the_mean_of_its_seeds_and_the_second_table_shows_each() -> None:
    row = Row("a", "row a")
    entry = table.line(row, {0: values(0.5, 1, 0.0), 3: values(0.7, 2, 0.0)})
    assert entry.cells["mIoU"][0] == pytest.approx(0.6) and entry.seeds == [0, 3]
    by_seed = table.markdown([entry], []).split("\n\n")[1]
    assert "| row a | 0 | 0.500 |" in by_seed and "| row a | 3 | 0.700 |" in by_seed


def test_the_figure_is_drawn_with_one_seed_missing_at_a_step(tmp_path: Path) -> None:
    curves = {
        "untrained": {0: {0: values(0.1)}},
        "full": {1: seeds(0.3), 2: {0: values(0.5)}},
        "naive": {1: seeds(0.3), 2: seeds(0.6)},
    }
    plot(curves, values(0.9), values(0.2), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
