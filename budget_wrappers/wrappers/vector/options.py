"""Vector wrapper whose actions are sub-policies: ``SubPolicyAction``."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import iterate

from budget_wrappers.core import Selector, SubPolicy
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.options import option_reward
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies.options import SubPolicies
from budget_wrappers.wrappers.account import RawReturn
from budget_wrappers.wrappers.choosing import HELD
from budget_wrappers.wrappers.multiplier import validate_weight
from budget_wrappers.wrappers.options import PrimitiveTransition, Subscriber, durations_of
from budget_wrappers.wrappers.reading import plain, refuse_vector_reward
from budget_wrappers.wrappers.vector.acting import RowActing
from budget_wrappers.wrappers.vector.arrays import stepped
from budget_wrappers.wrappers.vector.choosing import VectorChooser
from budget_wrappers.wrappers.vector.ending import FINAL_OBS, Transition
from budget_wrappers.wrappers.vector.infos import FINAL_INFO, reported
from budget_wrappers.wrappers.vector.modes import SAME_STEP
from budget_wrappers.wrappers.vector.reading import as_handed_out, finite_rewards


class SubPolicyAction(VectorChooser, RecordConstructorArgs):
    """Makes sub-policies the actions of each environment: ``(n,)`` indices, cheapest first, one decision a step.

    The vector version of ``budget_wrappers.wrappers.SubPolicyAction`` with ``hold=1``, in every autoreset mode: each
    row's sub-policy acts on that row's observation, its reward is ``r − weight · c``, and ``infos["duration"]`` and
    ``infos["option"]``, with masks, say what ran. An option of several steps would run into the environments' own
    resets: for those put the scalar wrapper around each environment.

    Sub-policies run in this process with the meter paused and are charged by name and row the FLOPs they declare. Rows
    that chose the same one are handed to it as one batch where it can take one (``core.BatchSubPolicy``). In a step
    that only resets a row (``NEXT_STEP`` mode) none runs for it. Wrappers that read costs go outside; a
    ``ComputeLimit`` there ends an episode at the step that exhausts its limit, as around an opaque policy.

    ``step(None)`` asks the ``selector`` once for each row in which a sub-policy will run, and charges each row its
    ``Choice`` as ``"selector"``. A selector that keeps a memory (it has ``reset()``) is refused for several rows.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.policies import FunctionPolicy
        >>> from budget_wrappers.wrappers.vector import RecordComputeStatistics, SubPolicyAction
        >>> left = FunctionPolicy(lambda obs: 0, flops=10, name="left")
        >>> lean = FunctionPolicy(lambda obs: int(obs[2] > 0), flops=40, name="lean")
        >>> envs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
        >>> envs = SubPolicyAction(envs, [lean, left], weight=0.01, meter="docs.vector.options")
        >>> envs = RecordComputeStatistics(envs, meter="docs.vector.options")
        >>> obs, infos = envs.reset(seed=0)
        >>> obs, rewards, terminations, truncations, infos = envs.step([1, 0, 1])
        >>> rewards, infos["cost"]  # 1 − 0.01 · 4 and 1 − 0.01 · 1
        (array([0.96, 0.99, 0.96]), array([40., 10., 40.]))

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: VectorEnv,
        sub_policies: SubPolicies | Iterable[SubPolicy | str],
        hold: int = 1,
        weight: float = 0.0,
        meter: str | ComputeMeter = "policy",
        selector: Selector | str | None = None,
    ) -> None:
        """Wrap ``env``; raises ConfigError, CostError, SpaceError and WrapperOrderError.

        Args:
            env: the vector environment that the sub-policies act in.
            sub_policies: objects, or names known to ``register_sub_policy`` and ``register_loader``.
            hold: 1, as a choice lasts one step.
            weight: reward per step and unit of relative cost, >= 0.
            meter: name or object of the meter that is charged.
            selector: what ``step(None)`` asks about each row, an object or a name as above; see ``core.Selector``.
        """
        hold, weight = plain(hold), plain(weight)
        self.sub_policies, recorded = SubPolicies.of(sub_policies)
        RecordConstructorArgs.__init__(
            self,
            sub_policies=recorded,
            hold=hold,
            weight=weight,
            meter=meter,
            selector=selector,
            _disable_deepcopy=True,
        )
        VectorChooser.__init__(self, env)
        require_one_step(hold, type(self).__name__)
        refuse_vector_reward(self)
        self.open_choices(self.sub_policies.names, self.sub_policies.flops, meter, selector)
        self.set_weight(weight)
        self.raw_return = RawReturn()
        self.raw_return.value = np.zeros(self._n)
        self._acting = RowActing(env, self.sub_policies, self.meter)
        self._subscribers: list[Subscriber] = []
        self._observations, self._started = None, False

    def set_weight(self, weight: float) -> None:
        """Change the penalty's weight from the next step on; raises ConfigError and CostError."""
        self.weight = validate_weight(weight)
        self.costs = self.sub_policies.costs if self.weight else np.zeros(len(self.sub_policies))

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call ``callback`` with each row's ``PrimitiveTransition``, row after row; return what ends that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of ``options["reset_mask"]``."""
        self._observations, infos, mask = self.reset_rows(seed, options)
        self._account.clear(self.raw_return.value, mask)
        self._acting.begin(mask)
        self._started = True
        return self._observations, self.start_choices(infos, mask)

    def step(self, actions: Any) -> Transition:
        """Run each row's sub-policy, ``actions`` ``(n,)`` or those that the selector picks for None, and step.

        Raises:
            SpaceError: an action is no index, or a sub-policy returned none of the environment's actions.
            NonFiniteError: a sub-policy or an environment handed out NaN or infinity.
            InfoKeyError: the environments have put something else under a key of ours.
        """
        if not self._started:
            raise ResetNeeded("Call reset() before step().")
        choices = self.choices_of(actions, self._observations)
        self._account.collect()  # whoever chose may have charged its rows in an order of its own
        before = copy.deepcopy(self._observations) if self._subscribers else None
        with self.noting_failure(self._acting):
            inner = self._acting.act(self._observations, choices)
            self._observations, rewards, terminations, truncations, infos = stepped(self.env, inner)
        self.read_cost(terminations, truncations)
        self._acting.follow(self._account.ended)
        handed_out = finite_rewards(rewards, (self._n,))
        raw = handed_out.astype(np.float64, copy=False)
        self._account.add(self.raw_return.value, raw)
        if self._subscribers:
            tell_rows(self, before, choices, raw, (self._observations, terminations, truncations, infos))
        rewards = option_reward(raw, 1, np.where(choices == HELD, 0.0, self.costs[choices]), self.weight)
        rewards = as_handed_out(rewards, handed_out)
        return self._observations, rewards, terminations, truncations, self.write_choices(infos, choices)


