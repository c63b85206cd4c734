"""What all wrappers that run one of K sub-policies inside ``step`` share: the ``core.Chooser`` that a limit meets."""

import operator
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from budget_wrappers.core import Allowance, Fallback, Selector
from budget_wrappers.errors import InfeasibleBudgetError, InfoKeyError, SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies.memory import Actors
from budget_wrappers.policies.options import SubPolicies
from budget_wrappers.wrappers.account import MeterHandle, RawReturn
from budget_wrappers.wrappers.exhaustion import reduced
from budget_wrappers.wrappers.selecting import NAME, InnerSelector

HELD = -1
"""Index in place of a choice where no sub-policy ran and the last primitive action was repeated."""


class ChooserWrapper(gym.Wrapper):
    """Base of the wrappers whose actions are sub-policies: what a choice costs, and what it becomes under a limit.

    Attributes:
        choice_flops: ``(K,)`` int64, FLOPs of one primitive step of each sub-policy at most, ascending.
        durations: primitive steps that a choice can last at most, ascending. With several the selector picks one, too:
            action ``d·K + k`` is sub-policy ``k`` for the ``d``-th of them.
        resets: how often episodes have begun by ``reset``.
        steps_run: primitive steps that have run, in all episodes.
        steps_held: those of them that repeated the last action.
        raw_return: rewards of the episode before any penalty.
        ends: whether the last primitive step has terminated and truncated the episode.
        expected: the call that a limit outside is making; another one in between raises. None outside of both.
        actors: what acts for each choice.
    """

    choice_names: tuple[str, ...]
    choice_flops: NDArray[np.int64]
    durations: tuple[int, ...]
    _selector: InnerSelector
    resets = steps_run = steps_held = 0
    ends: tuple[bool, bool] = (False, False)
    expected: Literal["step", "reset"] | None = None
    actors: Actors

    def open_choices(
        self,
        sub_policies: SubPolicies,
        durations: tuple[int, ...],
        meter: str | ComputeMeter,
        selector_flops: int | None,
        selector: Selector | str | None,
    ) -> None:
        """Set what can be chosen, each sub-policy with a memory for this environment where it has one.

        Raises:
            WrapperOrderError: a wrapper inside reads costs or chooses itself.
            CostError: ``selector_flops`` is negative, NaN, not whole, or less than ``selector`` declares.
            ConfigError: one declares another convention than the meter counts, or has a ``reset`` that takes arguments;
                ``selector`` is none.
        """
        _refuse_inside(self)
        self.choice_names, self.choice_flops, self.durations = sub_policies.names, sub_policies.flops, durations
        self.raw_return = RawReturn()
        self._handle = MeterHandle(meter)
        sub_policies.require_convention(self.meter)
        self.actors = Actors.of(sub_policies)
        self._autoresets = any(isinstance(layer, gym.wrappers.Autoreset) for layer in wrappers_of(self.env))
        self._selector = InnerSelector(selector, self.choice_names, durations, flops=selector_flops)
        self._selector.require_convention(self.meter)
        self.action_space = gym.spaces.Discrete(len(sub_policies) * len(durations))
        self.start_choices()

    def follow_episodes(self, over: bool) -> None:
        """Begin memories where a step has ended an episode, and where one after that has only reset the environment."""
        if over or self._stepped_on:
            if over or self._autoresets:
                self._begin_memories()
            self._stepped_on = over

    def _begin_memories(self) -> None:
        """Tell all that keep a memory that an episode begins."""
        self.actors.begin()
        self._selector.begin()

    @property
    def meter(self) -> ComputeMeter:
        """The meter that choices are charged to."""
        return self._handle.meter

    @property
    def selector(self) -> Selector | None:
        """What ``step(None)`` asks, None for nothing."""
        return self._selector.selector

    @property
    def selector_flops(self) -> int:
        """FLOPs that one choice costs at most: of the agent outside, and of the selector that ``step(None)`` asks."""
        return self._selector.flops

    def set_selector_flops(self, flops: int | None) -> None:
        """Declare what one choice costs at most, once that is known; None for what the ``selector`` declares.

        Raises:
            CostError: it is negative, NaN, not whole, or less than the selector that ``step(None)`` asks declares.
        """
        self._selector.set_flops(flops)

    def restrict(self, allowance: Allowance, steps: int | None = None, fallback: Fallback = "cheapest") -> None:
        """Let sub-policies spend at most ``allowance`` until the next call, see ``core.Chooser``."""
        self._allowance, self._max_steps, self._fallback = allowance, steps, fallback
        self._promised = self._taken = self._held = 0

    def hold_last_action(self, steps: int) -> None:
        """Make the next ``step`` repeat the last primitive action for ``steps`` steps, running no sub-policy.

        Raises:
            InfeasibleBudgetError: there is no last action yet.
        """
        if self.last_action is None:
            raise InfeasibleBudgetError(
                "No sub-policy has acted in this episode, so there is no action to hold. Raise the limit."
            )
        self._held = steps

    def option_report(self, total: int) -> tuple[dict[str, int], dict[str, int], int]:
        """Return FLOPs by name, primitive steps by name, and all primitive steps, of this episode.

        Args:
            total: FLOPs of the episode; what no sub-policy has spent is the selector's.
        """
        flops = dict(zip(self.choice_names, self.choice_spent, strict=True))
        flops[NAME] = total - sum(flops.values())
        steps = dict(zip((*self.choice_names, "hold"), self.choice_counts, strict=True))
        return flops, steps, sum(self.choice_counts)

    def start_choices(self) -> None:
        """Forget the last episode: no restriction, no held action and no memory survives a reset.

        Raises:
            WrapperOrderError: a wrapper outside resets within the ``step`` of a limit further out.
        """
        self._require_expected("reset")
        self.resets += 1
        self._begin_memories()
        self._stepped_on = False  # whether the last step has ended an episode
        self._allowance: Allowance | None = None
        self._held = 0
        self._promised = self._taken = 0  # FLOPs and steps of the choices that have run under this allowance
        self._max_steps: int | None = None
        self._fallback: Fallback = "cheapest"
        self.start_episode()

    def start_episode(self) -> None:
        """Begin the counts of an episode, whether or not a reset has told so; a limit's restriction stays."""
        self.last_action: Any = None
        self.raw_return.value = 0.0
        self.ends = (False, False)
        self.choice_counts = [0] * (len(self.choice_names) + 1)  # primitive steps of each; HELD is −1, the last
        self.choice_spent = [0] * len(self.choice_names)  # FLOPs that calls of each have cost, failed ones too

    def count_step(self, index: int, ends: tuple[bool, bool]) -> None:
        """Count a primitive step of a choice, or of ``HELD``, and note whether it has ended the episode."""
        self.choice_counts[index] += 1
        self.steps_run += 1
        self.steps_held += index == HELD
        self.ends = ends

    def _require_expected(self, call: Literal["step", "reset"]) -> None:
        if self.expected not in (None, call):
            does, lost = (
                ("resets within its step()", "restarts an episode that the limit goes on with")
                if call == "reset"
                else ("acts within its reset()", "spends what no episode pays for")
            )
            raise WrapperOrderError(
                f"A wrapper between {self.class_name()} and the ComputeLimit outside {does}, which {lost}. Put that "
                f"wrapper inside {self.class_name()}, around the environment, or outside of ComputeLimit."
            )

    def choose(self, action: Any, observation: Any) -> tuple[int, int]:
        """Return the choice that runs, or ``HELD``, and for how many steps at most.

        Args:
            action: index of a choice; None for that of the selector, which is charged.
            observation: that the sub-policies see, for the selector.

        Raises:
            SpaceError: ``action`` is no index of a choice; see also ``InnerSelector.ask``.
            WrapperOrderError: a wrapper outside acts within the ``reset`` of a limit further out.
        """
        if self.expected == "reset":
            self._require_expected("step")
        if True in self.ends:  # an environment that resets by itself has begun an episode
            self.start_episode()
        if self._held:
            steps, self._held = self._held, 0
            return HELD, steps
        unasked = action is None and not self._can_ask()
        if unasked:
            wanted, duration = 0, self.durations[-1]
        else:
            wanted, duration = self._selected(observation) if action is None else self.choice_of(action)
        most = self.durations[-1] if self._max_steps is None else max(1, self._max_steps - self._taken)
        steps = min(duration, most)
        if self._allowance is None:
            return wanted, steps
        candidates = [] if unasked else [(wanted, steps)]
        if self._fallback == "cheapest" or self.last_action is None:
            candidates += [(0, min(length, most)) for length in (duration, *reversed(self.durations))]
        for index, length in candidates:
            worst = self._promised + length * int(self.choice_flops[index])
            if worst <= self._allowance(self._taken + length):
                self._promised, self._taken = worst, self._taken + length
                return index, length
        self.hold_last_action(steps)
        return self.choose(action, observation)

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the choices that the present allowance lets run as they are, ``(K·D,)`` booleans: all without a limit.

        The environment's own mask is of primitive actions, which the sub-policies choose.
        """
        return self.runnable(self._allowance, self._max_steps, (self._promised, self._taken))

    def runnable(
        self, allowance: Allowance | None, steps: int | None, ran: tuple[int, int] = (0, 0)
    ) -> NDArray[np.bool_]:
        """Return the choices that an allowance lets run, ``(K·D,)`` booleans.

        Args:
            allowance: see ``restrict``; None for no limit.
            steps: primitive steps that choices may last under it; None for any.
            ran: FLOPs and primitive steps of the choices that have run under it.
        """
        if allowance is None:
            return np.ones(len(self.choice_names) * len(self.durations), bool)
        promised, taken = ran
        most = self.durations[-1] if steps is None else max(1, steps - taken)
        lasting = [min(duration, most) for duration in self.durations]
        rows = [promised + length * self.choice_flops <= allowance(taken + length) for length in lasting]
        return np.concatenate(rows)

    def _can_ask(self) -> bool:
        """Return whether the allowance pays for the selector and for any choice after it; True without a limit."""
        if self._allowance is None or self.selector is None:
            return True  # without a selector the question raises
        left = reduced(self._allowance, self.selector_flops)
        return bool(self.runnable(left, self._max_steps, (self._promised, self._taken)).any())

    def _selected(self, observation: Any) -> tuple[int, int]:
        """Return what the selector picks; what asking it has cost is charged, and counts under the allowance."""
        try:
            return self._selector.ask(observation, self.meter)
        finally:
            if spent := self._selector.spent:
                self.meter.add(spent, NAME)
                if self._allowance is not None:
                    self._allowance = reduced(self._allowance, spent)

    def choice_of(self, action: Any) -> tuple[int, int]:
        """Return the sub-policy and the duration that an action asks for.

        Raises:
            SpaceError: ``action`` is no index of a choice.
        """
        duration, index = divmod(index_of(action, self.action_space), len(self.choice_names))
        return index, self.durations[duration]

    def write_choice(self, info: dict[str, Any], duration: int, index: int) -> dict[str, Any]:
        """Return a copy of ``info`` that says what ran and for how many primitive steps.

        Raises:
            InfoKeyError: the environment has put something else under one of the keys.
        """
        if "duration" in info or "option" in info:
            raise InfoKeyError(
                f"info has {sorted(info)} and 'duration' and 'option' are ours; rename them inside {self.env}."
            )
        return {**info, "duration": np.float64(duration), "option": np.float64(index)}


def index_of(action: Any, space: gym.spaces.Discrete) -> int:
    """Return an action as the index of a choice.

    Raises:
        SpaceError: it is no whole number in ``space``.
    """
    try:
        index = operator.index(action)
    except TypeError as error:
        raise SpaceError(
            f"Action {action!r} is no index of a sub-policy; expected a whole number in {space}."
        ) from error
    if not 0 <= index < space.n:
        raise SpaceError(f"Action {index} is no sub-policy; expected 0 … {space.n - 1}.")
    return index


def wrappers_of(env: gym.Env) -> list[gym.Wrapper]:
    """Return the wrappers of ``env``, the outermost first."""
    found = []
    while isinstance(env, gym.Wrapper):
        found.append(env)
        env = env.env
    return found


def _refuse_inside(wrapper: gym.Wrapper) -> None:
    env = wrapper.env
    layers = [layer for layer in wrappers_of(env) if "compute_accounts" in vars(layer)]
    if any(not hasattr(layer, "delay_of") for layer in layers):  # a delay reads each primitive step's cost beforehand
        raise WrapperOrderError(
            f"{env} reads costs inside {wrapper.class_name()}, which hands out the last info of an option only, and "
            "whose costs are known when all of its steps have run: put wrappers that record, penalise or limit outside."
        )
    if env.has_wrapper_attr("hold_last_action"):
        raise WrapperOrderError(
            f"{env} chooses sub-policies already; a limit can be hard over one such wrapper only. Merge the two sets."
        )


__all__ = ["HELD", "ChooserWrapper", "index_of", "wrappers_of"]
