"""Real ComfyUI servers with this pack, one per web frontend, for the whole test run."""

import asyncio
import copy
import hashlib
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scripts.comfy_server import ComfyServer
from scripts.workflow_api import nodes_of_class, set_widget, to_prompt

REPO = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or REPO / ".cache" / "comfyui").resolve()
ENDINGS = {"execution_success", "execution_error", "execution_interrupted"}
RUN_SECONDS = 180
SAMPLERS = {"DV2Sampler": "seed", "KSampler": "seed", "RandomNoise": "noise_seed", "SamplerCustom": "noise_seed"}


@dataclass
class Run:
    """How a prompt went: HTTP ``status`` and ``answer``, then every event of it, then what the server kept."""

    status: int
    answer: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def ending(self) -> str:
        return self._last["type"] if self.events else "refused"

    @property
    def sentence(self) -> str:
        """What a person reads on the node that refused or failed."""
        if self.events:
            return self._last["data"].get("exception_message", "")
        errors = [error for node in self.answer["node_errors"].values() for error in node["errors"]]
        return " ".join(f"{error['message']} {error.get('details', '')}" for error in errors)

    @property
    def _last(self) -> dict[str, Any]:
        return next(event for event in self.events if event["type"] in ENDINGS)

    def steps(self, node_id: str) -> list[int]:
        """The steps that a node counted, in order."""
        return [e["data"]["value"] for e in self.events if e["type"] == "progress" and e["data"]["node"] == node_id]

    def executed(self, node_id: str) -> bool:
        return any(e["type"] == "executing" and e["data"]["node"] == node_id for e in self.events)


class App:
    """A server, and the template as an artist would change and run it."""

    def __init__(self, server: ComfyServer) -> None:
        self.server = server
        self.pack = REPO
        self.info: dict[str, Any] = server.get("/object_info")
        self.templates: dict[str, dict[str, Any]] = {
            path.stem: json.loads(path.read_text()) for path in sorted((REPO / "workflows").glob("*.json"))
        }
        self.template = self.templates["dv2_subject_on_a_path"]

    def prompt(self, **widgets: Any) -> dict[str, Any]:
        """The main template in API form with widgets changed, each named NodeClass__widget."""
        workflow = copy.deepcopy(self.template)
        for name, value in widgets.items():
            class_type, widget = name.split("__")
            for node in nodes_of_class(workflow, class_type):
                set_widget(node, self.info, widget, value)
        return to_prompt(workflow, self.info)

    def reseeded(self, seed: int) -> dict[str, dict[str, Any]]:
        """All templates with another seed: with the same one the server would answer from its cache."""
        templates = copy.deepcopy(self.templates)
        for workflow in templates.values():
            for node in workflow["nodes"]:
                if node["type"] in SAMPLERS:
                    set_widget(node, self.info, SAMPLERS[node["type"]], seed)
        return templates

    def node(self, class_type: str) -> str:
        """Id of the template's node of that class."""
        return str(nodes_of_class(self.template, class_type)[0]["id"])

    def run(self, prompt: dict[str, Any], on_event: Callable[[dict[str, Any]], str | None] | None = None) -> Run:
        """Queue a prompt and wait for its end.

        Args:
            on_event: called with every event; when it returns a route, that is posted (to interrupt, say).
        """
        return asyncio.run(asyncio.wait_for(self._run(prompt, on_event), RUN_SECONDS))

    async def _run(self, prompt: dict[str, Any], on_event: Callable[[dict[str, Any]], str | None] | None) -> Run:
        client = uuid.uuid4().hex
        async with (
            aiohttp.ClientSession(self.server.url) as session,
            session.ws_connect(f"/ws?clientId={client}", max_msg_size=0) as socket,
        ):
            async with session.post("/prompt", json={"prompt": prompt, "client_id": client}) as response:
                run = Run(response.status, await response.json())
            # An output that is valid is still run beside one that is not; a template has to be whole.
            if response.status != 200:
                return run
            prompt_id = run.answer["prompt_id"]
            async for message in socket:
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                if event["data"].get("prompt_id") != prompt_id:
                    continue
                run.events.append(event)
                route = on_event(event) if on_event else None
                if route:
                    async with session.post(route, json={}):
                        pass
                # The last message of a run; only after it is the run in the history.
                if event["type"] == "executing" and event["data"]["node"] is None:
                    break
            async with session.get(f"/history/{prompt_id}") as response:
                run.outputs = (await response.json())[prompt_id]["outputs"]
        return run

    def files(self, run: Run, class_type: str) -> list[bytes]:
        """The bytes of the files that the template's node of that class showed."""
        entries = run.outputs[self.node(class_type)]["images"]
        return [(self.server.base / e["type"] / e["subfolder"] / e["filename"]).read_bytes() for e in entries]

    def saved(self) -> dict[str, str]:
        """Every file in the output folder, with a digest of what is in it."""
        folder = self.server.base / "output"
        found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """ComfyUI with the frontend that it asks for."""
    with ComfyServer(Path(sys.executable), COMFYUI, REPO, tmp_path_factory.mktemp("server")) as server:
        yield App(server)


@pytest.fixture(scope="session")
def app_new_frontend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The same with the newest frontend, in the folder that DV2_FRONTEND_NEW names."""
    frontend = Path(os.environ["DV2_FRONTEND_NEW"])
    base = tmp_path_factory.mktemp("server_new_frontend")
    with ComfyServer(Path(sys.executable), COMFYUI, REPO, base, frontend=frontend) as server:
        yield App(server)
