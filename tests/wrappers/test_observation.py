"""BudgetAwareObservation: the budget as an input."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from budget_wrappers.errors import ConfigError, SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers import BudgetAwareObservation, ComputeLimit
from tests.contracts.wrapper import WrapperContract
from tests.wrappers.environments import SpacesEnv, make


class TestContract(WrapperContract):
    wrapper = BudgetAwareObservation
    variants: ClassVar = {
        "what": ({"what": "remaining"}, {"what": "budget"}),
        "flatten": ({"flatten": True}, {"flatten": False}),
        "scale": ({"what": "budget", "scale": 300}, {"what": "budget", "scale": 600}),
        "dict_key": ({"flatten": False, "dict_key": "budget"}, {"flatten": False, "dict_key": "left"}),
        "draw": ({"what": "remaining"}, {"what": "budget"}),  # needs no limit inside: below
    }

    def inside(self, env: gym.Env) -> gym.Env:
        return ComputeLimit(env, 300, "terminate")


class TestGivenBudgetContract(TestContract):
    variants: ClassVar = {
        **TestContract.variants,
        "scale": TestContract.variants["what"],  # needs a limit inside, as above
        "draw": ({"what": "budget", "draw": (0.1, 0.3)}, {"what": "budget", "draw": (0.5, 0.5)}),
    }

    def arguments(self, kind: str) -> dict[str, Any]:
        return {"what": "budget", "flatten": kind != "tuple"}

    def wrap(self, env: gym.Env, kind: str = "box", **arguments: Any) -> gym.Wrapper:
        if arguments.get("what") == "remaining":
            return super().wrap(env, kind, **arguments)
        return self.wrapper(env, **{**self.arguments(kind), **arguments})


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def limited(meter: ComputeMeter, kind: str = "box", limit: int = 100) -> ComputeLimit:
    return ComputeLimit(SpacesEnv(kind), limit, "terminate", meter=meter)


def test_the_remaining_share_falls_as_it_is_spent(meter: ComputeMeter) -> None:
    env = BudgetAwareObservation(limited(meter))
    shares = [env.reset()[0][-1]]
    for cost in (25, 0, 50):
        meter.add(cost)
        shares.append(env.step(None)[0][-1])
    assert shares == [1.0, 0.75, 0.75, 0.25]


def test_an_overshot_limit_leaves_nothing(meter: ComputeMeter) -> None:
    env = BudgetAwareObservation(limited(meter))
    env.reset()
    meter.add(1000)
    assert env.step(None)[0][-1] == 0.0


def test_the_budget_is_constant_over_an_episode(meter: ComputeMeter) -> None:
    env = BudgetAwareObservation(limited(meter), what="budget", scale=400)
    first = env.reset()[0][-1]
    meter.add(25)
    assert first == env.step(None)[0][-1] == 0.25


def test_the_first_limit_is_the_scale_and_more_is_cut_at_1(meter: ComputeMeter) -> None:
    env = BudgetAwareObservation(limited(meter), what="budget")
    assert [env.reset(options={"budget": budget})[0][-1] for budget in (100, 50, 400)] == [1.0, 0.5, 1.0]


def test_a_budget_passes_through_to_the_limit(meter: ComputeMeter) -> None:
    inner = limited(meter)
    env = gym.Wrapper(BudgetAwareObservation(inner))
    env.get_wrapper_attr("set_budget")(700)
    env.reset()
    assert inner.remaining == 700


@pytest.mark.parametrize("through_reset", [True, False])
def test_a_share_can_be_given_without_a_limit(through_reset: bool) -> None:
    env = BudgetAwareObservation(SpacesEnv(), what="budget")
    assert env.reset()[0][-1] == 1.0
    if through_reset:
        observation, _ = env.reset(options={"budget": 0.4})
    else:
        env.set_budget(0.4)
        assert env.step(None)[0][-1] == 1.0  # from the next reset on
        observation, _ = env.reset()
    assert observation[-1] == np.float32(0.4)


@pytest.mark.parametrize("budget", [-0.1, 1.1, float("nan"), 500, "1", True])
def test_a_share_outside_0_and_1_raises(budget: Any) -> None:
    with pytest.raises(ConfigError, match="expected a share in"):
        BudgetAwareObservation(SpacesEnv(), what="budget").set_budget(budget)


@pytest.mark.parametrize("arguments", [{}, {"what": "budget", "scale": 100}])
def test_what_needs_a_limit_says_where_it_goes(arguments: dict[str, Any]) -> None:
    with pytest.raises(WrapperOrderError, match=r"BudgetAwareObservation\(ComputeLimit\(env, max_flops\)\)"):
        BudgetAwareObservation(SpacesEnv(), **arguments)


@pytest.mark.parametrize("arguments", [{"what": "spent"}, {"what": "budget", "scale": -1}])
def test_arguments_out_of_bounds_raise(meter: ComputeMeter, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        BudgetAwareObservation(limited(meter), **arguments)


# Spaces: flattening a float32 observation with an integer entry makes it float64 in Gymnasium.


@pytest.mark.parametrize(
    ("kind", "length"),
    # discrete 4 one-hot, multidiscrete 3 + 2, dict and tuple 2 + 2, and the budget
    [("box", 3 + 1), ("discrete", 4 + 1), ("multidiscrete", 5 + 1), ("dict", 4 + 1), ("tuple", 4 + 1)],
)
def test_a_flat_observation_is_float32_with_the_budget_last(meter: ComputeMeter, kind: str, length: int) -> None:
    env = BudgetAwareObservation(limited(meter, kind))
    observation, _ = env.reset(seed=0)
    assert env.observation_space.dtype == np.float32
    assert (env.observation_space.low[-1], env.observation_space.high[-1]) == (0.0, 1.0)
    assert (observation.dtype, observation.shape, observation[-1]) == (np.float32, (length,), 1.0)
    inner, _ = SpacesEnv(kind).reset(seed=0)
    np.testing.assert_array_equal(observation[:-1], spaces.flatten(SpacesEnv(kind).observation_space, inner))


def test_float64_observations_stay_float64(meter: ComputeMeter) -> None:
    env = limited(meter)
    env.unwrapped.observation_space = spaces.Box(-1.0, 1.0, (3,), np.float64)
    assert BudgetAwareObservation(env).observation_space.dtype == np.float64


def test_unflattened_a_dict_gets_a_key(meter: ComputeMeter) -> None:
    env = BudgetAwareObservation(limited(meter, "dict"), flatten=False)
    observation, _ = env.reset()
    assert set(observation) == {"position", "mode", "budget"}
    assert observation in env.observation_space
    assert (observation["budget"].dtype, observation["budget"].shape) == (np.float32, (1,))


def test_unflattened_a_tuple_gets_a_last_element(meter: ComputeMeter) -> None:
    env = BudgetAwareObservation(limited(meter, "tuple"), flatten=False)
    observation, _ = env.reset()
    assert len(observation) == 3
    assert observation in env.observation_space


@pytest.mark.parametrize("kind", ["box", "discrete", "multidiscrete"])
def test_unflattened_others_become_a_dict(meter: ComputeMeter, kind: str) -> None:
    env = BudgetAwareObservation(limited(meter, kind), flatten=False)
    observation, _ = env.reset()
    assert set(observation) == {"obs", "budget"}
    assert observation in env.observation_space


@pytest.mark.parametrize(("kind", "key"), [("dict", "mode"), ("box", "obs")])
def test_a_key_that_is_taken_raises(meter: ComputeMeter, kind: str, key: str) -> None:
    with pytest.raises(SpaceError, match=f"dict_key={key!r} is taken"):
        BudgetAwareObservation(limited(meter, kind), flatten=False, dict_key=key)


def test_what_has_no_fixed_length_cannot_be_flattened(meter: ComputeMeter) -> None:
    env = limited(meter)
    env.unwrapped.observation_space = spaces.Sequence(spaces.Discrete(3))
    with pytest.raises(SpaceError, match="pass flatten=False"):
        BudgetAwareObservation(env)


def test_the_environments_observation_is_not_written_to(meter: ComputeMeter) -> None:
    env = make("dict")
    inner = env.unwrapped
    wrapped = BudgetAwareObservation(ComputeLimit(env, 100, "terminate"), flatten=False)
    get_meter("policy").add(0)
    wrapped.reset(seed=0)
    assert set(inner.observation_space.spaces) == {"position", "mode"}


def test_a_drawn_budget_stays_for_an_episode_and_follows_the_seed() -> None:
    env = BudgetAwareObservation(SpacesEnv("box"), "budget", draw=(0.2, 0.4))
    drawn = []
    for seed in (1, 2, 1):
        drawn.append(float(env.reset(seed=seed)[0][-1]))
        assert float(env.step(None)[0][-1]) == drawn[-1]
    assert drawn[0] == drawn[2] != drawn[1]
    assert all(0.2 <= budget <= 0.4 for budget in drawn)
    assert len({float(env.reset()[0][-1]) for _ in range(5)}) == 5


def test_a_budget_that_is_given_is_drawn_no_more_until_none_is() -> None:
    env = BudgetAwareObservation(SpacesEnv("box"), "budget", draw=(0.2, 0.4))
    assert env.reset(seed=0, options={"budget": 0.9})[0][-1] == np.float32(0.9)
    assert env.reset(seed=0)[0][-1] == np.float32(0.9)
    env.set_budget(None)
    assert 0.2 <= env.reset(seed=0)[0][-1] <= 0.4


def test_drawing_leaves_the_environment_s_own_numbers_alone() -> None:
    plain, drawn = gym.make("CartPole-v1"), gym.make("CartPole-v1")
    env = BudgetAwareObservation(drawn, "budget", draw=(0.0, 1.0))
    for seed in (3, None, None):
        np.testing.assert_array_equal(plain.reset(seed=seed)[0], env.reset(seed=seed)[0][:-1])


@pytest.mark.parametrize("draw", [(0.5, 0.2), (0.0, 1.5), (0.1,), 0.5, (None, 1.0)])
def test_ends_that_nothing_can_be_drawn_between_are_refused(draw: Any) -> None:
    with pytest.raises(ConfigError, match="expected"):
        BudgetAwareObservation(SpacesEnv("box"), "budget", draw=draw)


def test_a_limit_s_budget_is_not_drawn(meter: ComputeMeter) -> None:
    with pytest.raises(ConfigError, match="no ComputeLimit inside"):
        BudgetAwareObservation(limited(meter), "budget", draw=(0.0, 1.0))


@pytest.mark.parametrize("options", [5, "budget", [1], ("budget",), 0.5])
@pytest.mark.parametrize("limited_inside", [True, False])
def test_options_that_are_no_dictionary_are_refused_with_the_remedy(
    options: Any, limited_inside: bool, meter: ComputeMeter
) -> None:
    env = limited(meter) if limited_inside else BudgetAwareObservation(SpacesEnv("box"), "budget")
    with pytest.raises(ConfigError, match=r"reset\(options=.*\); expected a dictionary or None"):
        env.reset(options=options)
