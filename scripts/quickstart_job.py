"""The quick start's work, run by quickstart.py in ComfyUI's environment: server, prompt, progress, files."""

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from comfy_server import ComfyServer, ServerError
from contact_sheet import contact_sheet
from PIL import Image, UnidentifiedImageError
from workflow_api import WorkflowError, only_node, set_widget, text_behind, to_prompt, upstream

REPO = Path(__file__).resolve().parents[1]
TEMPLATE = REPO / "workflows" / "dv2_subject_on_a_path.json"


class JobError(Exception):
    """The run could not be done; the message is for the person who started it."""


@dataclass(frozen=True)
class Job:
    """What quickstart.py hands over. None means: as the template has it."""

    subject: str | None
    boxes: str | None
    prompt: str | None
    seed: int | None
    out: str
    keep: bool
    port: int | None
    comfyui: str
    started: float  # time.time() when the command began


class Progress:
    """One line per node, with a bar while a node counts its steps."""

    WIDTH = 30

    def __init__(self) -> None:
        self._title = ""
        self._open = False
        self._shown = 0
        self._terminal = sys.stdout.isatty()

    def node(self, title: str) -> None:
        self.close()
        self._title, self._shown = title, 0
        if not self._terminal:
            print(f"  {title}", flush=True)

    def steps(self, value: int, maximum: int) -> None:
        filled = self.WIDTH * value // max(maximum, 1)
        bar = f"  {self._title}  [{'#' * filled}{'.' * (self.WIDTH - filled)}] {value}/{maximum}"
        if self._terminal:
            print(f"\r{bar}", end="", flush=True)
            self._open = True
        elif value * 5 // max(maximum, 1) > self._shown:
            self._shown = value * 5 // max(maximum, 1)
            print(bar, flush=True)

    def close(self) -> None:
        if self._open:
            print(flush=True)
        self._open = False


def fill_in(workflow: dict[str, Any], info: dict[str, Any], job: Job, input_folder: Path) -> None:
    """Put the job's subject, boxes, prompt and seed into the template, in place."""
    sampler = only_node(workflow, "DV2Sampler")
    if job.subject is not None:
        check_picture(job.subject)
        name = "subject" + Path(job.subject).suffix.lower()
        shutil.copyfile(job.subject, input_folder / name)
        set_widget(only_node(workflow, "DV2LoadSubject"), info, "image", name)
    if job.boxes is not None:
        set_widget(only_node(workflow, "DV2BoxesToMask"), info, "boxes", job.boxes)
    if job.prompt is not None:
        encoder = text_behind(to_prompt(workflow, info), str(sampler["id"]), "positive")
        node = next(node for node in workflow["nodes"] if str(node["id"]) == encoder)
        set_widget(node, info, "text", job.prompt)
    if job.seed is not None:
        set_widget(sampler, info, "seed", job.seed)


def check_picture(path: str) -> None:
    try:
        with Image.open(path) as picture:
            picture.verify()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise JobError(
            f"--subject: {path} is no picture that can be read ({error}). Give a PNG, JPEG or WebP."
        ) from None


def refusal(answer: Any, prompt: dict[str, Any]) -> str:
    """The sentences in the server's answer to a prompt that it did not accept."""
    lines = []
    for node_id, entry in (answer.get("node_errors") or {}).items():
        title = prompt[node_id]["_meta"]["title"]
        lines += [f"{title}: {error.get('details') or error['message']}" for error in entry["errors"]]
    return "\n".join(lines) or str(answer.get("error", answer))


