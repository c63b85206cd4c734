"""Hindsight experience replay (Andrychowicz et al. 2017), strategy "future", relabelled when it is sampled.

Of every ``k + 1`` sampled transitions, ``k`` get a goal that their own episode reached later, and the reward that the
environment pays for it. Everything is index arithmetic on arrays; the environment's ``compute_reward`` is called once
a batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.wrappers import NormalizeReward
from torch import Tensor

from agents.replay.buffers import Batch, ReplayBuffer
from budget_wrappers.arguments import a_count, a_function, an_instance
from budget_wrappers.errors import ConfigError, NonFiniteError, SpaceError
from budget_wrappers.functional.finite import LARGEST, storable

GoalReward = Callable[[np.ndarray, np.ndarray], np.ndarray]


class GoalSlices(NamedTuple):
    """Where the goals stand in a joined observation.

    Attributes:
        achieved: of the goal that the state satisfies.
        desired: of the goal that is asked for.
    """

    achieved: slice
    desired: slice


def goal_slices(space: gym.Space, n_step: int = 1) -> GoalSlices:
    """Return where ``achieved_goal`` and ``desired_goal`` stand in the joined observations of ``space``.

    Raises:
        SpaceError: observations without goals.
        ConfigError: ``n_step`` above 1, whose windows cross goals.
    """
    keys = ("achieved_goal", "desired_goal")
    if not isinstance(space, spaces.Dict) or any(key not in space.spaces for key in keys):
        raise SpaceError(
            f"hindsight got the observation space {space}: expected a Dict with {' and '.join(keys)}; "
            "set hindsight=0 or use an environment with goals"
        )
    if n_step > 1:
        raise ConfigError(
            f"n_step={n_step} with hindsight: expected n_step=1, as a relabelled goal changes every reward of a "
            "window; set n_step=1 or hindsight=0"
        )
    found, start = {}, 0
    for key, part in space.items():
        found[key] = slice(start, start + part.shape[0])
        start += part.shape[0]
    return GoalSlices(found["achieved_goal"], found["desired_goal"])


def goal_reward(env: Any) -> GoalReward:
    """Return the environment's ``compute_reward`` as a function of achieved and desired goals ``(n, G)``.

    The function raises NonFiniteError for a reward that is not finite in float32.

    Raises:
        ConfigError: an environment without one, or with a wrapper around it that changes rewards.
    """
    first = env.envs[0] if isinstance(env, gym.vector.VectorEnv) and hasattr(env, "envs") else env
    layer = first
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, (gym.RewardWrapper, NormalizeReward)) or getattr(layer, "weight", 0):
            raise ConfigError(
                f"hindsight recomputes rewards by {first.unwrapped!r}.compute_reward, which knows nothing of "
                f"{layer.class_name()} around it: real and relabelled rewards would differ. Take that wrapper off, or "
                "change the reward inside compute_reward, or set hindsight=0"
            )
        layer = layer.env
    compute = getattr(first.unwrapped, "compute_reward", None)
    if compute is None:
        raise ConfigError(
            f"hindsight needs the rewards of other goals, and {first.unwrapped!r} has no compute_reward: expected "
            "compute_reward(achieved_goal, desired_goal, info) of batches; add it or set hindsight=0 (a vector "
            "environment must be a SyncVectorEnv)"
        )

    def rewards(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        paid = np.asarray(compute(achieved, desired, {}))
        require_payable(paid, LARGEST)
        return paid.astype(np.float32, copy=False)

    return rewards


def require_payable(paid: np.ndarray, largest: float, over: str = "") -> None:
    """Raise unless every reward of another goal is finite in float32 and at most ``largest``.

    Raises:
        NonFiniteError: with the rewards, the bound and the remedy.
    """
    if not storable(paid, largest):
        raise NonFiniteError(
            f"the reward that compute_reward returns for other goals{over} is {paid!r}: expected finite numbers in "
            f"float32, of at most {largest:.3g} so that what is learnt from them is finite, too; scale the rewards of "
            "the environment's compute_reward, lower reward_scale, or set hindsight=0"
        )


class HindsightReplay(ReplayBuffer):
    """A ring of transitions with goals; transitions can be sampled once their episode is over.

    The places of each finished episode stand in ``order``, one after the other, at positions that only grow (ranks,
    taken modulo the capacity). A later step of the same episode is a rank between the transition's own and its
    episode's end. Later steps are overwritten later, so a transition that is still there has its whole future.

    A relabelled transition keeps its ``terminated``, as in Stable-Baselines3: where success ends the episode, that is
    the success of the goal that was asked for.

    Args:
        capacity, observation_shape, action_shape, settings: see ``ReplayBuffer``.
        goals: where the goals stand in an observation.
        reward_of: rewards of achieved and desired goals.
        relabelled: k, transitions with another goal for each one with its own.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: tuple[int, ...],
        action_shape: tuple[int, ...],
        goals: GoalSlices,
        reward_of: GoalReward,
        relabelled: int = 4,
        **settings: Any,
    ) -> None:
        an_instance("goals", goals, GoalSlices, "GoalSlices")
        a_function("reward_of", reward_of)
        a_count("relabelled", relabelled)
        super().__init__(capacity, observation_shape, action_shape, **settings)
        self.goals, self.reward_of = goals, reward_of
        self.share = relabelled / (relabelled + 1)
        self.order = np.zeros(capacity, dtype=np.int64)
        self.rank = np.full(capacity, -1, dtype=np.int64)
        self.end = np.zeros(capacity, dtype=np.int64)
        self.ranks = 0
        self._finished = 0
        self._serial = np.full(capacity, -1, dtype=np.int64)
        self._stored = 0
        self._open: dict[int, list[tuple[int, int]]] = {}

    def __len__(self) -> int:
        """Return the number of transitions whose episode is over."""
        return self._finished

    def add(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_observation: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        streams: Sequence[int] = (0,),
    ) -> None:
        """Store ``n`` transitions; see ``ReplayBuffer.add``."""
        self.require_storable(observation, action, reward, next_observation)
        for row, stream in enumerate(streams):
            place = (self.position + row) % self.capacity
            self._finished -= int(self.rank[place] >= 0)
            self.rank[place] = -1
            self._serial[place] = self._stored
            self._open.setdefault(stream, []).append((place, self._stored))
            self._stored += 1
        super().add(observation, action, reward, next_observation, terminated, truncated, streams)
        for row, stream in enumerate(streams):
            if terminated[row] or truncated[row]:
                self._close(stream)

    def forget_unfinished(self) -> None:
        """Close every open episode: what was seen of it can be sampled."""
        super().forget_unfinished()
        for stream in list(self._open):
            self._close(stream)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Return ``batch_size`` transitions, the first ``k/(k + 1)`` of them with a goal reached later."""
        index = self._draw(batch_size, generator)
        batch = self.gather(index)
        count = int(self.share * batch_size)
        future = self._future(index[:count], generator)
        return self.relabel(batch, future)

    def relabel(self, batch: Batch, future: Tensor) -> Batch:
        """Return ``batch`` with the goals achieved after the transitions ``future`` in its first rows.

        Args:
            batch: of ``gather``.
            future: places, shape ``(n,)`` with ``n`` at most the size of the batch.
        """
        achieved, desired = self.goals
        count = len(future)
        goal = self.next_observation[future][:, achieved]
        observation, following = batch.observation.clone(), batch.next_observation.clone()
        observation[:count, desired] = goal
        following[:count, desired] = goal
        reward = batch.reward.clone()
        reward[:count] = self.rewards_under(batch.index[:count], goal)
        return batch._replace(observation=observation, next_observation=following, reward=reward)

    def rewards_under(self, index: Tensor, goal: Tensor) -> Tensor:
        """Return what the transitions at ``index`` ``(n,)`` are paid when asked for ``goal`` ``(n, G)``.

        Raises:
            NonFiniteError: a reward above ``largest_reward``.
        """
        reached = self.next_observation[index][:, self.goals.achieved].cpu().numpy()
        paid = np.asarray(self.reward_of(reached, goal.cpu().numpy()))
        require_payable(paid, self.largest_reward)
        return torch.as_tensor(paid, device=self.device)

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` places of finished episodes, uniformly; ranks whose place was overwritten are redrawn."""
        oldest = max(self.ranks - self.capacity, 0)
        drawn = np.empty(0, dtype=np.int64)
        while len(drawn) < count:
            size = (2 * (count - len(drawn)),)
            rank = torch.randint(oldest, self.ranks, size, generator=generator, device=self.device).cpu().numpy()
            place = self.order[rank % self.capacity]
            drawn = np.concatenate([drawn, place[self.rank[place] == rank]])
        return torch.from_numpy(drawn[:count]).to(self.device)

    def _future(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return for each place one of the same episode, at or after it, uniformly."""
        at = index.cpu().numpy()
        rank, end = self.rank[at], self.end[at]
        share = torch.rand(len(at), generator=generator, device=self.device, dtype=torch.float64).cpu().numpy()
        later = rank + (share * (end - rank)).astype(np.int64)
        return torch.from_numpy(self.order[later % self.capacity]).to(self.device)

    def _close(self, stream: int) -> None:
        """Give the open episode of ``stream`` its ranks; steps that were overwritten meanwhile get none."""
        steps = np.array(self._open.pop(stream), dtype=np.int64)
        places = steps[self._serial[steps[:, 0]] == steps[:, 1], 0]
        ranks = np.arange(self.ranks, self.ranks + len(places))
        self.order[ranks % self.capacity] = places
        self.rank[places], self.end[places] = ranks, self.ranks + len(places)
        self.ranks += len(places)
        self._finished += len(places)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the filled part of every array. Open episodes are closed."""
        self.forget_unfinished()
        own = {"rank": self.rank[: self.size], "end": self.end[: self.size], "order": self.order}
        own |= {"ranks": np.array([self.ranks])}
        return {**super().state_dict(), **{name: torch.from_numpy(array) for name, array in own.items()}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        self._open.clear()
        super().load_state_dict(state)
        self.ranks = int(state["ranks"])
        self.order[:] = state["order"].numpy()
        self.rank[:] = -1
        self.rank[: self.size], self.end[: self.size] = state["rank"].numpy(), state["end"].numpy()
        self._finished = int((self.rank >= 0).sum())
