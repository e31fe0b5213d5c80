"""Every template in ComfyUI's own page, in a real browser: both frontends, classic nodes and Nodes 2.0."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.workflow_api import to_prompt

BROWSER = Path(__file__).with_name("browser.mjs")
RUN_SECONDS = 180  # for one run in the page


@pytest.fixture(params=[("app", "1.32.9"), ("app_new_frontend", "1.58.1")], ids=lambda param: f"frontend {param[1]}")
def page(request: pytest.FixtureRequest):
    """A server, and the version of the frontend that it serves."""
    return request.getfixturevalue(request.param[0]), request.param[1]


def visit(app: Any, workflows: dict[str, Any], nodes2: bool, folder: Path) -> dict[str, Any]:
    config = {
        "url": app.server.url,
        "playwright": os.environ["DV2_PLAYWRIGHT"],
        "chromium": os.environ["DV2_CHROMIUM"],
        "nodes2": nodes2,
        "workflows": workflows,
        "screenshots": str(folder),
        "seconds": RUN_SECONDS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    command = [os.environ["DV2_NODE"], str(BROWSER), str(folder / "config.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=(len(workflows) + 1) * RUN_SECONDS)
    assert done.returncode == 0, f"{done.stderr}\n{app.server.log_tail()}"
    return json.loads(done.stdout)


def api_form(prompt: dict[str, Any]) -> dict[str, Any]:
    return {node: (entry["class_type"], entry["inputs"]) for node, entry in prompt.items()}


@pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "Nodes 2.0"])
def test_every_template_loads_whole_and_runs_from_the_page(page, nodes2, tmp_path):
    app, version = page
    workflows = app.reseeded(1000 + nodes2)
    report = visit(app, workflows, nodes2, tmp_path)
    assert (report["frontend"], report["nodes2"]) == (version, nodes2)
    for name, workflow in workflows.items():
        seen = report["workflows"][name]
        assert seen["missing"] == [], name
        assert sorted(seen["nodes"]) == sorted(node["type"] for node in workflow["nodes"]), name
        assert not seen["refused"], name
        assert seen["events"][-1][0] == "execution_success", seen["events"][-1]
        assert "progress" in {kind for kind, _ in seen["events"]}, name
        # The template is as the page itself would save it, and the quick start sends what the page sends.
        assert dict(seen["saved"]) == {str(n["id"]): n.get("widgets_values") or [] for n in workflow["nodes"]}, name
        assert api_form(seen["prompt"]) == api_form(to_prompt(workflow, app.info)), name
        # The saved video brings all of it back when it is dropped on the empty canvas, the boxes included.
        assert sorted(seen["dropped"]) == sorted(seen["saved"]), name
    assert report["elsewhere"] == []
    assert report["pageErrors"] == []
    assert report["brokenPictures"] == []
