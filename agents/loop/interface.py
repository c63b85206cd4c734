"""Where an agent meets its environment: spaces it accepts, observations as arrays, and the meter they share."""

import math
from collections.abc import Mapping

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper

from budget_wrappers.arguments import an_instance, refuse
from budget_wrappers.errors import MeterError, SpaceError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers.account import StepAccount
from budget_wrappers.wrappers.observation import flattens
from budget_wrappers.wrappers.vector.account import VectorAccount
from budget_wrappers.wrappers.vector.modes import find_in_vector


def meter_for(env: gym.Env | VectorEnv | None, meter: ComputeMeter | str | None) -> ComputeMeter:
    """Return the meter given, else the one that the environment's wrappers read, else a new one.

    Raises:
        ConfigError: ``env`` has no spaces, ``meter`` is no meter.
    """
    if not all(hasattr(env, name) for name in ("observation_space", "action_space")):
        refuse("env", env, "a Gymnasium environment or vector environment")
    an_instance("meter", meter, ComputeMeter | str, "a ComputeMeter or its name", optional=True)
    if isinstance(meter, str):
        return get_meter(meter)
    if meter is not None:
        return meter
    if accounts := accounts_of(env):
        return accounts[0].meter
    if isinstance(env, gym.Wrapper) and env.has_wrapper_attr("meter"):
        return env.get_wrapper_attr("meter")
    return ComputeMeter()


def require_meter(env: gym.Env | VectorEnv, meter: ComputeMeter) -> None:
    """Raise if the wrappers of ``env`` read another meter than the one that an agent charges: all costs would be 0.

    Raises:
        MeterError: with both meters.
    """
    read = accounts_of(env)
    if read and all(account.meter is not meter for account in read):
        raise MeterError(
            f"the wrappers of {env} read meter {read[0].meter.name!r} and the agent charges another one, "
            f"{meter.name!r}: every cost would be 0. Wrap the environment with meter=agent.meter"
        )


def accounts_of(env: gym.Env | VectorEnv | None) -> tuple[StepAccount | VectorAccount, ...]:
    """Return the accounts of the wrappers of ``env`` that read a meter."""
    if isinstance(env, VectorWrapper):
        return find_in_vector(env, "compute_accounts", ())
    if isinstance(env, gym.Wrapper) and env.has_wrapper_attr("compute_accounts"):
        return env.get_wrapper_attr("compute_accounts")
    return ()


def joined(observation: Mapping[str, np.ndarray], keys: list[str]) -> np.ndarray:
    """Return the entries ``keys`` of a dictionary, one beside the other along the last axis, as float32.

    Raises:
        SpaceError: an entry is missing.
    """
    if not isinstance(observation, Mapping) or any(key not in observation for key in keys):
        found = sorted(observation) if isinstance(observation, Mapping) else type(observation).__name__
        raise SpaceError(f"the observation has {found}: expected a dictionary with {keys}; pass what env.step returns")
    return np.concatenate([np.asarray(observation[key], dtype=np.float32) for key in keys], axis=-1)


def require_spaces(agent: str, observation: gym.Space, action: gym.Space, discrete: bool) -> None:
    """Raise unless an agent can use both spaces.

    Args:
        agent: its name, for the message.
        observation: must be a Box of one dimension, or a Dict of such.
        action: must be Discrete where ``discrete``, else a bounded Box.
        discrete: the kind of actions the agent takes.

    Raises:
        SpaceError: with the space, what was expected and the wrapper that mends it.
    """
    wanted = spaces.Discrete if discrete else spaces.Box
    if not isinstance(action, wanted):
        raise SpaceError(
            f"{agent} got the action space {action}: expected a {wanted.__name__} space; {_act_by(action)}"
        )
    if not discrete and not (len(action.shape) == 1 and action.is_bounded() and (action.low < action.high).all()):
        raise SpaceError(
            f"{agent} got the action space {action}: expected a Box of one dimension with finite low < high; give the "
            "environment one with gymnasium.wrappers.TransformAction(env, function, Box(-1.0, 1.0, (A,)))"
        )
    parts = list(observation.values()) if isinstance(observation, spaces.Dict) else [observation]
    if not all(isinstance(part, spaces.Box) and len(part.shape) == 1 for part in parts):
        raise SpaceError(
            f"{agent} got the observation space {observation}: expected a Box of one dimension, or a Dict "
            f"of such; {_observe_by(observation)}"
        )


def _act_by(action: gym.Space) -> str:
    """Return what to do about actions of another kind than an agent takes."""
    if isinstance(action, spaces.Box):
        return "use SAC or TD3 (CQL on data)"
    if isinstance(action, spaces.Discrete):
        return "use DQN (DiscreteCQL on data)"
    if isinstance(action, spaces.MultiDiscrete | spaces.MultiBinary):
        many = isinstance(action, spaces.MultiDiscrete)
        choices = action.nvec.ravel().tolist() if many else [2] * int(np.prod(action.shape))
        start = f" + np.array({action.start.ravel().tolist()})" if many and action.start.any() else ""
        unravel = f"(np.array(np.unravel_index(index, {choices})){start}).reshape({action.shape})"
        return (
            "number its combinations, env = gymnasium.wrappers.TransformAction(env, "
            f"lambda index: {unravel}, gymnasium.spaces.Discrete({math.prod(choices)})), and use DQN"
        )
    return (
        "give the environment a Box or a Discrete one by gymnasium.wrappers.TransformAction(env, function, space), "
        "where function makes an action of the environment of an element of space"
    )


def _observe_by(observation: gym.Space) -> str:
    """Return what to do about observations that are no vectors."""
    if flattens(observation):
        return "wrap the environment in gymnasium.wrappers.FlattenObservation"
    if isinstance(observation, spaces.Dict):
        kept = [key for key, part in observation.spaces.items() if flattens(part)]
        if kept:
            return (
                "leave out what has no fixed length, gymnasium.wrappers.FlattenObservation("
                f"gymnasium.wrappers.FilterObservation(env, {kept}))"
            )
    return (
        "make vectors of its elements by gymnasium.wrappers.TransformObservation(env, function, "
        "gymnasium.spaces.Box(-np.inf, np.inf, (length,), np.float32))"
    )


def require_same_spaces(env: gym.Env | VectorEnv, observation: gym.Space, action: gym.Space) -> None:
    """Raise unless ``env`` (each one of a vector environment) has these spaces.

    Raises:
        SpaceError: with both.
    """
    vector = isinstance(env, VectorEnv)
    found = (
        (env.single_observation_space, env.single_action_space) if vector else (env.observation_space, env.action_space)
    )
    if found != (observation, action):
        raise SpaceError(
            f"{env} has the spaces {found[0]} and {found[1]}: expected {observation} and {action}, for which the "
            "agent was made; make a new agent for this environment"
        )
