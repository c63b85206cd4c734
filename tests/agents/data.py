"""Transitions made up for tests of offline agents."""

import numpy as np

from agents.loop.agent import OffPolicyAgent
from agents.replay.dataset import Transitions


def random_transitions(agent: OffPolicyAgent, count: int, length: int = 10, seed: int = 0) -> Transitions:
    """Return ``count`` random transitions in episodes of ``length``, every second of which terminates."""
    rng = np.random.default_rng(seed)
    size = agent.observation_shape[0]
    last = np.arange(count) % length == length - 1
    odd = np.arange(count) // length % 2 == 1
    if agent.discrete:
        action = rng.integers(agent.action_space.n, size=count)
    else:
        action = rng.uniform(-1, 1, (count, *agent.action_space.shape)).astype(np.float32)
    return Transitions(
        observation=rng.normal(size=(count, size)).astype(np.float32),
        action=action,
        reward=rng.normal(size=count).astype(np.float32),
        next_observation=rng.normal(size=(count, size)).astype(np.float32),
        terminated=last & odd,
        truncated=last & ~odd,
        returns=np.zeros(count // length),
    )
