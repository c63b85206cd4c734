"""Wrapper whose actions are sub-policies: ``SubPolicyAction``."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs

from budget_wrappers.arguments import MOST_STEPS
from budget_wrappers.core import Selector, SubPolicy
from budget_wrappers.errors import ConfigError, CostError, NonFiniteError, SpaceError
from budget_wrappers.functional.costs import whole
from budget_wrappers.functional.options import option_reward
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies.options import SubPolicies
from budget_wrappers.wrappers.choosing import HELD, ChooserWrapper
from budget_wrappers.wrappers.multiplier import validate_weight
from budget_wrappers.wrappers.reading import finite_reward, plain, refuse_vector_reward


class PrimitiveTransition(NamedTuple):
    """One step of the wrapped environment, as subscribers of ``SubPolicyAction`` receive it.

    Arrays are those that went through the environment: copy what you keep, as a sub-policy may reuse its buffer.

    Attributes:
        observation: before the step.
        action: that the sub-policy chose, or the last one again.
        reward: of the environment, without any penalty.
        next_observation: after the step.
        terminated: cuts the bootstrap.
        truncated: does not.
        index: the sub-policy that acted, or ``HELD`` (−1).
        info: of the environment.
        row: which environment of a batch it was, 0 in a single one.
    """

    observation: Any
    action: Any
    reward: float
    next_observation: Any
    terminated: bool
    truncated: bool
    index: int
    info: dict[str, Any]
    row: int = 0


Subscriber = Callable[[PrimitiveTransition], None]


class SubPolicyAction(ChooserWrapper, RecordConstructorArgs):
    """Makes sub-policies the actions: ``Discrete(K)``, cheapest first; the chosen one acts for ``hold`` steps.

    With several durations for ``hold`` whoever chooses picks one, too: ``Discrete(K·D)``, action ``d·K + k`` for
    sub-policy ``k`` during the ``d``-th duration, shortest first. It then decides often only where that pays.

    The reward of one option is ``Σ r − weight · n · c``: rewards of the ``n`` primitive steps really taken (fewer than
    ``hold`` where the episode ends), undiscounted, less ``weight`` per step and unit of ``c``, FLOPs relative to the
    cheapest. ``info["duration"]`` is ``n`` (an agent discounts with γⁿ), ``info["option"]`` the sub-policy that ran, −1
    where a limit made it repeat the last action; a reset has 0 and −1.

    Sub-policies run with the meter paused and are charged here, by name, the FLOPs they declare: a watched module is
    not charged twice. An agent that chooses (a DQN on this environment) charges the meter by itself. ``step(None)``
    asks the ``selector``, which sees what the sub-policies see; its ``Choice`` lasts one of ``hold`` and is charged as
    ``"selector"``. ``selector_flops`` tells a hard ``ComputeLimit`` what a choice costs. Wrappers that read costs go
    outside, as an option's costs are summed; a penalty beside a nonzero ``weight`` raises. ``subscribe`` hands out each
    primitive transition: a shared replay. A vector version exists: ``budget_wrappers.wrappers.vector.SubPolicyAction``.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.policies import FunctionPolicy
        >>> from budget_wrappers.wrappers import SubPolicyAction
        >>> left = FunctionPolicy(lambda obs: 0, flops=10, name="left")
        >>> lean = FunctionPolicy(lambda obs: int(obs[2] > 0), flops=40, name="lean")
        >>> env = SubPolicyAction(gym.make("CartPole-v1"), [lean, left], hold=3, weight=0.01)
        >>> env.action_space, env.sub_policies.names
        (Discrete(2), ('left', 'lean'))
        >>> obs, info = env.reset(seed=0)
        >>> obs, reward, terminated, truncated, info = env.step(1)  # 3 − 0.01 · 3 · 4
        >>> reward, float(info["duration"])
        (2.88, 3.0)

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: gym.Env,
        sub_policies: SubPolicies | Iterable[SubPolicy | str],
        hold: int | Sequence[int] = 5,
        weight: float = 0.0,
        meter: str | ComputeMeter = "policy",
        selector_flops: int | None = None,
        selector: Selector | str | None = None,
    ) -> None:
        """Wrap ``env``; raises ConfigError, CostError and WrapperOrderError.

        Args:
            env: the environment that the sub-policies act in.
            sub_policies: objects, or names known to ``register_sub_policy`` and ``register_loader``, which serialise.
            hold: primitive steps that one choice lasts, or the durations that can be chosen.
            weight: reward per step and unit of relative cost, >= 0.
            meter: name or object of the meter that is charged.
            selector_flops: FLOPs that one choice costs at most; by default what ``selector`` declares, or 0.
            selector: what ``step(None)`` asks, an object or a name as above; see ``core.Selector``.
        """
        hold, weight, selector_flops = plain(hold), plain(weight), plain(selector_flops)
        durations = durations_of(hold)
        self.sub_policies, recorded = SubPolicies.of(sub_policies)
        RecordConstructorArgs.__init__(
            self,
            sub_policies=recorded,
            hold=hold if isinstance(hold, int) else list(durations),
            weight=weight,
            meter=meter,
            selector_flops=selector_flops,
            selector=selector,
            _disable_deepcopy=True,
        )
        ChooserWrapper.__init__(self, env)
        refuse_vector_reward(self)
        self.open_choices(self.sub_policies, durations, meter, selector_flops, selector)
        self.set_weight(weight)
        self._subscribers: list[Subscriber] = []
        self._observation, self._started = None, False

    def set_weight(self, weight: float) -> None:
        """Change the penalty's weight from the next option on; raises ConfigError and CostError."""
        self.weight = validate_weight(weight)
        self.costs = self.sub_policies.costs if self.weight else np.zeros(len(self.sub_policies))

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call ``callback`` with every ``PrimitiveTransition``; return what ends that. Copies have no subscribers."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; no option, restriction or held action survives."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        self.start_choices()
        self._started = True
        return self._observation, self.write_choice(info, 0, HELD)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Run one option; after an exception in it the next ``step`` begins a new one, after an end a new episode."""
        if not self._started:
            raise ResetNeeded("Call reset() before step().")
        index, steps = self.choose(action, self._observation)
        total, taken, terminated, truncated, before = 0.0, 0, False, False, sum(self.choice_spent)
        while taken < steps and not (terminated or truncated):
            reward, terminated, truncated, info = self._primitive_step(index)
            total += reward
            taken += 1
        self.raw_return.value += total
        cost = cost_of_option(self, index, taken, sum(self.choice_spent) - before)
        reward = option_reward(total, taken, cost, self.weight)
        return self._observation, reward, terminated, truncated, self.write_choice(info, taken, index)

    def _primitive_step(self, index: int) -> tuple[float, bool, bool, dict[str, Any]]:
        before = self._observation
        if index != HELD:
            self.last_action = charged_action(self, index, before)
        self._observation, reward, terminated, truncated, info = self.env.step(self.last_action)
        self.count_step(index, (bool(terminated), bool(truncated)))
        step = finite_reward(reward, sum(self.choice_counts)), *self.ends
        self.follow_episodes(any(self.ends))
        for tell in tuple(self._subscribers):
            tell(PrimitiveTransition(before, self.last_action, step[0], self._observation, *step[1:], index, info))
        return *step, info

    def recount(self) -> None:
        """Take the costs that the sub-policies declare now, from the next option on; see ``SubPolicies.recount``."""
        self.sub_policies.recount()
        self.choice_flops = self.sub_policies.flops
        self.set_weight(self.weight)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without subscribers, which belong to this process."""
        return {**self.__dict__, "_subscribers": []}


