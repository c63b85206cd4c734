"""check_wrapper finds the faults that admired wrappers had."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import RecordEpisodeStatistics, StickyAction

from budget_wrappers.errors import BudgetError, ContractError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import ComputeLimit, RecordComputeStatistics, check_wrapper
from tests.gymnasium_versions import VERSION, RepeatAction
from tests.wrappers.environments import make


class Faulty(gym.Wrapper, RecordConstructorArgs):
    """A wrapper without a fault; each subclass adds one."""

    def __init__(self, env: gym.Env) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)


class DropsSeed(Faulty):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.env.reset(options=options)


class DropsOptions(Faulty):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.env.reset(seed=seed)


class PopsOptions(Faulty):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        result = self.env.reset(seed=seed, options=dict(options or {}))
        (options or {}).pop("check_wrapper", None)
        return result


class EditsObservation(Faulty):
    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        observation *= 0.5
        return (observation, *rest)


class NumpyFlags(Faulty):
    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, np.bool_(terminated), truncated, info


class NotANumber(Faulty):
    def step(self, action: Any) -> Any:
        observation, _, *rest = self.env.step(action)
        return (observation, float("nan"), *rest)


class Float64Observation(Faulty):
    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        return observation.astype(np.float64) * 3, info


class LateInfo(Faulty):
    def step(self, action: Any) -> Any:
        *rest, info = self.env.step(action)
        return (*rest, {**info, "late": np.float64(1)})


class IntegerInfo(Faulty):
    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        return observation, {**info, "count": 0}

    def step(self, action: Any) -> Any:
        *rest, info = self.env.step(action)
        return (*rest, {**info, "count": 1})


class TalkativeInfo(Faulty):
    extra = dict.fromkeys("abcd", np.float64(0))

    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        return observation, info | self.extra

    def step(self, action: Any) -> Any:
        *rest, info = self.env.step(action)
        return (*rest, info | self.extra)


class NegativeCost(Faulty):
    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        return observation, {**info, "cost": np.float64(0)}

    def step(self, action: Any) -> Any:
        *rest, info = self.env.step(action)
        return (*rest, {**info, "cost": np.float64(-1)})


class CostAtReset(NegativeCost):
    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        return observation, {**info, "cost": np.float64(5)}


class PlainFloatCost(NegativeCost):
    def step(self, action: Any) -> Any:
        *rest, info = self.env.step(action)
        return (*rest, {**info, "cost": 1.0})


class GlobalNoise(Faulty):
    generator = np.random.default_rng(0)

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        return (observation, reward + float(self.generator.random()), *rest)


class ForgetsArgument(Faulty):
    def __init__(self, env: gym.Env, scale: float = 1.0) -> None:
        super().__init__(env)
        self.scale = scale


class RecordsNothing(gym.Wrapper):
    pass


class RecordsAnother(Faulty):
    """Recorded under the right name, with the wrong value: made again it is another wrapper."""

    def __init__(self, env: gym.Env, scale: float = 1.0) -> None:
        RecordConstructorArgs.__init__(self, scale=1.0)
        gym.Wrapper.__init__(self, env)
        self.scale = scale

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        return (observation, reward * self.scale, *rest)


class HoldsFunction(Faulty):
    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.function = lambda: 0


class ChangesInnerSpace(Faulty):
    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        env.unwrapped.observation_space = gym.spaces.Box(-2.0, 2.0, (3,), np.float32)


class NewSpaceEachTime(Faulty):
    @property
    def observation_space(self) -> gym.Space:
        return gym.spaces.Box(-1.0, 1.0, (3,), np.float32)


class PrivateName(Faulty):
    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.inner = env._saved_kwargs if isinstance(env, PrivateName) else None

    def reset(self, **kwargs: Any) -> Any:
        if self.inner is not None:
            raise AttributeError("accessing private attribute '_cost' is prohibited")
        return self.env.reset(**kwargs)


class KeepsOpen(Faulty):
    def close(self) -> None: ...


class HiddenBudget(Faulty):
    set_budget = None


class Renamed(Faulty):
    def __repr__(self) -> str:
        return "<wrapper>"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (DropsSeed, "Reset: seed 0 arrived as"),
        (DropsOptions, "Reset: options .* arrived as None"),
        (PopsOptions, "Reset: the caller's options became {}"),
        (EditsObservation, "Arrays: the wrapper edits an array"),
        (NumpyFlags, "Types: terminated and truncated are bool.* Hand out Python bools"),
        (NotANumber, "Types: the reward is nan"),
        (Float64Observation, "Spaces: the first observation .* is not in Box"),
        (LateInfo, r"Info: \['late'\] missing at reset"),
        (IntegerInfo, r"Info: info\['count'\] is 1"),
        (TalkativeInfo, r"Info: \['a', 'b', 'c', 'd'\] at every step"),
        (NegativeCost, r"Cost: info\['cost'\] is np.float64\(-1.0\)"),
        (CostAtReset, r"Cost: info\['cost'\] is .*5.0.* at reset"),
        (PlainFloatCost, r"Cost: info\['cost'\] is 1.0"),
        (GlobalNoise, "Determinism: at step 1"),
        (ForgetsArgument, r"Spec: ForgetsArgument records \[\] and takes \['scale'\]"),
        (RecordsNothing, "Spec: RecordsNothing does not record its arguments"),
        (lambda env: RecordsAnother(env, 2.0), "Spec: at step 1"),
        (HoldsFunction, "Pickle: .* cannot be pickled"),
        (ChangesInnerSpace, "Spaces: .* changed those of the environment inside"),
        (NewSpaceEachTime, "Spaces: each access makes a new space"),
        (PrivateName, "Nesting: wrapped twice it fails with accessing private attribute"),
        (KeepsOpen, "Close: the environment was not closed"),
        (Renamed, "Repr: repr is <wrapper>"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_is_named(fault: Any, message: str) -> None:
    with pytest.raises(ContractError, match=f"(?s){message}"):
        check_wrapper(make, fault, steps=16)


@pytest.mark.parametrize("wrapper", [Faulty, lambda env: RepeatAction(env, 2), lambda env: StickyAction(env, 0.5)])
def test_what_has_no_fault_passes(wrapper: Any) -> None:
    if VERSION < (1, 3) and isinstance(wrapper(make()), StickyAction):
        pytest.skip("it forgot to record an argument before 1.3")
    check_wrapper(make, wrapper, steps=16)


def test_it_finds_the_clock_in_gymnasiums_recorder() -> None:
    """``info["episode"]["t"]`` is wall-clock: the reason why ours has none."""
    with pytest.raises(ContractError, match="Determinism"):
        check_wrapper(make, RecordEpisodeStatistics, steps=16)


def test_a_meter_given_as_an_object_passes() -> None:
    """It neither serialises nor pickles, and says so itself."""
    check_wrapper(make, lambda env: RecordComputeStatistics(env, ComputeMeter("tests")))


def test_a_budget_out_of_reach_is_found() -> None:
    with pytest.raises(ContractError, match="Budget: set_budget is out of reach"):
        check_wrapper(make, HiddenBudget, steps=4)


def test_a_budget_within_reach_passes() -> None:
    check_wrapper(make, lambda env: ComputeLimit(env, 300, "truncate"), steps=16)


def test_contract_errors_are_budget_errors_and_assertions() -> None:
    assert issubclass(ContractError, BudgetError)
    assert issubclass(ContractError, AssertionError)
