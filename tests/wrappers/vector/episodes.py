"""One story told twice: what happens in each environment of a batch, and in the same one run singly.

The policy is a function of an observation, so it does the same in both. A story is a list of events per environment:
resets and steps, with everything that is handed out. A vector wrapper is right when its stories begin those of the
scalar wrapper, to the digit; in which step a reset is told differs by autoreset mode, and only that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import iterate

from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.vector.modes import find_in_vector

MODES = ("NextStep", "SameStep", "Disabled")
Event = tuple[Any, ...]


class RandomLengthEnv(gym.Env):
    """Episodes of 1 to ``longest`` steps, ended in both ways; observations, rewards and one info are random.

    A step's info has its action, too.

    Each reset draws all that its episode will draw, so an episode is the same however far the one before was stepped.
    """

    def __init__(self, longest: int = 9, space: spaces.Space | None = None) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32) if space is None else space
        self.action_space = spaces.Discrete(3)
        self._longest, self._left = longest, 0

    def _observe(self) -> Any:
        self.observation_space.seed(int(self._random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._random = np.random.default_rng(int(self.np_random.integers(2**31)))
        self._left = int(self._random.integers(1, self._longest + 1))
        return self._observe(), {"own": np.float64(self._random.random())}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        over, cut = self._left == 0, bool(self._random.random() < 0.5)
        reward = float(self._random.normal())
        return (
            self._observe(),
            reward,
            over and not cut,
            over and cut,
            {"own": np.float64(self._random.random() + action)},
        )


def first_number(observation: Any) -> float:
    """Return one number in [0, 1] of an observation."""
    leaf = observation
    while isinstance(leaf, dict | tuple):
        leaf = next(iter(leaf.values())) if isinstance(leaf, dict) else leaf[0]
    return float(np.clip(np.ravel(leaf)[0], 0.0, 1.0))


def cost_of(observation: Any, largest: int = 10**9) -> int:
    """Return what acting on one observation costs: nothing at times, else another number each, up to ``largest``."""
    return int(max(1.25 * first_number(observation) - 0.25, 0.0) * largest)


@dataclass
class Policy:
    """Costs what ``cost_of`` says, charged in one of four ways that come to the same.

    Attributes:
        meter: charged.
        way: ``"batch"`` by row; ``"rows"`` one after the other; ``"parts"`` under two names, of which only some rows
            run the second; ``"exits"`` each row under the name of the way it took.
        executed: by whatever ran, as the policy itself counts.
        wasted: of that, on rows that only reset.
    """

    meter: ComputeMeter
    way: str = "batch"
    executed: int = 0
    wasted: int = 0
    names: tuple[str, ...] = field(default=("gate", "deep"))

    def __post_init__(self) -> None:
        for name in self.names if self.way in ("parts", "exits") else ():
            self.meter.add(0, name, rows=0)  # known from the start, singly and in a batch

    def act(self, observations: Sequence[Any], resetting: Sequence[bool] = ()) -> np.ndarray:
        """Charge the meter for the rows and return an action each; note what those that reset will have cost."""
        costs = [cost_of(observation) for observation in observations]
        actions = np.array([cost % 3 for cost in costs])
        if self.way == "parts":
            gate = [cost // 3 for cost in costs]
            deep = [(cost - part) * (cost % 2) for cost, part in zip(costs, gate, strict=True)]
            costs = [one + other for one, other in zip(gate, deep, strict=True)]
        self.executed += sum(costs)
        self.wasted += sum(cost for cost, wasted in zip(costs, resetting, strict=False) if wasted)
        rows, meter = len(costs), self.meter
        if self.way == "batch":
            meter.add(sum(costs), rows=rows, by_row=costs)
        elif self.way == "rows":
            for cost in costs:
                meter.add(cost)
        elif self.way == "parts":
            meter.add(sum(gate), "gate", rows, by_row=gate)
            if any(deep):
                meter.add(sum(deep), "deep", rows, by_row=deep)
        else:
            for cost in costs:
                meter.add(cost, self.names[cost % 2])
        return actions


def told_of(infos: dict[str, Any], row: int) -> dict[str, Any]:
    """Return what one environment reports, by the masks."""
    told = {}
    for key, value in infos.items():
        if key.startswith("_") or key in ("final_info", "final_obs") or not infos[f"_{key}"][row]:
            continue
        told[key] = told_of(value, row) if isinstance(value, dict) else value[row]
    return told


def batch_stories(envs: VectorEnv, mode: str, policy: Policy, steps: int, seed: int) -> list[list[Event]]:
    """Run a vector environment and return the story of each of its environments."""
    n = envs.num_envs
    stories: list[list[Event]] = [[] for _ in range(n)]
    space = envs.observation_space

    def tell_resets(observations: Any, infos: dict[str, Any], rows: Any) -> None:
        single = list(iterate(space, observations))
        for row in rows:
            stories[row].append(("reset", copied(single[row]), told_of(infos, row)))

    observations, infos = envs.reset(seed=seed)
    tell_resets(observations, infos, range(n))
    resetting = np.zeros(n, bool)
    for _ in range(steps):
        actions = policy.act(list(iterate(space, observations)), resetting)
        observations, rewards, terminations, truncations, infos = envs.step(actions)
        over = np.logical_or(terminations, truncations)
        single = list(iterate(space, observations))
        for row in np.flatnonzero(~resetting):
            last = mode == "SameStep" and over[row]
            seen = infos["final_obs"][row] if last else single[row]
            told = told_of(infos["final_info"] if last else infos, row)
            flags = bool(terminations[row]), bool(truncations[row])
            stories[row].append(("step", copied(seen), np.array(rewards[row]), *flags, told))
        if mode == "NextStep":
            tell_resets(observations, infos, np.flatnonzero(resetting))
            assert not rewards[resetting].any()
            resetting = over
        elif mode == "SameStep":
            tell_resets(observations, infos, np.flatnonzero(over))
        elif over.any():
            options = {"reset_mask": over.copy()}
            observations, infos = envs.reset(options=options)
            assert options["reset_mask"].tolist() == over.tolist()  # the caller's dictionary is as it was
            tell_resets(observations, infos, np.flatnonzero(over))
    envs.close()
    return stories


def single_story(env: gym.Env, policy: Policy, events: int, seed: int) -> list[Event]:
    """Run one environment with the scalar wrapper and return as many events."""
    story: list[Event] = []
    observation, info = env.reset(seed=seed)
    story.append(("reset", copied(observation), info))
    while len(story) < events:
        (action,) = policy.act([observation])
        observation, reward, terminated, truncated, info = env.step(action)
        story.append(("step", copied(observation), np.array(reward), terminated, truncated, info))
        if (terminated or truncated) and len(story) < events:
            observation, info = env.reset()
            story.append(("reset", copied(observation), info))
    return story


def copied(observation: Any) -> Any:
    """Return a copy: vector environments may hand out one array again and again."""
    if isinstance(observation, dict):
        return {key: copied(value) for key, value in observation.items()}
    return tuple(map(copied, observation)) if isinstance(observation, tuple) else np.array(observation)


Make = Callable[[Any, ComputeMeter], Any]


def both_stories(
    scalar: Make,
    vector: Make,
    make_env: Callable[[], gym.Env],
    make_envs: Callable[[list[Callable[[], gym.Env]], str], VectorEnv],
    mode: str,
    *,
    n: int = 3,
    steps: int = 60,
    seed: int = 0,
    way: str = "batch",
) -> tuple[list[list[Event]], list[list[Event]], Policy]:
    """Return the stories of a batch, those of its environments run singly, and the policy that acted on the batch."""
    policy = Policy(ComputeMeter("tests.batch"), way)
    envs = vector(make_envs([make_env] * n, mode), policy.meter)
    batch = batch_stories(envs, mode, policy, steps, seed)
    if (flops := find_in_vector(envs, "choice_flops")) is not None:  # sub-policies ran, too, where a step told so
        told = [event[-1]["option"] for story in batch for event in story if event[0] == "step"]
        policy.executed += sum(int(flops[int(index)]) for index in told)
    singles = []
    for row, story in enumerate(batch):
        meter = ComputeMeter("tests.batch")
        singles.append(single_story(scalar(make_env(), meter), Policy(meter, way), len(story), seed + row))
    return batch, singles, policy