def cost_of_option(wrapper: Any, index: int, taken: int, spent: int) -> float:
    """Return what one step of an option of a ``SubPolicyAction`` has cost, relative to the cheapest sub-policy.

    Args:
        wrapper: that ran it.
        index: of the sub-policy, or ``HELD``.
        taken: primitive steps.
        spent: FLOPs of the sub-policy in them, fewer than it declares where calls said so.
    """
    if index == HELD:
        return 0.0
    cost, unspent = float(wrapper.costs[index]), taken * int(wrapper.choice_flops[index]) - spent
    if wrapper.weight and unspent:
        cost -= unspent / (taken * int(wrapper.choice_flops[0]))
    return cost


def charged_action(wrapper: Any, index: int, observation: Any) -> Any:
    """Return the action of one sub-policy of a ``SubPolicyAction``, charged.

    The charge is the cost that the sub-policy declares, or the cost that it reports for this call.
    """
    policy, meter, most = wrapper.sub_policies[index], wrapper.meter, int(wrapper.choice_flops[index])
    spent = most  # of a call that fails, too: it has run
    try:
        with meter.paused():
            action = wrapper.actors[index](observation)
        spent = spent_by(policy, most)
        require_declared(policy, spent, most)
        return checked_action(wrapper.env.action_space, action, policy.name)
    finally:
        meter.add(spent, policy.name)
        wrapper.choice_spent[index] += spent


def durations_of(hold: int | Sequence[int]) -> tuple[int, ...]:
    """Return the durations that ``hold`` stands for, ascending.

    Raises:
        ConfigError: one is no whole number of steps >= 1, there are none, or one comes twice.
    """
    given = hold if isinstance(hold, list | tuple) else [hold]
    durations = [plain(steps) for steps in given]
    if not durations or any(type(n) is not int or not 1 <= n <= MOST_STEPS for n in durations):
        raise ConfigError(
            f"hold={hold!r}; expected a whole number of steps >= 1 and at most {MOST_STEPS}, or several different ones."
        )
    if len(set(durations)) < len(durations):
        raise ConfigError(f"hold={hold!r} has a duration twice; leave one of them out.")
    return tuple(sorted(durations))


def spent_by(policy: Any, most: int) -> int:
    """Return what the last call of a sub-policy cost: its ``flops_of_last_call`` where it has one, else ``most``.

    Raises:
        CostError: it is not a whole number.
    """
    spent = getattr(policy, "flops_of_last_call", most)
    return spent if type(spent) is int else whole(spent, f"flops_of_last_call of sub-policy {policy.name!r}")


def require_declared(policy: Any, spent: int, most: int) -> None:
    """Check what the last call of a sub-policy says that it cost.

    Raises:
        CostError: more than it declares.
    """
    if spent > most:
        raise CostError(
            f"Sub-policy {policy.name!r} ran {spent} FLOPs in one call and declares {most}: expected the most that one "
            "call can cost. After its network has changed call recount()."
        )


def checked_action(space: gym.Space, action: Any, name: str) -> Any:
    """Return what a sub-policy returned.

    Raises:
        SpaceError: its shape or value does not fit ``space``.
        NonFiniteError: it is NaN or infinite.
    """
    if not isinstance(space, gym.spaces.Box):
        if not space.contains(action):
            raise SpaceError(f"Sub-policy {name!r} returned {action!r}; expected one action in {space}.")
        return action
    array = np.asarray(action)
    if array.shape != space.shape:
        raise SpaceError(
            f"Sub-policy {name!r} returned an action of shape {array.shape}; expected {space.shape}: one action, "
            "without a batch dimension."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise NonFiniteError(
            f"Sub-policy {name!r} returned {action!r}; expected finite numbers. Look at its weights and its input."
        )
    return action


__all__ = ["HELD", "PrimitiveTransition", "SubPolicyAction", "Subscriber", "checked_action", "durations_of"]
