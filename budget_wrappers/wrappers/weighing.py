"""What ``ComputePenaltyReward`` of single and of vector environments share: the weight, and what moves it."""

from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
from gymnasium.vector import VectorEnv

from budget_wrappers.errors import WrapperOrderError
from budget_wrappers.wrappers.account import find_attribute
from budget_wrappers.wrappers.multiplier import AdaptiveWeight, FixedWeight, make_weight
from budget_wrappers.wrappers.reading import find_chooser, require_options


class Weighing:
    """Base of the wrappers whose penalty has a weight that may adapt.

    Attributes:
        multiplier: what holds the weight.
    """

    multiplier: FixedWeight | AdaptiveWeight

    def open_weight(
        self,
        weight: float | Literal["auto"],
        budget: float | None,
        initial_weight: float | None,
        rate: float | None,
        least: int,
        elsewhere: bool,
    ) -> None:
        """Make the weight, see ``make_weight``; raises ConfigError and InfeasibleBudgetError.

        Args:
            weight: as the wrapper was given it, like the next three.
            budget: mean FLOPs per environment step.
            initial_weight: to begin with.
            rate: of the weight's logarithm.
            least: FLOPs per environment step of the cheapest choice.
            elsewhere: whether a layer inside takes budgets, so that options of a reset mean that layer's.
        """
        self.multiplier = make_weight(weight, budget, initial_weight, rate, least)
        self._counts, self._elsewhere = self.multiplier.adapts, elsewhere

    @property
    def weight(self) -> float:
        """Reward per FLOP of the next step."""
        return self.multiplier.weight

    @property
    def budget(self) -> float:
        """Mean FLOPs per environment step that the weight keeps; as ``set_budget`` it is there where it means this."""
        return self._keeps("budget").budget

    @property
    def set_budget(self) -> Callable[[float], None]:
        """A method that changes the budget from the next step on; there is none where the budget is another layer's."""
        return self._keeps("set_budget").set_budget

    def _keeps(self, name: str) -> AdaptiveWeight:
        if self._elsewhere or not isinstance(self.multiplier, AdaptiveWeight):
            raise AttributeError(name)
        return self.multiplier

    def set_weight(self, weight: float) -> None:
        """Change the reward per FLOP from the next step on, where it adapts as a new beginning.

        Raises:
            ConfigError: it is negative, NaN or infinite; 0, where it adapts.
        """
        self.multiplier.set_weight(weight)

    def freeze(self, frozen: bool = True) -> None:
        """Keep the weight as it is, whatever is spent here; with ``False`` let it adapt again."""
        self._counts = self.multiplier.adapts and not frozen

    def follow(self, env: gym.Env | VectorEnv) -> None:
        """Always have the weight of the ``ComputePenaltyReward`` in ``env``, single or vector; nothing here moves it.

        For evaluation environments. With ``freeze(False)`` afterwards both move it: one weight of two environments.

        Raises:
            WrapperOrderError: there is none in ``env``.
        """
        found = multiplier_in(env)
        if found is None:
            raise WrapperOrderError(f"{env} has no ComputePenaltyReward to follow; pass the training environment.")
        self.multiplier = found
        self.freeze()

    def take_budget(self, options: Any) -> None:
        """Set the budget that the ``options`` of a reset name, where it is this layer's.

        Raises:
            ConfigError, InfeasibleBudgetError: no dictionary, or see ``AdaptiveWeight.set_budget``.
        """
        if isinstance(self.multiplier, AdaptiveWeight):
            require_options(options)
            if not self._elsewhere and options is not None and "budget" in options:
                self.multiplier.set_budget(options["budget"])

    def weight_report(self) -> dict[str, Any]:
        """Return what ``info["compute"]`` says of the weight: nothing where it does not adapt."""
        return self.multiplier.report()

    def state_dict(self) -> dict[str, Any]:
        """Return what changes of the weight, as plain numbers: nothing where it does not adapt."""
        return self.multiplier.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned; raises CheckpointError."""
        self.multiplier.load_state_dict(state)


class StepCounter:
    """Counts the environment steps that run within one step of a wrapper: of an option, or held by a limit inside.

    Args:
        env: what the wrapper wraps.

    Attributes:
        least: FLOPs per environment step that the cheapest choice costs; 0 where nothing inside chooses.
    """

    def __init__(self, env: gym.Env) -> None:
        self._chooser: Any = find_chooser(env)
        self._limit = find_attribute(env, "limit_report") if self._chooser is None else None
        self._ran = 0 if self._chooser is None else self._chooser.steps_run
        self.least = 0 if self._chooser is None else int(self._chooser.choice_flops[0])

    def take(self, ended: bool) -> int:
        """Return the environment steps since the last call, one after each step of the wrapper.

        Args:
            ended: whether the step has ended the episode.
        """
        if self._chooser is not None:
            before, self._ran = self._ran, self._chooser.steps_run
            return self._ran - before
        return 1 + (int(self._limit()["held_steps"]) if ended and self._limit is not None else 0)


def multiplier_in(env: gym.Env | VectorEnv) -> Any:
    """Return what holds the weight of the outermost ``ComputePenaltyReward`` in ``env``, ``None`` without one."""
    layer: Any = env
    while layer is not None:
        if "multiplier" in vars(layer):
            return layer.multiplier
        layer = vars(layer).get("env")
    return None


def refuse_adaptive_weight(env: gym.Env | VectorEnv, name: str) -> None:
    """Check that no weight inside adapts, as the options of a reset name the budgets of both by one key.

    Raises:
        WrapperOrderError: one does.
    """
    if getattr(multiplier_in(env), "adapts", False):
        raise WrapperOrderError(
            f"{name} around ComputePenaltyReward(weight='auto'): reset(options={{'budget': ...}}) would set both "
            f"budgets. Put {name} inside, around the environment; multiplier.set_budget() then sets the penalty's."
        )


__all__ = ["StepCounter", "Weighing", "multiplier_in", "refuse_adaptive_weight"]
