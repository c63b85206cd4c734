"""ComputePenaltyReward(weight="auto"): a weight that keeps a mean cost at a budget."""

import json
import math
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.errors import CheckpointError, ConfigError, InfeasibleBudgetError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import (
    BudgetAwareObservation,
    ComputeLimit,
    ComputePenaltyReward,
    EarlyExitAction,
    RecordComputeStatistics,
    SubPolicyAction,
    vector,
)
from budget_wrappers.wrappers.multiplier import INITIAL_SHARE, PROPORTIONAL, RANGE, AdaptiveWeight
from tests.contracts.wrapper import WrapperContract
from tests.wrappers.environments import SpacesEnv, cheap, dear, exits, make


class TestContract(WrapperContract):
    wrapper = ComputePenaltyReward
    variants: ClassVar = {}

    def arguments(self, kind: str) -> dict[str, Any]:
        return {"weight": "auto", "budget": 32.0}  # it moves after 200 steps, and a reset does not put it back

    def test_every_argument_changes_something_visible(self) -> None:
        """See test_reward.py."""


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def adaptive(meter: ComputeMeter, budget: float = 100.0, end_at: int | None = None, **settings: Any) -> gym.Env:
    settings = {"rate": 0.2, **settings}
    return ComputePenaltyReward(SpacesEnv(end_at=end_at), "auto", meter=meter, budget=budget, **settings)


def spend(env: gym.Env, meter: ComputeMeter, costs: list[int]) -> list[float]:
    """Return the weight after each step; episodes begin anew where they end."""
    weights = []
    for cost in costs:
        meter.add(cost)
        *_, terminated, truncated, info = env.step(None)
        weights.append(float(info["penalty_weight"]))
        if terminated or truncated:
            env.reset()
    return weights


# ---- the law --------------------------------------------------------------------------------------------------------


def test_the_weight_rises_above_the_budget_and_falls_below(meter: ComputeMeter) -> None:
    env = adaptive(meter, initial_weight=1e-3)
    env.reset()
    first, second, third = spend(env, meter, [150, 150, 50])
    assert 1e-3 < first < second > third


def test_a_step_of_the_weight_matches_the_equation_by_hand(meter: ComputeMeter) -> None:
    env = adaptive(meter, initial_weight=1e-3)  # rate 0.2, so an interval of one step
    env.reset()
    # v = (150 − 100)/100 = 1/2, then (80 − 100)/100 = −1/5; the sum keeps both, the proportional part the last one.
    expected = [math.exp(0.2 * 0.5 + PROPORTIONAL * 0.5), math.exp(0.2 * (0.5 - 0.2) - PROPORTIONAL * 0.2)]
    assert spend(env, meter, [150, 80]) == pytest.approx([1e-3 * factor for factor in expected])


def test_at_the_budget_the_weight_stays(meter: ComputeMeter) -> None:
    env = adaptive(meter, initial_weight=1e-3)
    env.reset()
    assert spend(env, meter, [100] * 5) == pytest.approx([1e-3] * 5)


