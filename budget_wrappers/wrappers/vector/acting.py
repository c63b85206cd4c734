"""Runs the sub-policies that the rows of a batch have chosen, each on its rows, and charges them by row."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from budget_wrappers.core import BatchSubPolicy
from budget_wrappers.errors import SpaceError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies.memory import Memories
from budget_wrappers.policies.options import SubPolicies
from budget_wrappers.wrappers.options import checked_action


class RowActing:
    """Acts for the environments of a batch.

    Args:
        env: the vector environment that the sub-policies act in.
        sub_policies: to choose among.
        meter: charged with what they declare.

    Attributes:
        last: the last action of each environment, ``None`` before the first.
        called: the sub-policies that the last ``act`` has called, and for which rows each.

    Raises:
        ConfigError: a sub-policy declares FLOPs of another convention than the meter counts, or keeps a memory in
            itself that several environments would share.
    """

    def __init__(self, env: VectorEnv, sub_policies: SubPolicies, meter: ComputeMeter) -> None:
        self._observations, self._actions = env.observation_space, env.single_action_space
        self._sub_policies, self._meter = sub_policies, meter
        sub_policies.require_convention(meter)
        self._batched = [isinstance(policy, BatchSubPolicy) and policy.batched for policy in sub_policies]
        self._memories = [Memories(policy, env.num_envs) for policy in sub_policies]
        self._remembering = [memories for memories in self._memories if not memories.plain]
        self.last: list[Any] = [None] * env.num_envs
        self.called: list[tuple[int, list[int]]] = []

    def begin(self, rows: np.ndarray | None) -> None:
        """Tell sub-policies that episodes begin where ``rows``, ``(n,)`` booleans, is, everywhere for ``None``."""
        for memories in self._remembering:
            memories.begin(None if rows is None else np.flatnonzero(rows).tolist())

    def follow(self, ended: np.ndarray | None) -> None:
        """Begin memories where a step has ended episodes, ``(n,)``: none acts there before the next has begun."""
        if ended is not None:
            self.begin(ended)

    def act(self, observations: Any, choices: np.ndarray) -> Any:
        """Return an action for each environment, as ``env`` takes them.

        Args:
            observations: of all environments.
            choices: the sub-policy of each one, ``(n,)``; with ``HELD`` none runs and its last action stands there,
                any legal one where it never had one.

        Raises:
            SpaceError: a sub-policy returned no action of the environment, or not one for each row.
            NonFiniteError: it returned NaN or infinity.
        """
        singles, self.called = list(iterate(self._observations, observations)), []
        for index, policy in enumerate(self._sub_policies):
            chosen = choices == index
            rows = np.flatnonzero(chosen)
            if not rows.size:
                continue
            flops, called, memories = int(self._sub_policies.flops[index]), [], self._memories[index]
            self.called.append((index, called))
            at_once = self._batched[index] and rows.size > 1
            try:
                with self._meter.paused():
                    if at_once:
                        called.extend(rows)  # before: a call that fails has run, too
                        batch = memories.batch([singles[row] for row in rows], rows)
                        actions = iter(require_actions(batch, policy.name, rows.size))
                    for row in rows:
                        if not at_once:
                            called.append(row)
                        if at_once:
                            action = next(actions)
                        else:
                            action = policy(singles[row]) if memories.plain else memories.act(singles[row], row)
                        # A copy: for the next row it may reuse its buffer.
                        self.last[row] = copy.deepcopy(checked_action(self._actions, action, policy.name))
            finally:
                ran = chosen if len(called) == rows.size else np.isin(np.arange(len(choices)), called)
                self._meter.add(flops * len(called), policy.name, len(choices), by_row=flops * ran)
        return batched(self._actions, [self._any if action is None else action for action in self.last])

    @property
    def _any(self) -> Any:
        """A legal action, always the same; the space's own random numbers are left alone."""
        space = copy.deepcopy(self._actions)
        space.seed(0)
        return space.sample()


def require_actions(actions: Any, name: str, rows: int) -> Any:
    """Return what a sub-policy returned for a batch.

    Raises:
        SpaceError: it is not ``rows`` actions.
    """
    try:
        found = len(actions)
    except TypeError:  # one number
        found = 0
    if found != rows:
        raise SpaceError(
            f"Sub-policy {name!r} returned {actions!r} for a batch of {rows} observations; expected {rows} actions. "
            "Mend its batch(), or what ModulePolicy(act=) does with several rows; where it can act on one at a time "
            "only, hand it over as FunctionPolicy(policy, policy.flops, policy.name)."
        )
    return actions


def batched(space: gym.Space, actions: list[Any]) -> Any:
    """Return actions as one batch, each in the precision that it came in."""
    if isinstance(space, gym.spaces.Box):
        return np.stack(actions)
    return concatenate(space, actions, create_empty_array(space, len(actions)))


__all__ = ["RowActing", "batched", "require_actions"]
