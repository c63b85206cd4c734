"""What a checkpoint asks for, compared with what it holds and with the agent, before memory is asked for or filled."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from agents.loop.header import COUNTERS
from budget_wrappers.errors import BudgetError, CheckpointError, ConfigError
from budget_wrappers.files import is_number
from budget_wrappers.metering import ComputeMeter

REMEDY = "take a file that `save` wrote"

GROWTH, ROOM = 1_000, 2**24
"""Networks may ask for as many times the numbers that the file holds (pruned layers were larger before), and more."""

MAKING = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


class WithinReason(TorchFunctionMode):
    """Refuses tensors of the networks that a checkpoint cannot be about, before they get memory.

    Args:
        path: of the checkpoint, for the message.
        numbers: entries of all the checkpoint's networks.
        capacity: first dimension of the replay's arrays, which are as long as the configuration says.

    Raises:
        CheckpointError: more entries are asked for than ``GROWTH`` times those of the file, and ``ROOM``.
    """

    def __init__(self, path: str | Path, numbers: int, capacities: Sequence[int]) -> None:
        super().__init__()
        self.path, self.left, self.numbers, self.capacities = path, GROWTH * numbers + ROOM, numbers, set(capacities)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func``, which may make a tensor, if there is room for it."""
        kwargs = kwargs or {}
        if func in MAKING:
            size = kwargs.get("size", args[0] if args and isinstance(args[0], (tuple, list)) else args)
            whole = [length for length in size if isinstance(length, int)]
            # Arrays of the replay get no memory until they are written.
            if not whole or whole[0] not in self.capacities:
                self.left -= math.prod(whole)
            if self.left < 0:
                raise CheckpointError(
                    f"{self.path} has a configuration whose networks ask for a tensor of shape {tuple(whole)}: "
                    f"expected networks like those in the file, of {self.numbers} numbers in all; {REMEDY}"
                )
        return func(*args, **kwargs)


def entries_of(tensors: Mapping[str, Tensor]) -> int:
    """Return how many numbers the networks of a checkpoint have."""
    return sum(tensor.numel() for name, tensor in tensors.items() if name.startswith("module/"))


def capacities_of(settings: Mapping[str, Any]) -> list[int]:
    """Return the lengths of the replays that settings ask for."""
    return [value for key, value in settings.items() if key.endswith("buffer_size")]


