"""Penalties of compute in Stable-Baselines3's hindsight replay, which computes rewards anew for other goals.

A reward under another goal is the environment's ``compute_reward``, without any penalty that a wrapper took off the one
that was stored. What was taken off is what the stored reward lacks of ``compute_reward`` under the goal of the time; it
does not depend on the goal, so it is taken off the new reward, too.
"""

import importlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np

from budget_wrappers.errors import ConfigError
from budget_wrappers.integrations.attaching import attach, detach, is_attached
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import ComputePenaltyReward, SubPolicyAction
from budget_wrappers.wrappers.vector import ComputePenaltyReward as VectorPenalty
from budget_wrappers.wrappers.vector import SubPolicyAction as VectorOptions


def keep_penalties(model: Any, meter: ComputeMeter, before: Any) -> Any:
    """Have the hindsight replay of ``model`` keep penalties, where its environment has any; return that replay.

    Args:
        model: of ``stable_baselines3``.
        meter: of the model.
        before: what this returned the last time.

    Raises:
        ConfigError: penalties that rewards of other goals cannot have: with a floor, of options of several steps, on
            rewards that are normalised as they are stored.
    """
    replay = getattr(model, "replay_buffer", None)
    known = importlib.import_module("stable_baselines3.her.her_replay_buffer").HerReplayBuffer
    if not isinstance(replay, known) or model.get_env() is None or not penalises(model.get_env()):
        if before is not None:
            detach(before)
        return None
    if replay is before:
        return before
    if before is not None:
        detach(before)
    if not is_attached(replay):
        attach(replay, meter, {"_get_virtual_samples": _penalised(type(replay))})
    return replay


def penalises(venv: Any) -> bool:
    """Tell whether wrappers of a ``VecEnv``, in whichever process, take compute off its rewards.

    Raises:
        ConfigError: see ``keep_penalties``.
    """
    penalties = [layer for layer in _layers(venv) if getattr(layer, "weight", 0) > 0]
    for layer in penalties:
        _refuse("a floor", getattr(layer, "floor", None) is not None)
        _refuse("options of several steps", tuple(getattr(layer, "durations", (1,))) != (1,))
    return bool(penalties)


def _layers(venv: Any) -> Iterator[Any]:
    """Yield the wrappers of ours that take compute off the rewards of a ``VecEnv``, or what is known of them."""
    envs = getattr(venv.unwrapped, "envs", None)
    for env in envs or ():
        while isinstance(env, gym.Wrapper):
            if isinstance(env, ComputePenaltyReward | SubPolicyAction):
                yield env
            env = env.env
    yield from (layer for layer in _vector_layers(venv) if isinstance(layer, VectorPenalty | VectorOptions))
    if envs is not None:
        return
    for kind, names in ((ComputePenaltyReward, ("weight", "floor")), (SubPolicyAction, ("weight", "durations"))):
        if any(venv.env_is_wrapped(kind)):  # in other processes: what the outermost wrapper of that name says
            values = zip(*(venv.unwrapped.get_attr(name) for name in names), strict=True)
            yield from (SimpleNamespace(**dict(zip(names, row, strict=True))) for row in values)


def _refuse(what: str, there: bool) -> None:
    if there:
        raise ConfigError(
            f"hindsight replay over penalties with {what}: expected penalties that are the same under every goal. "
            f"Leave {what} out, or use ReplayBuffer in place of HerReplayBuffer"
        )


def _vector_layers(venv: Any) -> Iterator[Any]:
    """Yield the vector wrappers that ``sb3_vec.wrapped`` has put around a ``VecEnv``."""
    while venv is not None:
        layer = vars(venv).get("_envs")
        while layer is not None:
            yield layer
            layer = getattr(layer, "env", None)
        venv = vars(venv).get("venv")


def _penalised(base: type) -> Any:
    def virtual(self: Any, batch_indices: np.ndarray, env_indices: np.ndarray, env: Any = None) -> Any:
        samples = base._get_virtual_samples(self, batch_indices, env_indices, env)
        infos: Any = [{} for _ in batch_indices]
        if self.copy_info_dict:
            infos = self.infos[batch_indices, env_indices]
        then = {
            key: self.next_observations[key][batch_indices, env_indices] for key in ("achieved_goal", "desired_goal")
        }
        (raw,) = self.env.env_method("compute_reward", then["achieved_goal"], then["desired_goal"], infos, indices=[0])
        stored = self.rewards[batch_indices, env_indices]
        penalty = (np.asarray(raw, np.float64).reshape(-1) - stored).reshape(-1, 1)
        if env is not None and env.norm_reward:
            _refuse("rewards that VecNormalize scales", True)
        return samples._replace(rewards=samples.rewards - self.to_torch(penalty.astype(np.float32)))

    return virtual


__all__ = ["keep_penalties", "penalises"]
