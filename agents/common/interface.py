"""Where an agent meets its environment: spaces it accepts, observations as arrays, and the meter they share."""

from collections.abc import Mapping

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from budget_wrappers.errors import SpaceError
from budget_wrappers.metering import ComputeMeter, get_meter


def meter_for(env: gym.Env | VectorEnv | None, meter: ComputeMeter | str | None) -> ComputeMeter:
    """Return the meter given, else the one that the environment's wrappers read, else a new one."""
    if isinstance(meter, str):
        return get_meter(meter)
    if meter is not None:
        return meter
    if isinstance(env, gym.Wrapper) and env.has_wrapper_attr("compute_accounts"):
        return env.get_wrapper_attr("compute_accounts")[0].meter
    if isinstance(env, gym.Wrapper) and env.has_wrapper_attr("meter"):
        return env.get_wrapper_attr("meter")
    return ComputeMeter()


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
            f"{agent} got the action space {action}: expected a {wanted.__name__} space; "
            + ("use SAC or TD3 (CQL on data)" if discrete else "use DQN (DiscreteCQL on data)")
        )
    if not discrete and not action.is_bounded():
        raise SpaceError(
            f"the action space {action} has no bounds: expected finite low and high; "
            "wrap the environment in gymnasium.wrappers.RescaleAction or ClipAction"
        )
    parts = list(observation.values()) if isinstance(observation, spaces.Dict) else [observation]
    if not all(isinstance(part, spaces.Box) and len(part.shape) == 1 for part in parts):
        raise SpaceError(
            f"{agent} got the observation space {observation}: expected a Box of one dimension, or a Dict "
            "of such; wrap the environment in gymnasium.wrappers.FlattenObservation"
        )
