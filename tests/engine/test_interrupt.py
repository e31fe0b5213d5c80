"""Cancelling a run: it stops at once, leaves nothing behind, and what was made before is kept."""

from typing import Any

import pytest
import torch


@pytest.mark.parametrize("sampler", ["ours", "stock"])
def test_an_interrupted_run_stops_within_one_step_and_the_next_equals_an_undisturbed_one(
    lab: Any, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management
    import comfy.utils

    graph, ids = lab.graph(sampler_steps=4)
    if sampler == "stock":
        graph[ids["sampler"]]["class_type"] = "KSampler"
        graph[ids["sampler"]]["inputs"] |= {"sampler_name": "euler", "scheduler": "normal"}
    undisturbed = lab.output(lab.run(graph), ids["sampler"])["samples"]

    steps: list[int] = []

    def cancel(value: int, *_: Any, **__: Any) -> None:
        steps.append(value)
        if value == 2:
            comfy.model_management.interrupt_current_processing()

    passes = completed_passes(lab, monkeypatch)
    lab.engine = type(lab.engine)(lab.engine._core)  # an empty cache: everything is made anew
    with monkeypatch.context() as patch:
        patch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
        stopped = lab.run(graph)
    assert not stopped["ok"]
    assert [event for event, _ in stopped["messages"]][-1] == "execution_interrupted"
    assert steps == [1, 2]
    assert passes == [1, 1, 16, 16]  # the subject with each text, and two steps; the third ends unfinished

    again = lab.run(graph)
    (cached,) = [data["nodes"] for event, data in again["messages"] if event == "execution_cached"]
    assert {ids["base"], ids["adapter"], ids["reference"], ids["motion"]} <= set(cached)
    assert torch.equal(lab.output(again, ids["sampler"])["samples"], undisturbed)


def completed_passes(lab: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every pass through the UNet that came to its end."""
    unet, rows = lab.pack("dv2_core.model").UNet3D, []
    forward = unet.forward

    def counted(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        out = forward(self, x, *args, **kwargs)
        rows.append(x.shape[0])
        return out

    monkeypatch.setattr(unet, "forward", counted)
    return rows


def test_an_interrupt_in_the_subjects_pass_leaves_no_half_made_keys(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management

    graph, ids = lab.graph()
    undisturbed = lab.output(lab.run(graph), ids["sampler"])["samples"]
    reference = lab.pack("nodes.host.reference")
    features = reference.subject_features

    def cancelled(*args: Any, **kwargs: Any) -> Any:
        comfy.model_management.interrupt_current_processing()
        return features(*args, **kwargs)

    lab.engine = type(lab.engine)(lab.engine._core)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "subject_features", cancelled)
        assert not lab.run(graph)["ok"]
    assert torch.equal(lab.output(lab.run(graph), ids["sampler"])["samples"], undisturbed)
