"""Environments and sub-policies for the wrappers' tests, all registered, so that specs can make them again."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from budget_wrappers.core import Choice
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies import ExitPolicy, FunctionPolicy, register_sub_policy

KINDS = ("box", "discrete", "multidiscrete", "dict", "tuple")
HORIZON = 12


def space(kind: str) -> gym.Space:
    """Return a small space of a kind."""
    return {
        "box": lambda: spaces.Box(-1.0, 1.0, (3,), np.float32),
        "discrete": lambda: spaces.Discrete(4),
        "multidiscrete": lambda: spaces.MultiDiscrete([3, 2]),
        "dict": lambda: spaces.Dict({"position": spaces.Box(-1.0, 1.0, (2,), np.float32), "mode": spaces.Discrete(2)}),
        "tuple": lambda: spaces.Tuple((spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(2))),
    }[kind]()


class SpacesEnv(gym.Env):
    """Observations drawn from a space of the kind; the reward is the number of the step, so sums are known."""

    metadata: ClassVar = {"render_modes": []}

    def __init__(self, kind: str = "box", end_at: int | None = None, info: dict[str, float] | None = None) -> None:
        self.observation_space = space(kind)
        self.action_space = space(kind)
        self._source = space(kind)
        self._end_at = end_at
        self._info = info or {}
        self.steps = 0
        self.actions: list[Any] = []
        self.resets: list[dict[str, Any]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._source.seed(int(self.np_random.integers(2**31)))
        self.steps = 0
        self.actions = []
        self.resets.append({"seed": seed, "options": options})
        return self._source.sample(), dict(self._info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.actions.append(action)
        return self._source.sample(), float(self.steps), self.steps == self._end_at, False, dict(self._info)


for kind in KINDS:
    gym.register(
        f"budget_tests/{kind}-v0",
        entry_point="tests.wrappers.environments:SpacesEnv",
        kwargs={"kind": kind},
        max_episode_steps=HORIZON,
    )


def constant_action(kind: str) -> Any:
    """Return one legal action of a kind, the same each time."""
    return {
        "box": np.full(3, 0.5, np.float32),
        "discrete": 1,
        "multidiscrete": np.array([1, 0]),
        "dict": {"position": np.zeros(2, np.float32), "mode": 1},
        "tuple": (np.zeros(2, np.float32), 1),
    }[kind]


class Constant:
    """A sub-policy that always does the same; not a closure, so that it can be pickled."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, observation: Any) -> Any:
        return constant_action(self._kind)


CHEAP, DEAR = 10, 40


def cheap(kind: str) -> FunctionPolicy:
    """Return a sub-policy of 10 FLOPs a call."""
    return FunctionPolicy(Constant(kind), flops=CHEAP, name="cheap")


def dear(kind: str) -> FunctionPolicy:
    """Return a sub-policy of 40 FLOPs a call."""
    return FunctionPolicy(Constant(kind), flops=DEAR, name="dear")


for kind in KINDS:
    register_sub_policy(f"cheap-{kind}", lambda kind=kind: cheap(kind))
    register_sub_policy(f"dear-{kind}", lambda kind=kind: dear(kind))


class Alternating:
    """A selector that picks the first and the last of two sub-policies in turn, at 70 FLOPs a choice."""

    flops = 70

    def __init__(self, duration: int = 1) -> None:
        self._duration, self._asked = duration, 0

    def __call__(self, observation: Any) -> Choice:
        self._asked += 1
        return Choice(self._asked % 2, self.flops, self._duration)


register_sub_policy("alternating", Alternating)


class Flat:
    """One observation of a kind as an array; not a closure, so that it can be pickled."""

    def __init__(self, kind: str) -> None:
        self._space = space(kind)

    def __call__(self, observation: Any) -> np.ndarray:
        return spaces.flatten(self._space, observation)


def exits(kind: str = "box", hidden: tuple[int, ...] = (4,)) -> ExitPolicy:
    """Return the exits of one network; of the kind "box" they act by what it says, else always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = EarlyExitNetwork(spaces.flatdim(space(kind)), 3, hidden, activation="tanh")
    return ExitPolicy(network, np.tanh if kind == "box" else Constant(kind), Flat(kind))


for kind in KINDS:
    register_sub_policy(f"exits-{kind}", lambda kind=kind: exits(kind))
register_sub_policy("deep-exits-box", lambda: exits(hidden=(4, 4)))


def make(kind: str = "box", **kwargs: Any) -> gym.Env:
    """Return the registered environment of a kind: 12 steps, rewards 1, 2, 3, …"""
    return gym.make(f"budget_tests/{kind}-v0", **kwargs)


class OneArray(gym.ObservationWrapper):
    """Writes each observation into the same array, as environments written for speed do."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.array = np.zeros(env.observation_space.shape, env.observation_space.dtype)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        self.array[:] = observation
        return self.array
