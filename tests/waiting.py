"""Whether a computation would make a GPU and Python wait for each other, found on a machine without a GPU.

Tensors of the meta device stand for the GPU's: torch refuses to read one's values (``item``, ``bool``, ``cpu``) and
whatever has a shape that depends on values. What else waits, a tensor or list brought from the CPU, is refused here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("meta")


class Waited(AssertionError):
    """Something was brought to the GPU."""


class NeverWaiting(TorchDispatchMode):
    """Raises :class:`Waited`, or torch's own error, where a GPU and Python would wait for each other."""

    def __enter__(self) -> NeverWaiting:
        self._calls = _Calls()
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._calls.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # A number in a tensor of the CPU without dimensions travels with the kernel's arguments.
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor) and leaf.ndim]
        if len({tensor.device for tensor in tensors}) > 1:
            raise Waited(f"{func} has tensors of {[str(tensor.device) for tensor in tensors]}")
        return out


class _Calls(TorchFunctionMode):
    """What is copied below the level of operations."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        made = func in (torch.tensor, torch.as_tensor) and torch.device(given.get("device") or "cpu") == GPU
        listed = func is Tensor.__getitem__ and args[0].device == GPU and any(
            isinstance(index, list) for index in (args[1] if isinstance(args[1], tuple) else (args[1],))
        )  # fmt: skip
        if made or listed:
            raise Waited(f"{func.__name__} copies values from Python to the GPU")
        return func(*args, **given)
