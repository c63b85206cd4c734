"""Sub-policies that remember: each acts 0, 1, 0, … within an episode, so a wrong beginning shows at once."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from budget_wrappers.policies import AgentPolicy, FunctionPolicy, ModulePolicy


class Counting:
    """An agent whose memory is handed back: the number of steps that it has acted in this episode."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> Any:
        steps = np.zeros(np.shape(observation)[:-1], np.int64) if state is None else state + 1
        return steps % 2, steps


class Kept:
    """A function that keeps its memory in itself."""

    def __init__(self) -> None:
        self.steps = 0

    def reset(self) -> None:
        self.steps = 0

    def __call__(self, observation: Any) -> int:
        self.steps += 1
        return (self.steps - 1) % 2


class KeptInModule(torch.nn.Module):
    """A module that keeps its memory in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))

    def reset(self) -> None:
        self.steps.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layer(x)
        self.steps += 1
        return (self.steps - 1) % 2


def handed_back(batched: bool = False) -> AgentPolicy:
    return AgentPolicy(Counting(), 5, "memory", batched=batched)


def in_function() -> FunctionPolicy:
    return FunctionPolicy(Kept(), 5, "memory")


def in_module() -> ModulePolicy:
    return ModulePolicy(KeptInModule(), lambda net, obs: net(obs), np.zeros(4, np.float32), "memory")


def rule(action: Any, flops: int = 1) -> FunctionPolicy:
    return FunctionPolicy(lambda observation: action, flops, f"rule {flops}")


class Spied(gym.Wrapper):
    """Notes the actions that the environment takes, an episode a list."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.taken: list[list[int]] = []

    def reset(self, **kwargs: Any) -> Any:
        self.taken.append([])
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> Any:
        self.taken[-1].append(int(action))
        return self.env.step(action)


def cartpole(steps: int = 3) -> Spied:
    return Spied(gym.make("CartPole-v1", max_episode_steps=steps))
