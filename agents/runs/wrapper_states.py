"""What the wrappers of a training environment learn while it runs, for checkpoints: any with ``state_dict()``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorWrapper

from budget_wrappers.errors import CheckpointError


def stateful_layers(env: gym.Env | VectorEnv) -> Iterator[tuple[str, Any]]:
    """Yield each wrapper of ``env`` that has a state, under its class name and place from outside.

    Those around the single environments of a vector environment in this process come after its own, with their row.
    """
    place, layer = 0, env
    while isinstance(layer, gym.Wrapper | VectorWrapper):
        if callable(getattr(layer, "state_dict", None)) and callable(getattr(layer, "load_state_dict", None)):
            yield f"{type(layer).__name__}.{place}", layer
        place, layer = place + 1, layer.env
    if isinstance(layer, VectorEnv):
        for row, single in enumerate(getattr(layer, "envs", ())):
            for name, inner in stateful_layers(single):
                yield f"{row}/{name}", inner


def kept_states(env: gym.Env | VectorEnv) -> dict[str, Any]:
    """Return what a checkpoint keeps of the wrappers of ``env``: ``{"wrappers": states}``, or nothing without any."""
    states = {name: layer.state_dict() for name, layer in stateful_layers(env)}
    states = {name: state for name, state in states.items() if state}
    return {"wrappers": states} if states else {}


def load_states(env: gym.Env | VectorEnv, extra: dict[str, Any], path: str | Path) -> None:
    """Give the wrappers of ``env`` their states back.

    Args:
        env: made as the one that was saved.
        extra: of the checkpoint, with what ``kept_states`` returned.
        path: of the checkpoint, for the message.

    Raises:
        CheckpointError: states of wrappers that ``env`` does not have, or no state of one that has any.
    """
    states, layers = extra.get("wrappers", {}), dict(stateful_layers(env))
    expected = sorted(name for name, layer in layers.items() if layer.state_dict())
    if expected != sorted(states):
        raise CheckpointError(
            f"{path} holds the state of the wrappers {sorted(states)}, and those of the environment are {expected}: "
            "expected the same; resume with the environment, and the wrappers, that it was trained in"
        )
    for name, state in states.items():
        layers[name].load_state_dict(state)


def show_states(env: gym.Env, extra: dict[str, Any]) -> None:
    """Give the wrappers of an environment to evaluate in what training has left, where they are the same ones."""
    for name, layer in stateful_layers(env):
        if name in extra.get("wrappers", {}):
            layer.load_state_dict(extra["wrappers"][name])


__all__ = ["kept_states", "load_states", "show_states", "stateful_layers"]