class Buyer(gym.Env):
    """Offers, at each step, a value in [0, 1] for 80 FLOPs more; ``step(1)`` takes it. Each costs 20 at least."""

    observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)
    offer = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._next(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = self.offer if action else 0.0
        return self._next(), reward, False, False, {}

    def _next(self) -> np.ndarray:
        self.offer = float(self.np_random.uniform())
        return np.array([self.offer])


def shop(env: gym.Env, meter: ComputeMeter, steps: int) -> list[int]:
    """Buy whatever is worth more than it costs: an agent that knows its weight."""
    costs, (observation, _) = [], env.reset(seed=0)
    for _ in range(steps):
        buys = observation[0] > 80 * env.get_wrapper_attr("weight")
        costs.append(100 if buys else 20)
        meter.add(costs[-1])
        observation = env.step(int(buys))[0]
    return costs


@pytest.mark.parametrize("initial", [None, 1e-5, 1.0])
@pytest.mark.parametrize("budget", [30.0, 60.0, 95.0])
def test_the_mean_cost_ends_at_the_budget_wherever_the_weight_begins(budget: float, initial: float | None) -> None:
    meter = ComputeMeter("tests")
    env = ComputePenaltyReward(Buyer(), "auto", meter=meter, budget=budget, initial_weight=initial)
    costs = shop(env, meter, 30_000)
    assert np.mean(costs[-6_000:]) == pytest.approx(budget, rel=0.05)


def test_the_mean_cost_is_off_by_what_the_weight_has_moved(meter: ComputeMeter) -> None:
    # Σ v = Δ log λ̄ / rate, exactly: whatever is bought.
    env = ComputePenaltyReward(Buyer(), "auto", meter=meter, budget=60.0, initial_weight=0.005, rate=2e-3)
    costs = shop(env, meter, 5_000)  # 50 intervals of 100 steps
    moved = env.state_dict()["_log"] - math.log(0.005)
    assert (np.mean(costs) - 60) / 60 == pytest.approx(moved / (2e-3 * 5_000), abs=1e-12)


def test_a_budget_that_nothing_keeps_leaves_the_weight_within_bounds(meter: ComputeMeter) -> None:
    env = adaptive(meter, initial_weight=1e-3)
    env.reset()
    high, low = max(spend(env, meter, [10**9] * 99)), min(spend(env, meter, [0] * 9_999))
    assert high == pytest.approx(1e-3 * math.exp(RANGE + PROPORTIONAL))
    assert low == pytest.approx(1e-3 * math.exp(-RANGE - PROPORTIONAL))


def test_without_an_initial_weight_the_budget_costs_a_share_of_the_rewards(meter: ComputeMeter) -> None:
    # Rewards 1, 2, 3, 4, 5 have the mean 3; five steps are the first interval, and cost the budget.
    env = adaptive(meter, rate=0.04)
    env.reset()
    weights = spend(env, meter, [100] * 5)
    assert weights[0] == pytest.approx(INITIAL_SHARE / 100)
    assert weights[-1] == pytest.approx(INITIAL_SHARE * 3 / 100)


# ---- steps ----------------------------------------------------------------------------------------------------------


def test_an_option_of_five_steps_is_five_steps_of_the_budget(meter: ComputeMeter) -> None:
    inside = SubPolicyAction(make(), [cheap("box"), dear("box")], hold=5, meter=meter)  # 10 and 40 FLOPs a step
    env = ComputePenaltyReward(inside, "auto", meter=meter, budget=40.0, initial_weight=1e-3, rate=0.2)
    env.reset()
    assert [env.step(1)[4]["penalty_weight"] for _ in range(3)] == pytest.approx([1e-3] * 3)  # 5, 5 and 2 steps
    assert env.multiplier.state_dict()["_steps"] == 0


def test_exits_are_one_step_each_and_the_agent_that_chooses_counts(meter: ComputeMeter) -> None:
    inside = EarlyExitAction(make(), exits(), meter=meter)  # 18 and 48
    env = ComputePenaltyReward(inside, "auto", meter=meter, budget=60.0, initial_weight=1e-3, rate=0.2)
    env.reset()
    meter.add(12, "gate")
    assert env.step(1)[4]["penalty_weight"] == pytest.approx(1e-3)


def test_steps_that_a_limit_holds_inside_count(meter: ComputeMeter) -> None:
    limited = ComputeLimit(SpacesEnv(end_at=4), 150, "hold", meter=meter, horizon=4)
    env = ComputePenaltyReward(limited, "auto", meter=meter, budget=50.0, initial_weight=1e-3)
    env.reset()
    meter.add(100)
    env.step(None)
    meter.add(100)
    assert env.step(None)[2]  # the limit is passed, and the last two steps are held
    assert env.state_dict()["_steps"] == 4


def test_a_budget_below_the_cheapest_choice_is_refused_with_both_numbers(meter: ComputeMeter) -> None:
    inside = SubPolicyAction(make(), [cheap("box"), dear("box")], meter=meter)
    with pytest.raises(InfeasibleBudgetError, match=r"budget=5 .* below the 10 that the cheapest choice"):
        ComputePenaltyReward(inside, "auto", meter=meter, budget=5.0)


# ---- budgets and weights at run time --------------------------------------------------------------------------------


def test_the_budget_changes_by_options_and_by_set_budget_through_further_layers(meter: ComputeMeter) -> None:
    env = gym.Wrapper(RecordComputeStatistics(adaptive(meter), meter))
    env.reset(options={"budget": 70.0})
    assert env.get_wrapper_attr("budget") == 70.0
    env.get_wrapper_attr("set_budget")(80.0)
    assert env.get_wrapper_attr("budget") == 80.0
    env.reset()
    assert env.get_wrapper_attr("budget") == 80.0


def test_a_new_budget_keeps_the_weight_and_forgets_what_was_spent_under_the_old(meter: ComputeMeter) -> None:
    env = adaptive(meter, rate=0.1, initial_weight=1e-3)  # two steps
    env.reset()
    spend(env, meter, [10_000])
    env.set_budget(200.0)
    assert spend(env, meter, [200, 200]) == pytest.approx([1e-3, 1e-3])


def test_options_of_a_layer_inside_that_takes_budgets_are_its_own(meter: ComputeMeter) -> None:
    limited = ComputeLimit(make(), 1_000, "truncate", meter=meter)
    env = ComputePenaltyReward(limited, "auto", meter=meter, budget=50.0)
    env.reset(options={"budget": 700})
    assert (limited.max_flops, env.multiplier.budget) == (700, 50.0)
    env.get_wrapper_attr("set_budget")(800)
    assert (limited.max_flops, env.multiplier.budget) == (800, 50.0)
    env.multiplier.set_budget(60.0)
    assert (limited.max_flops, env.multiplier.budget) == (800, 60.0)


def test_a_limit_around_it_is_refused_as_options_would_set_both(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match=r"Put ComputeLimit inside"):
        ComputeLimit(adaptive(meter), 1_000, "truncate", meter=meter)


@pytest.mark.parametrize("weight", [0.1, "auto"])
def test_the_budget_of_an_observation_inside_is_found_through_it(meter: ComputeMeter, weight: Any) -> None:
    keeps = {"budget": 50.0} if weight == "auto" else {}
    env = ComputePenaltyReward(BudgetAwareObservation(make(), "budget"), weight, meter=meter, **keeps)
    env.reset(options={"budget": 0.4})
    assert env.get_wrapper_attr("budget") == 0.4


def test_a_share_is_no_budget(meter: ComputeMeter) -> None:
    env = BudgetAwareObservation(ComputePenaltyReward(make(), "auto", meter=meter, budget=50.0), "budget")
    with pytest.raises(ConfigError, match=r"budget=0.4: expected mean FLOPs per environment step, a number above 1"):
        env.reset(options={"budget": 0.4})


def test_a_fixed_weight_takes_no_budget(meter: ComputeMeter) -> None:
    env = ComputePenaltyReward(make(), 0.1, meter=meter)
    assert not env.has_wrapper_attr("set_budget") and not env.has_wrapper_attr("budget")
    env.reset(options={"budget": 3.0})


def test_set_weight_is_a_new_beginning(meter: ComputeMeter) -> None:
    env = adaptive(meter)
    env.reset()
    env.set_weight(0.5)
    assert env.weight == 0.5
    assert spend(env, meter, [100]) == pytest.approx([0.5])
    with pytest.raises(ConfigError, match=r"weight=0: expected a finite number > 0"):
        env.set_weight(0)


def test_a_frozen_weight_stays_whatever_is_spent(meter: ComputeMeter) -> None:
    env = adaptive(meter, initial_weight=1e-3)
    env.reset()
    env.freeze()
    assert spend(env, meter, [10_000] * 3) == [1e-3] * 3
    env.freeze(False)
    assert spend(env, meter, [150])[0] > 1e-3


def test_an_evaluation_environment_follows_and_moves_nothing(meter: ComputeMeter) -> None:
    training, other = adaptive(meter, initial_weight=1e-3), ComputeMeter("tests.other")
    evaluation = adaptive(other, initial_weight=7.0)
    evaluation.follow(gym.Wrapper(training))
    training.reset()
    evaluation.reset()
    spend(training, meter, [150])
    assert spend(evaluation, other, [10_000])[0] == training.weight != 1e-3
    with pytest.raises(WrapperOrderError, match=r"has no ComputePenaltyReward to follow"):
        evaluation.follow(make())


# ---- state ----------------------------------------------------------------------------------------------------------


def test_a_state_that_went_through_json_goes_on_to_the_same_weights(meter: ComputeMeter) -> None:
    first, second = (adaptive(meter, rate=0.07, end_at=4) for _ in range(2))
    costs = np.random.default_rng(0).integers(0, 300, 60).tolist()
    first.reset()
    spend(first, meter, costs[:31])
    first.set_budget(90.0)
    second.reset()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    first.reset()
    assert second.budget == 90.0
    assert spend(first, meter, costs[31:]) == spend(second, meter, costs[31:])


@pytest.mark.parametrize("state", [{}, {"weight": 1.0}, None, "weight"])
def test_another_state_is_refused(state: Any, meter: ComputeMeter) -> None:
    with pytest.raises(CheckpointError, match="is not that of an adaptive weight"):
        adaptive(meter).load_state_dict(state)


def test_a_state_with_nan_is_refused(meter: ComputeMeter) -> None:
    env = adaptive(meter)
    with pytest.raises(CheckpointError, match="expected finite numbers"):
        env.load_state_dict({**env.state_dict(), "weight": math.nan})


def test_a_fixed_weight_has_no_state_and_refuses_another_kinds(meter: ComputeMeter) -> None:
    fixed = ComputePenaltyReward(make(), 0.1, meter=meter)
    assert fixed.state_dict() == {}
    fixed.load_state_dict({})
    with pytest.raises(CheckpointError, match=r"weight=0.1 is fixed"):
        fixed.load_state_dict(adaptive(meter).state_dict())


# ---- reports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorder_first", [True, False])
def test_the_account_of_an_episode_has_the_weight_in_either_order(meter: ComputeMeter, recorder_first: bool) -> None:
    base = SpacesEnv(end_at=3)
    if recorder_first:
        env = ComputePenaltyReward(RecordComputeStatistics(base, meter), "auto", meter=meter, budget=100.0, rate=0.2)
    else:
        penalised = ComputePenaltyReward(base, "auto", meter=meter, budget=100.0, rate=0.2)
        env = RecordComputeStatistics(penalised, meter)
    env.reset()
    for _ in range(3):
        meter.add(150)
        info = env.step(None)[4]
    assert info["compute"]["penalty_weight"] == info["penalty_weight"] == env.get_wrapper_attr("weight")


def test_a_fixed_weight_adds_no_key(meter: ComputeMeter) -> None:
    env = ComputePenaltyReward(make(), 0.1, meter=meter)
    assert "penalty_weight" not in env.reset()[1]


# ---- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight": "auto"}, r"weight='auto' with budget=None; expected the mean FLOPs per environment step"),
        ({"weight": 0.1, "budget": 50.0}, r"budget=50.0 with weight=0.1; expected weight='auto'"),
        ({"weight": 0.1, "initial_weight": 0.2}, r"initial_weight=0.2 with weight=0.1"),
        ({"weight": 0.1, "rate": 0.2}, r"rate=0.2 with weight=0.1"),
        ({"weight": "auto", "budget": 0}, r"budget=0: expected mean FLOPs"),
        ({"weight": "auto", "budget": -3.0}, r"budget=-3.0: expected mean FLOPs"),
        ({"weight": "auto", "budget": math.nan}, r"budget=nan: expected mean FLOPs"),
        ({"weight": "auto", "budget": "9"}, r"budget='9': expected mean FLOPs"),
        ({"weight": "auto", "budget": 50.0, "initial_weight": 0}, r"initial_weight=0: expected a finite number > 0"),
        ({"weight": "auto", "budget": 50.0, "rate": 0}, r"rate=0: expected a number in \(0, 1\]"),
        ({"weight": "auto", "budget": 50.0, "rate": 2.0}, r"rate=2.0: expected a number in \(0, 1\]"),
        ({"weight": "automatic"}, r"weight='automatic'; expected a finite number >= 0"),
    ],
)
@pytest.mark.parametrize("vectorised", [False, True])
def test_bad_arguments_raise_with_value_and_expectation(given: Any, message: str, vectorised: bool) -> None:
    env: Any = gym.make_vec("CartPole-v1", num_envs=2) if vectorised else make()
    kind: Any = vector.ComputePenaltyReward if vectorised else ComputePenaltyReward
    with pytest.raises(ConfigError, match=message):
        kind(env, **given)


