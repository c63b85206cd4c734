"""Checkpoints: one safetensors file with everything, written whole or not at all, that runs no code when loaded.

Tensors (networks, optimizers, generator, replay) are safetensors entries; all else is JSON in the header. Each has a
checksum. A checkpoint is taken where an episode ends, so no environment needs to be stored, and a run that is resumed
from one goes on to the same numbers, bit for bit, on the same machine and threads.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
import torch
from safetensors import SafetensorError
from torch import Tensor

from agents.loop.divergence import require_converging, require_finite_tensors
from agents.loop.fitting import (
    WithinReason,
    capacities_of,
    checked_settings,
    entries_of,
    require_config,
    require_spaces_within,
    require_state,
)
from agents.loop.header import COUNTERS, FORMAT, TEXT, header_of
from agents.loop.known_methods import methods_from, require_same_methods
from agents.loop.restoring import RESTORING
from agents.loop.rollback import unharmed
from agents.loop.spaces import NoEnvironment, describe_space, space_of
from agents.loop.structure import take_structure
from agents.loop.versions import versions
from agents.nets.moments import optimizer_state, require_moments
from budget_wrappers.errors import BudgetError, CheckpointError, UntrustedFileError
from budget_wrappers.files import opened_to_read
from budget_wrappers.tensor_files import checksum, read_metadata, read_tensors, write_tensors

SUFFIX = ".safetensors"
CODE_RUNNING = {b"PK\x03\x04": "a zip archive, as torch.save and Stable-Baselines3 write", b"\x80": "a Python pickle"}
# A safetensors file starts with eight bytes of length, which may be anything, and then its header.
HEADER_AT, HEADER_START = 8, b"{"

Agent = TypeVar("Agent")


# ---- writing --------------------------------------------------------------------------------------------------------


def save_agent(agent: Any, path: str | Path, replay: bool = False, extra: Mapping[str, Any] | None = None) -> Path:
    """Write ``agent`` to ``path``, whole or not at all: what was there stays until the new file is complete.

    Args:
        agent: an ``OffPolicyAgent``.
        path: of the file; ``.safetensors`` is added where it has no suffix.
        replay: also write the replay, which resuming to the same numbers needs.
        extra: JSON-able data to store beside it; ``read_header`` returns it.

    Returns:
        The path that was written.

    Raises:
        CheckpointError: the file cannot be written, or a state that is neither tensors nor JSON-able.
        NonFiniteError: training has diverged; an earlier file of that name stays.
    """
    path = with_suffix(path)
    require_converging(agent)
    tensors, header = state_of_agent(agent, replay)
    header["extra"] = dict(extra or {})
    try:
        write_tensors(path, TEXT, header, tensors)
    except TypeError as error:
        raise CheckpointError(
            f"the state of {type(agent).__name__} is not plain data ({error}): expected numbers, strings, lists and "
            "dictionaries; return tensors through `modules` or plain data from plain_state"
        ) from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write the checkpoint {path} ({error}): expected a writable folder with space left; "
            "an earlier file of that name is unharmed, free some space or choose another folder"
        ) from error
    return path


def with_suffix(path: str | Path) -> Path:
    """Return ``path``, with ``.safetensors`` where it has no suffix."""
    path = Path(path)
    return path if path.suffix else path.with_suffix(SUFFIX)


def state_of_agent(agent: Any, replay: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return everything of ``agent`` as named CPU tensors and as plain data."""
    tensors: dict[str, Tensor] = {"generator": agent.generator.get_state()}
    plain_optimizers = {}
    for name, module in agent.modules.items():
        tensors |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in agent.optimizers.items():
        state = optimizer.state_dict()
        plain: dict[str, Any] = {}
        for index, entry in state["state"].items():
            for key, value in entry.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{name}/{index}/{key}"] = value
                else:
                    plain[f"{index}/{key}"] = value
        plain_optimizers[name] = {"groups": state["param_groups"], "plain": plain}
    tensors |= {f"metric/{name}": torch.as_tensor(value) for name, value in agent.metrics.items()}
    # Clones, because safetensors refuses tensors that share memory, which tied networks do.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    if replay:
        # No clones here: a full replay is most of the file.
        stored = agent.replay.state_dict()
        tensors |= {f"replay/{key}": value.detach().cpu().contiguous() for key, value in stored.items()}
    header = {
        "format": FORMAT,
        "agent": type(agent).__name__,
        "config": agent.config.to_dict(),
        "spaces": {
            "observation": describe_space(agent.observation_space),
            "action": describe_space(agent.action_space),
        },
        "counters": {name: getattr(agent, name) for name in COUNTERS},
        "rng": agent.rng.bit_generator.state,
        "meter": agent.meter.state_dict(),
        "optimizers": plain_optimizers,
        "plain": agent.plain_state(),
        "replay": replay,
        "versions": versions(),
    }
    # Only where there is something to say: files of plain agents are what they were.
    header |= {"methods": given} if (given := agent.methods_given) else {}
    header |= {"structure": sizes} if (sizes := agent.structure) else {}
    return tensors, header


