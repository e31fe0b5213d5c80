"""The template in ComfyUI's own page, in a real browser: both frontends, classic nodes and Nodes 2.0."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.workflow_api import to_prompt

BROWSER = Path(__file__).with_name("browser.mjs")
RUN_SECONDS = 180


@pytest.fixture(params=["app", "app_new_frontend"], ids=["frontend 1.32.9", "frontend 1.58.1"])
def page_app(request: pytest.FixtureRequest):
    return request.getfixturevalue(request.param)


def visit(app: Any, workflow: dict[str, Any], nodes2: bool, folder: Path) -> dict[str, Any]:
    config = {
        "url": app.server.url,
        "playwright": os.environ["DV2_PLAYWRIGHT"],
        "chromium": os.environ["DV2_CHROMIUM"],
        "nodes2": nodes2,
        "workflow": workflow,
        "screenshots": str(folder),
        "seconds": RUN_SECONDS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    command = [os.environ["DV2_NODE"], str(BROWSER), str(folder / "config.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS + 180)
    assert done.returncode == 0, f"{done.stderr}\n{app.server.log_tail()}"
    return json.loads(done.stdout)


@pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "Nodes 2.0"])
def test_the_template_loads_whole_and_runs_from_the_page(page_app, nodes2, tmp_path):
    workflow = page_app.workflow(DV2Sampler__seed=1000 + nodes2)
    report = visit(page_app, workflow, nodes2, tmp_path)
    assert report["frontend"] == ("1.32.9" if "new" not in str(page_app.server.base) else "1.58.1")
    assert report["nodes2"] == nodes2
    assert report["missing"] == []
    assert sorted(report["nodes"]) == sorted(node["type"] for node in workflow["nodes"])
    assert not report["refused"]
    kinds = [kind for kind, _ in report["events"]]
    assert kinds[-1] == "execution_success", report["events"][-1]
    assert "progress" in kinds
    assert report["elsewhere"] == []
    assert dict(report["saved"]) == {str(node["id"]): node.get("widgets_values") or [] for node in workflow["nodes"]}
    # What the quick start sends without a browser is what the page sends.
    ours = {node: (e["class_type"], e["inputs"]) for node, e in to_prompt(workflow, page_app.info).items()}
    assert {node: (e["class_type"], e["inputs"]) for node, e in report["prompt"].items()} == ours