def test_a_weight_of_options_does_not_adapt(meter: ComputeMeter) -> None:
    with pytest.raises(ConfigError, match=r"weight='auto'; expected a finite number >= 0 here"):
        SubPolicyAction(make(), [cheap("box"), dear("box")], weight="auto", meter=meter)


# ---- several environments -------------------------------------------------------------------------------------------


def test_one_weight_for_all_environments_counts_what_each_has_spent() -> None:
    meter = ComputeMeter("tests")
    envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    envs = vector.ComputePenaltyReward(envs, "auto", meter=meter, budget=100.0, initial_weight=1e-3, rate=0.1)
    envs.reset(seed=0)
    meter.add(200, rows=2, by_row=[50, 150])
    assert envs.step(np.array([0, 1]))[4]["penalty_weight"].tolist() == pytest.approx([1e-3] * 2)
    meter.add(300, rows=2, by_row=[50, 250])
    single = AdaptiveWeight(100.0, 1e-3, 0.1)
    single.count(300, 2, 2.0)
    assert envs.step(np.array([0, 1]))[4]["penalty_weight"].tolist() == [single.weight] * 2


def test_a_step_that_only_resets_is_no_step_of_the_budget() -> None:
    meter = ComputeMeter("tests")
    envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync", max_episode_steps=2)
    envs = vector.ComputePenaltyReward(envs, "auto", meter=meter, budget=100.0)
    envs.reset(seed=0)
    for _ in range(3):  # two steps of each, and one that resets both
        meter.add(200, rows=2)
        envs.step(np.array([0, 1]))
    assert envs.state_dict()["_steps"] == 4
    assert envs.state_dict()["_cost"] == 400


def test_a_limit_around_a_vector_penalty_is_refused() -> None:
    envs = gym.make_vec("CartPole-v1", num_envs=2)
    with pytest.raises(WrapperOrderError, match=r"Put ComputeLimit inside"):
        vector.ComputeLimit(vector.ComputePenaltyReward(envs, "auto", budget=100.0), 1_000)