# ---- reading --------------------------------------------------------------------------------------------------------


def read_header(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint holds besides tensors: agent, config, spaces, counters, versions, ``extra``.

    Raises:
        CheckpointError: the file is missing, truncated, damaged or not a checkpoint of this package.
        UntrustedFileError: a pickle or a zip, which run code when they are loaded.
    """
    return read(path, tensors=False)[0]


def read(path: str | Path, tensors: bool = True, replay: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a checkpoint, checked against their checksums.

    Args:
        path: of the file.
        tensors: whether to read any.
        replay: whether those of the replay too, which are most of the file.
    """
    path = with_suffix(path)
    refuse_code(path)
    header = header_of(path, read_metadata(path))

    def wanted(name: str) -> bool:
        return tensors and (replay or not name.startswith("replay/"))

    return header, read_tensors(path, header["crc32"], wanted)


def refuse_code(path: Path) -> None:
    """Raise for formats that run code when they are loaded, and for files that are not there."""
    try:
        # The user may name a link. Whatever it leads to, a pipe would be waited for without end.
        with opened_to_read(Path(os.path.realpath(path))) as file:
            start = file.read(HEADER_AT + 1)
    except OSError as error:
        raise CheckpointError(
            f"cannot read the checkpoint {path} ({error.strerror}): expected a file that `save` wrote; check the path"
        ) from error
    if start[HEADER_AT:] == HEADER_START:
        return
    for magic, what in CODE_RUNNING.items():
        if start.startswith(magic):
            raise UntrustedFileError(
                f"{path} is {what}: expected a safetensors checkpoint of this package. Such a file can run any code "
                "when it is loaded, so it is not opened. If you trust who made it, open a Stable-Baselines3 zip with "
                "budget_wrappers.integrations.sb3.load(path, trust=True), on the command line with --trust, and any "
                "other with the library that wrote it"
            )


def load_agent(
    cls: type[Agent], path: str | Path, env: Any, meter: Any = None, *, replay: bool = True, **parts: Any
) -> Agent:
    """Return the agent of class ``cls`` that ``save_agent`` wrote.

    Args:
        cls: class of the agent.
        path: of the file.
        env: to train or act in; ``None`` for an agent that only predicts.
        meter: see ``OffPolicyAgent``.
        replay: whether to read the replay, where the file has one; acting needs none.
        parts: the modules that the saved agent was given instead of the textbook networks, by name; and its methods,
            where they are not this package's.

    Raises:
        CheckpointError: a file that is truncated, foreign, of another agent, for other spaces or other networks.
        UntrustedFileError: a pickle or a zip, which run code when they are loaded.
    """
    header, tensors = read(path, replay=replay)
    require_class(header, cls.__name__, path)
    settings, numbers = checked_settings(cls, header["config"], path), entries_of(tensors)
    if env is None:
        require_spaces_within(header["spaces"], numbers, path)
        env = NoEnvironment(*(space_of(header["spaces"][name], path) for name in ("observation", "action")))
    else:
        require_spaces(header, env, path)
    methods = {name: given for name, given in header.get("methods", {}).items() if name not in parts}
    made = methods_from(cls, methods, str(path))
    token = RESTORING.set(True)
    try:
        with WithinReason(path, numbers, capacities_of(settings)):
            agent = cls(env, meter=meter, **settings, **made, **parts)
    except (RuntimeError, MemoryError, OverflowError) as error:
        if isinstance(error, BudgetError):
            raise
        raise CheckpointError(
            f"{path}: no {cls.__name__} can be made of its configuration ({error!r}): expected one that `save` wrote, "
            "and the memory and device that it needs"
        ) from error
    finally:
        RESTORING.reset(token)
    restore(agent, header, tensors, path)
    return agent


def restore_agent(agent: Any, path: str | Path) -> dict[str, Any]:
    """Bring ``agent`` to the state of the checkpoint, in place, and return the ``extra`` data stored beside it.

    Raises:
        CheckpointError: a checkpoint of another agent, configuration, space or network; the agent is as it was.
    """
    header, tensors = read(path)
    require_class(header, type(agent).__name__, path)
    require_spaces(header, agent.env, path)
    require_config(header, agent.config, type(agent).__name__, path)
    restore(agent, header, tensors, path)
    return header["extra"]


def require_class(header: Mapping[str, Any], name: str, path: str | Path) -> None:
    """Raise unless the checkpoint is one of ``name``."""
    if header["agent"] != name:
        raise CheckpointError(
            f"{path} holds an agent {header['agent']}: expected {name}; load it with {header['agent']}.load"
        )


def require_spaces(header: Mapping[str, Any], env: Any, path: str | Path) -> None:
    """Raise unless ``env`` has the spaces that the checkpoint's agent was made for."""
    vector = isinstance(env, gym.vector.VectorEnv)
    for name in ("observation", "action"):
        space = getattr(env, f"single_{name}_space" if vector else f"{name}_space")
        if json.loads(json.dumps(describe_space(space))) != header["spaces"][name]:
            raise CheckpointError(
                f"{path} is for the {name} space {header['spaces'][name]}, the environment has {space}: expected the "
                "same; pass the environment, with the wrappers, that it was trained in"
            )


def restore(agent: Any, header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Put ``tensors`` and the plain data of ``header`` into ``agent``, after everything was checked."""
    require_same_methods(header.get("methods", {}), agent.methods_given, str(path))
    with unharmed(agent, path):
        take_structure(agent, header.get("structure", {}), tensors, path)
        _restore(agent, header, tensors, path)


def _restore(agent: Any, header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | Path) -> None:
    networks: dict[str, Tensor] = {}
    tolerated: set[str] = set()
    for name, module in agent.modules.items():
        own = {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
        networks |= own
        tolerated |= own.keys() if getattr(module, "tolerates_divergence", False) else set()
    require_same_tensors(networks, {n: t for n, t in tensors.items() if n.startswith("module/")}, path)
    require_finite_tensors({name: own for name, own in networks.items() if name not in tolerated}, tensors, path)
    if set(header["optimizers"]) != set(agent.optimizers):
        raise CheckpointError(
            f"{path} holds the optimizers {sorted(header['optimizers'])}: expected {sorted(agent.optimizers)}; "
            "make the agent with the configuration that it was saved with"
        )
    states = {name: optimizer_state(name, header["optimizers"][name], tensors, path) for name in agent.optimizers}
    for name, optimizer in agent.optimizers.items():
        require_moments(name, optimizer, states[name], path)
    if "generator" not in tensors:
        raise CheckpointError(f"{path} lacks generator: expected the generator's state; take a file that `save` wrote")
    require_state(agent, header, tensors, path)
    with torch.no_grad():
        # In place, because the numpy acting engine looks at the parameters' memory.
        for name, value in networks.items():
            value.copy_(tensors[name])
    for name, optimizer in agent.optimizers.items():
        optimizer.load_state_dict(states[name])
    agent.generator.set_state(tensors["generator"])
    agent.rng.bit_generator.state = header["rng"]
    agent.metrics = {n.removeprefix("metric/"): t for n, t in tensors.items() if n.startswith("metric/")}
    agent.meter.load_state_dict(header["meter"])
    for counter in COUNTERS:
        setattr(agent, counter, header["counters"][counter])
    agent.load_plain_state(header["plain"])
    stored = {n.removeprefix("replay/"): t for n, t in tensors.items() if n.startswith("replay/")}
    # An offline agent that is loaded without its data only acts.
    if stored and not (agent.offline and len(agent.replay) == 0):
        agent.replay.load_state_dict(stored)


def require_same_tensors(own: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise unless ``stored`` has the names, shapes and types of ``own``."""
    remedy = "make the agent with the networks that it was saved with (load takes them by name, as the agent does)"
    for what, names in (("lacks", own.keys() - stored.keys()), ("has the unknown", stored.keys() - own.keys())):
        if names:
            raise CheckpointError(f"{path} {what} {', '.join(sorted(names)[:3])}: expected the same networks; {remedy}")
    for name, value in own.items():
        if stored[name].shape != value.shape or stored[name].dtype != value.dtype:
            raise CheckpointError(
                f"{path}: {name} is {stored[name].dtype} {tuple(stored[name].shape)}: expected {value.dtype} "
                f"{tuple(value.shape)}; {remedy}"
            )


__all__ = [
    "checksum",
    "load_agent",
    "read",
    "read_header",
    "refuse_code",
    "require_class",
    "restore_agent",
    "save_agent",
    "state_of_agent",
    "with_suffix",
]