def tell_rows(
    wrapper: SubPolicyAction, before: Any, choices: np.ndarray, rewards: np.ndarray, after: tuple[Any, ...]
) -> None:
    """Tell subscribers what each row did, as its environment would have told it singly.

    Args:
        wrapper: whose step it was.
        before: observations of the rows before it.
        choices: the sub-policies that ran, ``(n,)``; rows with ``HELD`` are left out.
        rewards: of the environments, ``(n,)``.
        after: observations, terminations, truncations and infos of the step.
    """
    observations, terminations, truncations, infos = after
    over = np.logical_or(terminations, truncations) & (wrapper._mode == SAME_STEP)
    rows = (list(iterate(wrapper.env.observation_space, batch)) for batch in (before, observations))
    for row, (seen, seen_next) in enumerate(zip(*rows, strict=True)):
        if choices[row] == HELD:
            continue
        step = PrimitiveTransition(
            seen,
            wrapper._acting.last[row],
            float(rewards[row]),
            infos[FINAL_OBS][row] if over[row] else seen_next,
            bool(terminations[row]),
            bool(truncations[row]),
            int(choices[row]),
            reported(infos[FINAL_INFO] if over[row] else infos, row),
            row,
        )
        for tell in tuple(wrapper._subscribers):
            tell(step)


def require_one_step(hold: Any, name: str) -> None:
    """Check that a choice lasts one step.

    Raises:
        ConfigError: it would last longer.
    """
    if durations_of(hold) != (1,):
        raise ConfigError(
            f"hold={hold!r} in the vector {name}; expected 1, as a longer option would run into the environments' own "
            f"resets. Put the wrapper around each environment, with recorders and limits around it: "
            f"SyncVectorEnv([lambda: {name}(env, …, hold={hold!r})])."
        )


__all__ = ["SubPolicyAction"]
