"""All checks of this repository, from a fresh clone on:

    python3.11 scripts/test.py
    python3.11 scripts/test.py tests/unit -k boxes

Sets up what is missing in .cache, then runs the linter, the formatter's check, the type checker and pytest (unit tests,
tests in ComfyUI, a real server with a real browser). Arguments go to pytest; paths among them replace the default ones.
"""

import os
import subprocess
import sys
from pathlib import Path

from setup_env import SetupError, ensure_environment
from setup_tests import ensure_test_environment

REPO = Path(__file__).resolve().parents[1]
TESTS = ("tests/unit", "tests/engine", "tests/app")


def main() -> int:
    try:
        env = ensure_environment(REPO)
        variables = ensure_test_environment(REPO, env)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on with the set-up.", file=sys.stderr)
        return 130
    checks = {
        "ruff check": ("-m", "ruff", "check", "."),
        "ruff format --check": ("-m", "ruff", "format", "--check", "."),
        "pyright": ("-m", "pyright", "--project", ".", "--pythonpath", env.python),
    }
    # One thread: the tests' tensors are tiny, and on a busy machine waiting threads cost twice the time of the work.
    environment = {"OMP_NUM_THREADS": "1", **os.environ, **variables}
    failed = []
    for name, arguments in checks.items():
        print(f"[{name}]", flush=True)
        if subprocess.run([env.python, *arguments], cwd=REPO, env=environment).returncode != 0:
            failed.append(name)
    given = sys.argv[1:]
    paths = () if any((REPO / argument.split("::")[0]).exists() for argument in given) else TESTS
    print("[pytest]", flush=True)
    # In the repository: --confcutdir in pyproject.toml is relative to the working directory.
    result = subprocess.run([env.python, "-m", "pytest", *paths, *given], cwd=REPO, env=environment).returncode
    if failed:
        print(f"Failed before the tests, see above: {', '.join(failed)}", file=sys.stderr)
    return result or (1 if failed else 0)


if __name__ == "__main__":
    raise SystemExit(main())