async def run_prompt(server: ComfyServer, prompt: dict[str, Any], workflow: dict[str, Any]) -> dict[str, Any]:
    """Queue the prompt, show its progress, and return the outputs by node id.

    Raises:
        JobError: validation refused it, or a node failed.
    """
    client, progress = uuid.uuid4().hex, Progress()
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.ws_connect(f"/ws?clientId={client}", max_msg_size=0) as socket,
    ):
        body = {"prompt": prompt, "client_id": client, "extra_data": {"extra_pnginfo": {"workflow": workflow}}}
        async with session.post("/prompt", json=body) as response:
            answer = await response.json()
        if response.status != 200 or answer.get("node_errors"):
            raise JobError(refusal(answer, prompt))
        prompt_id = answer["prompt_id"]
        try:
            async for message in socket:
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                kind, data = event["type"], event["data"]
                if data.get("prompt_id", prompt_id) != prompt_id:
                    continue
                if kind == "executing" and data["node"] is not None:
                    progress.node(prompt[data["node"]]["_meta"]["title"])
                elif kind == "progress":
                    progress.steps(data["value"], data["max"])
                elif kind == "execution_error":
                    title = prompt[data["node_id"]]["_meta"]["title"]
                    raise JobError(f"{title}: {data['exception_message'].strip()}")
                elif kind == "execution_interrupted":
                    raise JobError("The run was interrupted.")
                elif kind == "executing":  # no node any more: the run is over and in the history
                    break
            else:
                raise JobError(f"ComfyUI ended during the run. The end of its log:\n\n{server.log_tail()}")
        finally:
            progress.close()
        async with session.get(f"/history/{prompt_id}") as response:
            history = await response.json()
    return history[prompt_id]["outputs"]


def saved_file(server: ComfyServer, entry: dict[str, str]) -> Path:
    return server.base / entry["type"] / entry["subfolder"] / entry["filename"]


def collect(server: ComfyServer, prompt: dict[str, Any], outputs: dict[str, Any], out: Path) -> tuple[Path, Path]:
    """Copy the video and make the contact sheet; earlier files in ``out`` are never overwritten."""
    video, frames = None, None
    for node_id, output in outputs.items():
        kind = prompt[node_id]["class_type"]
        if kind == "SaveVideo":
            video = saved_file(server, output["images"][0])
        elif kind == "PreviewImage":
            behind = {prompt[other]["class_type"] for other in upstream(prompt, node_id)}
            if "DV2DrawBoxes" in behind:
                frames = [Image.open(saved_file(server, entry)).convert("RGB") for entry in output["images"]]
    if video is None or not frames:
        raise JobError("The run ended without a video or without frames: was the template changed?")
    out.mkdir(parents=True, exist_ok=True)
    number = 1
    while any(out.glob(f"dreamvideo2_{number:03}.*")):
        number += 1
    movie, sheet = out / f"dreamvideo2_{number:03}{video.suffix}", out / f"dreamvideo2_{number:03}.png"
    shutil.copyfile(video, movie)
    contact_sheet(frames).save(sheet)
    return movie, sheet


def work(job: Job, server: ComfyServer) -> None:
    if not TEMPLATE.is_file():
        raise JobError(f"This copy of the pack is incomplete: {TEMPLATE} is missing.")
    workflow = json.loads(TEMPLATE.read_text())
    if job.subject is not None:
        check_picture(job.subject)
    print("Starting ComfyUI ...", flush=True)
    begun = time.time()
    server.start()
    ready = time.time()
    print(f"ComfyUI is ready at {server.url} after {ready - begun:.1f} s; running {TEMPLATE.name}", flush=True)
    info = server.get("/object_info")
    fill_in(workflow, info, job, server.base / "input")
    prompt = to_prompt(workflow, info)
    outputs = asyncio.run(run_prompt(server, prompt, workflow))
    movie, sheet = collect(server, prompt, outputs, Path(job.out).expanduser().resolve())
    memory = server.peak_memory()
    now = time.time()
    print(f"\nVideo:         {movie}\nContact sheet: {sheet}")
    print(f"Time:          {now - job.started:.1f} s from the start of the command, {now - ready:.1f} s of it the run")
    print("Memory:        " + (f"{memory / 2**20:.0f} MB, the server's peak" if memory else "not told by this system"))


def main() -> int:
    job = Job(**json.loads(sys.argv[1]))
    base = Path(tempfile.mkdtemp(prefix="dreamvideo2-"))
    server = ComfyServer(Path(sys.executable), Path(job.comfyui), REPO, base, job.port)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    keep = False
    try:
        work(job, server)
        keep = job.keep
        return 0
    except (JobError, ServerError, WorkflowError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    finally:
        if keep and server.process is not None:
            print(f"\nComfyUI keeps running: open {server.url} and choose Workflow > Browse Templates > dreamvideo2.")
            print(f"Its files are in {base}. To stop it: kill {server.process.pid}")
        else:
            server.stop()
            shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
