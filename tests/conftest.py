"""ComfyUI inside the test process.

``COMFYUI_PATH`` names an unpacked ComfyUI tree (default: ``.cache/comfyui``, where ``scripts/test.py`` puts one). The
engine starts when the first test asks for it and lives as long as the process: ComfyUI keeps too much global state to
be started twice. Tests of ``dv2_core`` alone never ask for it and need no ComfyUI.
"""

import asyncio
import importlib
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[1]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or REPO / ".cache" / "comfyui").resolve()

CORE_EXTRAS = (
    "nodes_custom_sampler",
    "nodes_images",
    "nodes_mask",
    "nodes_model_advanced",
    "nodes_post_processing",
    "nodes_preview_any",
    "nodes_video",
)


class Engine:
    """One prompt executor with an empty cache, on the process's only ComfyUI.

    Attributes:
        base_dir: private folder with ``models/ input/ output/ temp/ user/ custom_nodes/``.
        nodes, folder_paths: ComfyUI's own modules (``engine.nodes.NODE_CLASS_MAPPINGS["DV2Sampler"]``).
        sent: every (event, data) message that a browser would have received, oldest first.
    """

    def __init__(self, core: "Core") -> None:
        self.base_dir = core.base_dir
        self.nodes = core.nodes
        self.folder_paths = core.folder_paths
        self.sent: list[tuple[str, Any]] = []
        self._core = core
        core.server.client_id = "test"
        core.server.send_sync = lambda event, data, sid=None: self.sent.append((event, data))
        self._executor = core.execution.PromptExecutor(
            core.server, cache_type=core.execution.CacheType.CLASSIC, cache_args={"lru": 0, "ram": 0}
        )

    def run(self, prompt: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Validate and execute a prompt in API form (``{"1": {"class_type": ..., "inputs": {...}}, ...}``).

        Returns:
            When validation refuses it: ``{"ok": False, "error", "node_errors"}``. Otherwise ``ok``, ``ui`` (what output
            nodes show, by node id), ``cache`` (by node id; ``cache["1"].outputs[0][0]`` is its first output) and
            ``messages`` (status messages, such as ``execution_cached`` and ``execution_error``).
        """
        execution = self._core.execution
        prompt_id = uuid.uuid4().hex
        valid, error, outputs, node_errors = self._core.wait(execution.validate_prompt(prompt_id, prompt, None))
        if not valid:
            return {"ok": False, "error": error, "node_errors": node_errors}
        self._executor.execute(prompt, prompt_id, {"client_id": "test"}, outputs)
        return {
            "ok": self._executor.success,
            "ui": self._executor.history_result["outputs"],
            "cache": {node_id: self._executor.caches.outputs.get(node_id) for node_id in prompt},
            "messages": self._executor.status_messages,
        }


class Core:
    """ComfyUI's modules, imported with its own tree first on the path, with this pack and a few core extras loaded."""

    def __init__(self, base_dir: Path) -> None:
        if not (COMFYUI / "main.py").is_file():
            raise FileNotFoundError(
                f"{COMFYUI} is no ComfyUI: run `python3.11 scripts/test.py`, which fetches one, or set COMFYUI_PATH."
            )
        for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
            (base_dir / name).mkdir()
        self.base_dir = base_dir
        # Both trees have a top-level `nodes`: ComfyUI's must be found first, whatever put the repository on the path.
        rest = [entry for entry in sys.path if Path(entry or ".").resolve() != REPO]
        sys.path[:] = [str(COMFYUI), *rest]

        import comfy.options  # noqa: F401  (its argument parsing stays off: sys.argv is pytest's)
        from comfy.cli_args import args

        # Read by folder_paths and model_management when they are imported, so set before.
        args.cpu, args.base_directory, args.disable_api_nodes = True, str(base_dir), True
        args.database_url = "sqlite:///:memory:"
        # Importing `nodes` puts comfy/ on the path, whose utils.py would then hide the package `utils`.
        importlib.import_module("utils.extra_config")
        import execution
        import folder_paths
        import server

        import nodes

        if Path(nodes.__file__).parent != COMFYUI:
            raise ImportError(f"`nodes` is {nodes.__file__}, not ComfyUI's: something imported it before the engine.")
        sys.path.append(str(REPO))  # last: a test's late `import dv2_core...` still works
        self.nodes, self.folder_paths, self.execution = nodes, folder_paths, execution
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self.server = server.PromptServer(self._loop)
        self._load(REPO)
        for name in CORE_EXTRAS:
            self._load(COMFYUI / "comfy_extras" / f"{name}.py", module_parent="comfy_extras")

    def wait(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)

    def _load(self, path: Path, **options: str) -> None:
        if not self.wait(self.nodes.load_custom_node(str(path), **options)):
            raise ImportError(f"ComfyUI could not load {path}; its traceback is in the log above.")


_core: Core | None = None


@pytest.fixture
def comfy(tmp_path_factory: pytest.TempPathFactory):
    """A factory: ``comfy()`` gives an :class:`Engine` with an empty cache. ComfyUI itself starts once per process."""
    global _core
    if _core is None:
        _core = Core(tmp_path_factory.mktemp("comfyui"))
    core = _core
    return lambda: Engine(core)
