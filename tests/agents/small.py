"""Agents and environments small enough that a hundred updates take a second."""

from typing import Any

import gymnasium as gym

from agents import DQN, SAC, TD3
from tests.gymnasium_versions import AutoresetMode, mode_arguments

SETTINGS: dict[str, Any] = {
    "net_arch": (8, 8),
    "batch_size": 16,
    "learning_starts": 40,
    "buffer_size": 500,
    "seed": 3,
}
CASES: dict[str, tuple[type, str, dict[str, Any]]] = {
    "sac": (SAC, "Pendulum-v1", {}),
    "td3": (TD3, "Pendulum-v1", {"n_step": 3}),
    "dqn": (DQN, "CartPole-v1", {"prioritized": True, "dueling": True, "n_step": 3, "train_freq": 4}),
}
EPISODE = 25


def make_env(env_id: str) -> gym.Env:
    """Return an environment whose episodes end after ``EPISODE`` steps at the latest."""
    return gym.make(env_id, max_episode_steps=EPISODE)


def make_vector(env_id: str, mode: str) -> gym.vector.VectorEnv:
    """Return three environments in the autoreset mode ``mode``."""
    return gym.make_vec(
        env_id,
        num_envs=3,
        vectorization_mode="sync",
        max_episode_steps=EPISODE,
        vector_kwargs=mode_arguments(AutoresetMode[mode]),
    )


def make_agent(name: str, env: Any = None, **settings: Any) -> Any:
    """Return the agent of a case, with its settings and any others."""
    agent_class, env_id, own = CASES[name]
    return agent_class(make_env(env_id) if env is None else env, **{**SETTINGS, **own, **settings})