def checked_settings(cls: Any, stored: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Return the settings of an agent, every one of which is a key of its configuration.

    Raises:
        CheckpointError: another key, which would be another argument of the constructor, or a value out of bounds.
    """
    try:
        return cls.config_class.of(stored).to_dict()
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration is not one of {cls.__name__} ({error}); {REMEDY}") from error


def require_config(header: Mapping[str, Any], config: Any, name: str, path: str | Path) -> None:
    """Raise unless the checkpoint's agent, of the class ``name``, was made with ``config``.

    Raises:
        CheckpointError: with the first key that differs.
    """
    own = json.loads(json.dumps(config.to_dict()))
    # A key that a later version has added means its default, which does what was done before.
    stored = {**json.loads(json.dumps(type(config)().to_dict())), **header["config"]}
    if unknown := sorted(stored.keys() - own.keys()):
        raise CheckpointError(
            f"{path} was made with {', '.join(unknown)}, which {name} does not have: expected the keys "
            "of its configuration; take a file that `save` wrote"
        )
    for key, value in own.items():
        if value != stored[key]:
            raise CheckpointError(
                f"{path} was made with {key}={stored[key]!r}, the agent has {key}={value!r}: expected the same "
                f"configuration; make the agent with {key}={stored[key]!r} or use load"
            )


def require_spaces_within(spaces: Mapping[str, Any], numbers: int, path: str | Path) -> None:
    """Raise for spaces of more entries than the networks of the file can see, before their bounds are made.

    Raises:
        CheckpointError: a space larger than that, or a shape that is not one.
    """
    for shape in _shapes_in(spaces):
        sound = all(type(length) is int and length >= 0 for length in shape)
        if not sound or math.prod(shape) > max(numbers, ROOM):
            raise CheckpointError(
                f"{path} is for a space of shape {tuple(shape)}: expected one that its networks, of {numbers} numbers, "
                f"can see; {REMEDY}"
            )


def _shapes_in(description: Any) -> Iterator[list[Any]]:
    if isinstance(description, Mapping):
        for key, value in description.items():
            if key == "shape" and isinstance(value, list):
                yield value
            elif key == "n":
                yield [value]
            else:
                yield from _shapes_in(value)


# ---- an agent's state -----------------------------------------------------------------------------------------------


def require_state(agent: Any, header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise unless everything of a checkpoint besides networks and optimizers can be put into ``agent``.

    Raises:
        CheckpointError: counters, generators, an account, metrics or a replay of another form.
    """
    _require_counters({key: header["counters"][key] for key in COUNTERS}, path)
    try:
        _require_whole(header["rng"])
        np.random.default_rng(0).bit_generator.state = header["rng"]
        torch.Generator(agent.device).set_state(tensors["generator"])
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: the state of a generator is not one ({error!r}): expected what numpy's and torch's generators "
            f"return; {REMEDY}"
        ) from error
    try:
        _require_whole(header["meter"])
        ComputeMeter().load_state_dict(header["meter"])
    except (BudgetError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: the account is not one ({error}): {REMEDY}") from error
    for name, value in tensors.items():
        if name.startswith("metric/") and value.numel() != 1:
            raise CheckpointError(f"{path}: {name} has the shape {tuple(value.shape)}: expected one number; {REMEDY}")
    require_alike(agent.plain_state(), header["plain"], "plain", path)
    stored = {n.removeprefix("replay/"): t for n, t in tensors.items() if n.startswith("replay/")}
    if stored and not (agent.offline and len(agent.replay) == 0):
        _require_replay(agent.replay, stored, path)


def _require_whole(data: Any) -> None:
    """Raise ``ValueError`` for an inner entry that is neither a whole number of 0 or more nor a text."""
    for value in data.values():
        if isinstance(value, Mapping):
            _require_whole(value)
        elif not isinstance(value, str) and (type(value) is not int or value < 0):
            raise ValueError(f"{value!r} where a whole number of 0 or more belongs")


def _require_counters(counters: Mapping[str, Any], path: str | Path) -> None:
    for name, value in counters.items():
        if type(value) is not int or not 0 <= value < 2**63:
            raise CheckpointError(f"{path}: {name}={value!r}: expected a whole number of 0 or more; {REMEDY}")


def require_alike(own: Any, stored: Any, where: str, path: str | Path) -> None:
    """Raise unless ``stored`` is plain data of the form that ``own`` has.

    Mappings have the same keys (an earlier version may have written fewer), lists the same length. Where one is a
    number, the other is a finite one: whole and 0 or more where the own is whole; ``None`` may stand for a fraction.

    Raises:
        CheckpointError: with the first place that differs.
    """
    expected = None
    if isinstance(own, Mapping):
        if isinstance(stored, Mapping) and stored.keys() <= own.keys():
            for key, value in stored.items():
                require_alike(own[key], value, f"{where}.{key}", path)
            return
        expected = f"a mapping with the keys {', '.join(map(str, own))}"
    elif isinstance(own, (list, tuple)):
        if isinstance(stored, (list, tuple)) and len(stored) == len(own):
            for place, (mine, value) in enumerate(zip(own, stored, strict=True)):
                require_alike(mine, value, f"{where}.{place}", path)
            return
        expected = f"a list of {len(own)}"
    elif isinstance(own, (bool, str)):
        expected = None if type(stored) is type(own) else f"a {type(own).__name__}"
    elif isinstance(own, int):
        expected = None if type(stored) is int and 0 <= stored < 2**63 else "a whole number of 0 or more"
    elif not all(one is None or is_number(one) for one in _each(stored)):
        expected = "a finite number or null, or a list of them"
    if expected is not None:
        raise CheckpointError(f"{path}: {where} is {stored!r}: expected {expected}; {REMEDY}")


def _each(stored: Any) -> list[Any]:
    return stored if isinstance(stored, list) else [stored]


# ---- replays --------------------------------------------------------------------------------------------------------

NOT_ROWS = ("position", "highest", "ranks", "order", "transitions")
"""Entries of a replay's state that do not have one row for each transition."""


def _require_replay(replay: Any, stored: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise unless a replay's state has the arrays, types, widths and places of ``replay``."""
    own = replay.state_dict()
    optional = {name for name in own.keys() | stored.keys() if name.split("/")[-1] == "acted_by"}
    if different := (own.keys() ^ stored.keys()) - optional:
        raise CheckpointError(
            f"{path}: the replay has {', '.join(sorted(stored))}: expected the same as the agent's, not another "
            f"{', '.join(sorted(different)[:3])}; {REMEDY}"
        )
    for prefix, buffer in _buffers_in(replay):
        part = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
        mine = {name.removeprefix(prefix): value for name, value in own.items() if name.startswith(prefix)}
        size = _size_of(part, buffer.capacity, path)
        for name, value in part.items():
            like = mine.get(name, torch.empty(0, dtype=torch.int16))
            shape = like.shape if name in NOT_ROWS else (size, *like.shape[1:])
            if tuple(value.shape) != tuple(shape) or value.dtype != like.dtype:
                raise CheckpointError(
                    f"{path}: the replay's {prefix}{name} is {value.dtype} {tuple(value.shape)}: expected {like.dtype} "
                    f"{tuple(shape)}; {REMEDY}"
                )
        for name, low in (("follower", -1), ("order", 0), ("acted_by", -1), ("duration", 0)):
            most = {"follower": size, "order": buffer.capacity}.get(name, 2**15)
            value = part.get(name)
            if value is not None and value.numel() and not (low <= int(value.min()) and int(value.max()) < most):
                raise CheckpointError(f"{path}: the replay's {prefix}{name} holds places outside of it; {REMEDY}")


def _buffers_in(replay: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the rings of a replay with what their entries begin with."""
    if hasattr(replay, "replays"):
        for name, one in replay.replays.items():
            yield from _buffers_in(one, f"{prefix}{name}/")
    else:
        yield prefix, getattr(replay, "replay", replay)


def _size_of(part: Mapping[str, Tensor], capacity: int, path: str | Path) -> int:
    """Return how many transitions a ring's state has."""
    place = part.get("position")
    if place is None:
        return 0  # offline: the data are on disk
    if place.dtype != torch.int64 or tuple(place.shape) != (2,):
        raise CheckpointError(f"{path}: the replay's position is {place}: expected two whole numbers; {REMEDY}")
    position, size = place.tolist()
    if not (0 <= size <= capacity and 0 <= position < capacity and (size == capacity or position == size)):
        raise CheckpointError(
            f"{path}: the replay's position is {position} and its size {size}: expected those of a ring of {capacity}; "
            f"{REMEDY}"
        )
    return size


__all__ = [
    "WithinReason",
    "capacities_of",
    "checked_settings",
    "entries_of",
    "require_alike",
    "require_spaces_within",
    "require_state",
]
