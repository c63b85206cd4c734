"""Agents that are given methods, small and quick: what the tables of agents × methods are made of."""

from typing import Any

import gymnasium as gym

from agents import CQL, DQN, SAC, TD3, DiscreteCQL, Exits, PolyPrune, Units
from agents.loop.method import Method
from agents.loop.offline import FixedReplay
from tests.agents.data import random_transitions

STEPS = 600
SETTINGS: dict[str, Any] = {"net_arch": (16, 16), "batch_size": 16, "learning_starts": 100, "seed": 3}
AGENTS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "sac": (SAC, "Pendulum-v1", {}),
    "td3": (TD3, "Pendulum-v1", {}),
    "dqn": (DQN, "CartPole-v1", {"train_freq": 1}),
    "cql": (CQL, "Pendulum-v1", {"action_samples": 2}),
    "discrete-cql": (DiscreteCQL, "CartPole-v1", {"train_freq": 1}),
}
"""Name -> class, environment, settings beside ``SETTINGS``."""


FINAL = 0.6
"""Sparsity that leaves a path through every layer of these small networks, also where units go."""


def polyprune(**settings: Any) -> PolyPrune:
    """Return pruning that a run of 600 steps sees from begin to end."""
    return PolyPrune(**{"final": FINAL, "every": 20, "start": 0.2, "end": 0.8, **settings})


def units(**settings: Any) -> Units:
    """Return units that learn in the middle of a run of 600 steps."""
    return Units(**{"max_parameters": 150, "prune_every": 25, "learn_from": 0.3, "fix_from": 0.8, **settings})


METHODS: dict[str, Any] = {
    "polyprune": lambda: [polyprune()],
    "exits+polyprune": lambda: [Exits(budget=0.4, gate_loss="mixture", gate_loss_scale=1.0), polyprune()],
    "exits+units+polyprune": lambda: [
        Exits(budget=0.4, gate_loss="mixture", gate_loss_scale=1.0),
        units(),
        polyprune(),
    ],
}
"""Name -> a function that makes them anew."""


def made(name: str, methods: list[Method], **settings: Any) -> Any:
    """Return an agent; offline ones hold 400 random transitions."""
    agent_class, env, own = AGENTS[name]
    agent = agent_class(gym.make(env), methods=methods, **{**SETTINGS, **own, **settings})
    if agent.offline:
        config = agent.config
        agent.replay = FixedReplay(random_transitions(agent, 400), discrete=agent.discrete, gamma=config.gamma)
    return agent
