"""Ctrl-C and SIGTERM: finish the step, save, leave."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, the first signal is only noted in ``signal``; a second one does what it always did."""

    def __init__(self) -> None:
        self.signal = 0
        self._process = os.getpid()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        try:
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        except ValueError:  # not the main thread: whoever started this thread handles signals
            self._handlers = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        if os.getpid() == self._process:  # not in the data's workers, which inherit this handler
            print(f"{signal.Signals(number).name}: stopping after this step; once more stops at once.", flush=True)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
