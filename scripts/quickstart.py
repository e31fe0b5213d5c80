"""One command from a fresh clone to a video: your subject, moving along your boxes.

    python3.11 scripts/quickstart.py
    python3.11 scripts/quickstart.py --subject cat.png --boxes path.json --prompt "a cat on the grass" --seed 7

It sets up a private ComfyUI in .cache (or uses the one that COMFYUI_PATH names), starts it with this pack, runs
workflows/dv2_subject_on_a_path.json and writes an mp4 and a contact sheet. Standard library only: the work itself is
done by quickstart_job.py in the environment that this sets up.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from setup_env import SetupError, ensure_environment

REPO = Path(__file__).resolve().parents[1]
MAX_SEED = 2**64 - 1


def boxes_json(text: str) -> str:
    """JSON given as it is, or the path of a file that holds it."""
    path = Path(text).expanduser()
    try:
        if path.is_file():
            text = path.read_text()
    except OSError:  # the JSON itself, too long for a file name
        pass
    try:
        json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is neither a file nor JSON ({error})") from None
    return text


def image_file(text: str) -> str:
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return str(path)


def in_range(low: int, high: int):
    def number(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return number


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A video of your subject moving along your boxes, in a real ComfyUI.")
    parser.add_argument("--subject", type=image_file, metavar="IMAGE", help="picture of the subject (default: bundled)")
    parser.add_argument("--boxes", type=boxes_json, metavar="JSON|FILE", help="boxes (default: the template's path)")
    parser.add_argument("--prompt", metavar="TEXT", help="what happens in the video (default: the template's text)")
    parser.add_argument("--seed", type=in_range(0, MAX_SEED), metavar="N", help="another seed, another video")
    parser.add_argument("--out", default=str(REPO / "output"), metavar="DIR", help="where to write (default: output/)")
    parser.add_argument("--keep", action="store_true", help="leave the server running and print its URL")
    parser.add_argument("--port", type=in_range(1, 65535), metavar="N", help="port of the server (default: a free one)")
    return parser.parse_args()


def main() -> int:
    started = time.time()
    arguments = parse_arguments()
    try:
        env = ensure_environment(REPO)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on with the set-up.", file=sys.stderr)
        return 130
    # Time spent installing is not part of a run: it happens once.
    started = time.time() if time.time() - started > 5 else started
    job = {**vars(arguments), "comfyui": str(env.comfyui), "started": started}
    python = str(env.python)
    os.execv(python, [python, str(REPO / "scripts" / "quickstart_job.py"), json.dumps(job)])


if __name__ == "__main__":
    raise SystemExit(main())
