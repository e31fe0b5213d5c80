"""ComfyUI inside this process: prompts in API form go in, the pictures that its preview nodes saved come out.

The evaluation runs whole prompts, so what it measures is what an artist's workflow does: the pack's nodes, the stock
nodes beside them, and the host's model management. ComfyUI is imported when a `Comfy` is made and not before.
"""

import asyncio
import importlib
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np

PACK = Path(__file__).resolve().parents[2]
FOLDERS = ("models", "input", "output", "temp", "user", "custom_nodes")

Prompt = dict[str, dict[str, Any]]


class PromptFailed(RuntimeError):
    """ComfyUI refused a prompt, or a node failed; the message is the node's own sentence."""


class Comfy:
    """The process's one ComfyUI, with this pack loaded.

    comfyui: an unpacked ComfyUI tree. base_dir: private folder for its models/, input/, output/ and temp/.
    Raises ValueError if `comfyui` is no ComfyUI, ImportError if it or the pack cannot be loaded."""

    def __init__(self, comfyui: Path, base_dir: Path, device: str = "cpu") -> None:
        comfyui, base_dir = comfyui.resolve(), base_dir.resolve()
        if not (comfyui / "main.py").is_file():
            raise ValueError(f"{comfyui} is no ComfyUI (it holds no main.py); give the folder of an unpacked one.")
        for name in FOLDERS:
            (base_dir / name).mkdir(parents=True, exist_ok=True)
        self.input_dir, self.base_dir = base_dir / "input", base_dir
        # Both trees have a top-level `nodes`: ComfyUI's must be found first.
        rest = [entry for entry in sys.path if Path(entry or ".").resolve() != PACK]
        sys.path[:] = [str(comfyui), *rest]
        importlib.import_module("comfy.options")  # its argument parsing stays off: sys.argv is ours
        args = importlib.import_module("comfy.cli_args").args
        # Read by folder_paths and model_management when they are imported, so set before.
        args.cpu, args.base_directory, args.disable_api_nodes = device == "cpu", str(base_dir), True
        args.database_url = "sqlite:///:memory:"
        # Importing `nodes` puts comfy/ on the path, whose utils.py would then hide the package `utils`.
        importlib.import_module("utils.extra_config")
        self.nodes = importlib.import_module("nodes")
        if Path(str(self.nodes.__file__)).parent != comfyui:
            raise ImportError(f"`nodes` is {self.nodes.__file__}, not ComfyUI's; something imported it before.")
        self.folder_paths = importlib.import_module("folder_paths")
        self._execution = importlib.import_module("execution")
        importlib.import_module("comfy.utils").set_progress_bar_enabled(False)  # one bar per clip helps nobody
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        server = importlib.import_module("server").PromptServer(self._loop)
        server.client_id, server.send_sync = "evaluate", lambda *_, **__: None
        if not self._loop.run_until_complete(self.nodes.load_custom_node(str(PACK))):
            raise ImportError("ComfyUI could not load this pack; its traceback is in the log above.")
        # An executor keeps what the previous prompt computed: the model is loaded once for all clips.
        self._executor = self._execution.PromptExecutor(
            server, cache_type=self._execution.CacheType.CLASSIC, cache_args={"lru": 0, "ram": 0}
        )

    def run(self, prompt: Prompt, show: str) -> np.ndarray:
        """Execute a prompt -> the pictures of its preview or save node `show`, uint8 [F, H, W, 3].

        Raises PromptFailed with the node's sentence."""
        from PIL import Image

        prompt_id = uuid.uuid4().hex
        valid, error, outputs, node_errors = self._loop.run_until_complete(
            self._execution.validate_prompt(prompt_id, prompt, None)
        )
        if not valid:
            details = [str(item.get("details")) for node in node_errors.values() for item in node["errors"]]
            raise PromptFailed("; ".join([str(error.get("message", error)), *details]))
        self._executor.execute(prompt, prompt_id, {"client_id": "evaluate"}, outputs)
        if not self._executor.success:
            raise PromptFailed(self._failure())
        saved = self._executor.history_result["outputs"][show]["images"]
        folders = {"temp": self.base_dir / "temp", "output": self.base_dir / "output"}
        files = [folders[item["type"]] / item["subfolder"] / item["filename"] for item in saved]
        pictures = [np.asarray(Image.open(file).convert("RGB")) for file in files]
        for file in files:
            file.unlink()
        return np.stack(pictures)

    def _failure(self) -> str:
        for event, data in self._executor.status_messages:
            if event == "execution_error":
                return f"{data['node_type']}: {data['exception_message'].strip()}"
        return "The prompt did not finish."
