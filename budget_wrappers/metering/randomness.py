"""Random numbers for a run that must not use up anybody's: generators of its own, wherever torch lets one be given."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

SEEDED = torch.Tag.nondeterministic_seeded


class OwnGenerators:
    """Draws what torch's global generators would draw next, and leaves those where they are.

    The generators of torch, NumPy and Python are one each for all threads of a process. Putting one back after a run
    would make another thread draw the same numbers twice.
    """

    def __init__(self) -> None:
        self._own: dict[torch.device, torch.Generator] = {}
        self._twins: dict[OpOverload, OpOverload | None] = {}

    def run(self, op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a random operator returns."""
        if op.overloadpacket is torch.ops.aten.native_dropout:
            return self._dropout(*args, **kwargs)
        twin = self._twin(op)
        if twin is None or _given(op, args, kwargs) is not None:
            return op(*args, **kwargs)
        return twin(*args[: _position(op)], **{**kwargs, "generator": self._of(_device(args, kwargs))})

    def _twin(self, op: OpOverload) -> OpOverload | None:
        """Return the overload of ``op`` that takes a generator, ``None`` where there is none."""
        if op not in self._twins:
            self._twins[op] = _with_generator(op)
        return self._twins[op]

    def _of(self, device: torch.device) -> torch.Generator:
        if device not in self._own:
            own = torch.Generator(device)
            own.set_state(torch.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device))
            self._own[device] = own
        return self._own[device]

    def _dropout(self, x: Tensor, p: float, train: bool | None = None) -> tuple[Tensor, Tensor]:
        """Return what ``native_dropout`` returns: no overload of it takes a generator."""
        if train is False:
            return x.clone(), torch.ones_like(x, dtype=torch.bool)
        kept = torch.empty_like(x).bernoulli_(1 - p, generator=self._of(x.device))
        return x * kept * (1 / (1 - p) if p < 1 else 0.0), kept.to(torch.bool)


def _with_generator(op: OpOverload) -> OpOverload | None:
    wanted = [argument.name for argument in op._schema.arguments]
    if "generator" in wanted:
        return op
    for name in op.overloadpacket.overloads():
        twin = getattr(op.overloadpacket, name)
        names = [argument.name for argument in twin._schema.arguments]
        if "generator" in names and [one for one in names if one != "generator"] == wanted:
            return twin
    return None


def _position(op: OpOverload) -> int | None:
    """Return how many positional arguments stand before a generator that ``op`` takes by position."""
    names = [argument.name for argument in op._schema.arguments if not argument.kwarg_only]
    return names.index("generator") if "generator" in names else None


def _given(op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if kwargs.get("generator") is not None:
        return kwargs["generator"]
    return next((value for value in args if isinstance(value, torch.Generator)), None)


def _device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    for value in args:
        if isinstance(value, Tensor):
            return value.device
    return torch.device(kwargs.get("device") or "cpu")


@contextmanager
def as_before() -> Iterator[None]:
    """Put the global generators of torch, NumPy and Python back at the end, where no other thread can draw from them.

    A forward that draws from NumPy's or Python's global generator, or that seeds one, is seen by nobody; with other
    threads alive these generators go on from wherever they are.
    """
    if threading.active_count() > 1:
        yield
        return
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's code may draw from it
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


__all__ = ["SEEDED", "OwnGenerators", "as_before"]
