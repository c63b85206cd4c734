"""Traps of vector environments that other libraries fell into. Each test names one."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from budget_wrappers.errors import (
    ConfigError,
    InfoKeyError,
    MeterError,
    SpaceError,
    WrapperOrderError,
)
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers.vector import (
    BudgetAwareObservation,
    ComputeDelayAction,
    ComputeLimit,
    ComputePenaltyReward,
    ComputeVectorReward,
    EarlyExitAction,
    RecordComputeStatistics,
    SubPolicyAction,
)
from tests.gymnasium_versions import AutoresetMode, sync
from tests.wrappers.environments import SpacesEnv

NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
ACTIONS = np.zeros((2, 3), np.float32)

WRAPPERS: dict[str, Callable[[VectorEnv, ComputeMeter], VectorEnv]] = {
    "record": RecordComputeStatistics,
    "penalty": lambda envs, meter: ComputePenaltyReward(envs, 0.01, meter=meter),
    "vector_reward": ComputeVectorReward,
    "limit": lambda envs, meter: ComputeLimit(envs, 300, meter=meter),
    "observation": lambda envs, meter: BudgetAwareObservation(envs, "budget"),
    "options": lambda envs, meter: SubPolicyAction(envs, ["cheap-box", "dear-box"], meter=meter),
    "exits": lambda envs, meter: EarlyExitAction(envs, "exits-box", meter=meter),
    "delay": lambda envs, meter: ComputeDelayAction(envs, [(100, 5_000.0)], 0.02, meter=meter),
}
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def make(mode: AutoresetMode = DISABLED, ends: tuple[int | None, ...] = (None, None), **kwargs: Any) -> VectorEnv:
    """Return two environments, with rewards 1, 2, 3 in each, that end after so many steps."""
    return sync([lambda end=end: SpacesEnv(end_at=end, **kwargs) for end in ends], mode)


def step(envs: VectorEnv, meter: ComputeMeter, costs: list[int]) -> Any:
    meter.add(sum(costs), rows=2, by_row=costs)
    return envs.step(np.zeros(envs.action_space.shape, envs.action_space.dtype))


# ---- resets ----------------------------------------------------------------------------------------------------------


def test_the_step_that_only_resets_is_executed_and_not_charged(meter: ComputeMeter) -> None:
    """NEXT_STEP: skrl stores that transition, so its cost has to be 0; the policy did run."""
    envs = RecordComputeStatistics(make(NEXT, ends=(1, None)), meter)
    envs.reset(seed=0)
    infos = [step(envs, meter, [8, 5])[4] for _ in range(3)]
    assert [info["cost"].tolist() for info in infos] == [[8.0, 5.0], [0.0, 5.0], [8.0, 5.0]]
    assert (meter.executed, meter.uncharged) == (39, 8)
    assert infos[2]["compute"]["steps"].tolist() == [1.0, 0.0]


def test_the_last_cost_stands_in_the_final_info(meter: ComputeMeter) -> None:
    """SAME_STEP: who reads the top level only loses it."""
    envs = RecordComputeStatistics(make(SAME, ends=(2, None)), meter)
    envs.reset(seed=0)
    step(envs, meter, [3, 4])
    infos = step(envs, meter, [8, 5])[4]
    assert (infos["cost"].tolist(), infos["_cost"].tolist()) == ([0.0, 5.0], [True, True])
    final = infos["final_info"]
    assert (final["cost"].tolist(), final["_cost"].tolist()) == ([8.0, 0.0], [True, False])
    assert (final["compute"]["flops"].tolist(), final["_compute"].tolist()) == ([11.0, 0.0], [True, False])
    assert "compute" not in infos


@pytest.mark.parametrize("mode", [NEXT, DISABLED])
def test_the_account_of_an_episode_stands_at_the_top_otherwise(meter: ComputeMeter, mode: AutoresetMode) -> None:
    envs = RecordComputeStatistics(make(mode, ends=(2, None)), meter)
    envs.reset(seed=0)
    assert "compute" not in step(envs, meter, [3, 4])[4]
    infos = step(envs, meter, [8, 5])[4]
    assert (infos["compute"]["flops"].tolist(), infos["_compute"].tolist()) == ([11.0, 0.0], [True, False])
    assert infos["compute"]["_flops"].tolist() == infos["compute"]["_share_flops"].tolist() == [True, False]


@every_wrapper
def test_a_masked_reset_arrives_and_the_callers_options_stay(wrap: Any, meter: ComputeMeter) -> None:
    """Vector environments take the mask out of the dictionary they are given."""
    base = make()
    envs = wrap(base, meter)
    envs.reset(seed=0)
    step(envs, meter, [1, 1])
    options = {"reset_mask": np.array([False, True]), "x": 1}
    envs.reset(options=options)
    assert options["reset_mask"].tolist() == [False, True]
    assert set(options) == {"reset_mask", "x"}
    assert [env.steps for env in base.envs] == [1, 0]
    assert base.envs[1].resets[-1]["options"] == {"x": 1}


def test_a_masked_reset_restarts_the_accounts_of_its_rows_only(meter: ComputeMeter) -> None:
    """Gymnasium's own recorder delegated first and looked for the mask later: [5 5 5] became [0 0 0]."""
    envs = RecordComputeStatistics(ComputePenaltyReward(make(ends=(3, 2)), 0.5, meter=meter), meter)
    envs.reset(seed=0)
    for _ in range(2):
        infos = step(envs, meter, [4, 6])[4]
    assert infos["compute"]["flops"].tolist() == [0.0, 12.0]
    _, infos = envs.reset(options={"reset_mask": np.array([False, True])})
    assert (infos["cost"].tolist(), infos["_cost"].tolist()) == ([0.0, 0.0], [False, True])
    account = step(envs, meter, [4, 6])[4]["compute"]
    # 1 + 2 + 3 = 6, less half of 12
    assert (account["flops"][0], account["steps"][0]) == (12.0, 3.0)
    assert (account["return_raw"][0], account["return_penalised"][0]) == (6.0, 0.0)


def test_who_acts_before_a_masked_reset_pays_for_the_others_only(meter: ComputeMeter) -> None:
    envs = RecordComputeStatistics(make(ends=(None, 1)), meter)
    envs.reset(seed=0)
    step(envs, meter, [1, 1])
    meter.add(30, rows=2, by_row=[10, 20])
    envs.reset(options={"reset_mask": np.array([False, True])})
    assert step(envs, meter, [1, 2])[4]["cost"].tolist() == [11.0, 2.0]
    assert meter.uncharged == 20


@every_wrapper
def test_seeds_arrive(wrap: Any, meter: ComputeMeter) -> None:
    base = make()
    envs = wrap(base, meter)
    envs.reset(seed=11)
    envs.reset(seed=[5, 7])
    assert [[reset["seed"] for reset in env.resets] for env in base.envs] == [[11, 5], [12, 7]]


def test_what_was_pending_at_a_reset_is_nobodys_cost(meter: ComputeMeter) -> None:
    envs = RecordComputeStatistics(make(), meter)
    meter.add(99)
    envs.reset(seed=0)
    assert step(envs, meter, [1, 2])[4]["cost"].tolist() == [1.0, 2.0]


def test_an_evaluation_on_the_same_meter_changes_no_episode(meter: ComputeMeter) -> None:
    envs, evaluation = (RecordComputeStatistics(make(ends=(2, 2)), meter) for _ in range(2))
    envs.reset(seed=0)
    step(envs, meter, [1, 2])
    evaluation.reset(seed=0)
    step(evaluation, meter, [100, 200])
    assert step(envs, meter, [1, 2])[4]["compute"]["flops"].tolist() == [2.0, 4.0]


# ---- infos -----------------------------------------------------------------------------------------------------------


@every_wrapper
def test_at_most_three_keys_a_step_and_all_of_them_floats(wrap: Any, meter: ComputeMeter) -> None:
    """A vector environment's readers take the type of an array from the first environment: ints would cut 0.7 to 0."""
    envs = wrap(make(), meter)
    for infos in (envs.reset(seed=0)[1], step(envs, meter, [1, 2])[4]):
        own = {key: value for key, value in infos.items() if not key.startswith("_")}
        assert len(own) <= 3
        assert {value.dtype for value in own.values()} <= {np.dtype(np.float64)}
        assert {f"_{key}" for key in own} == set(infos) - set(own)


def test_two_steps_share_no_array(meter: ComputeMeter) -> None:
    envs = RecordComputeStatistics(make(), meter)
    first = envs.reset(seed=0)[1]
    second, third = (step(envs, meter, [1, 1])[4] for _ in range(2))
    second["cost"][:] = second["_cost"][:] = 9
    assert (first["cost"].tolist(), third["cost"].tolist(), third["_cost"].tolist()) == ([0, 0], [1, 1], [True, True])
    assert step(envs, meter, [1, 1])[4]["cost"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("mode", [NEXT, SAME])
def test_a_key_of_the_environments_is_not_overwritten(mode: AutoresetMode, meter: ComputeMeter) -> None:
    envs = RecordComputeStatistics(make(mode, info={"cost": 3.0}), meter)
    with pytest.raises(InfoKeyError, match="key='compute_cost'"):
        envs.reset()


def test_another_key_leaves_the_environments_cost_alone(meter: ComputeMeter) -> None:
    envs = RecordComputeStatistics(make(info={"cost": 3.0}), meter, key="compute_cost")
    envs.reset()
    infos = step(envs, meter, [5, 6])[4]
    assert (infos["cost"].tolist(), infos["compute_cost"].tolist()) == ([3.0, 3.0], [5.0, 6.0])


@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
def test_gymnasiums_own_recorder_agrees_on_either_side(mode: AutoresetMode, meter: ComputeMeter) -> None:
    envs = RecordEpisodeStatistics(RecordComputeStatistics(make(mode, ends=(3, None)), meter))
    envs = ComputePenaltyReward(envs, 0.5, meter=meter)
    envs.reset(seed=0)
    for _ in range(3):
        infos = step(envs, meter, [4, 6])[4]
    account = infos["final_info"]["compute"] if mode is SAME else infos["compute"]
    assert infos["episode"]["r"][0] == account["return_raw"][0] == 6.0
    assert infos["episode"]["l"][0] == account["steps"][0] == 3.0
    assert account["return_penalised"][0] == 0.0  # a penalty outside reports into the account inside


# ---- stacks and errors -----------------------------------------------------------------------------------------------


@every_wrapper
def test_a_single_environment_names_the_scalar_wrapper(wrap: Any, meter: ComputeMeter) -> None:
    with pytest.raises(SpaceError, match=r"expected a gymnasium\.vector\.VectorEnv.*budget_wrappers\.wrappers\."):
        wrap(SpacesEnv(), meter)


@every_wrapper
def test_spaces_are_one_object_and_hold_what_comes(wrap: Any, meter: ComputeMeter) -> None:
    envs = wrap(make(), meter)
    assert envs.observation_space is envs.observation_space
    assert envs.reset(seed=0)[0] in envs.observation_space
    assert step(envs, meter, [1, 2])[0] in envs.observation_space
    assert type(envs).__name__ in repr(envs)


@every_wrapper
def test_closing_closes_and_lets_go_of_the_meter(wrap: Any, meter: ComputeMeter) -> None:
    base = make()
    envs = wrap(base, meter)
    envs.close()
    envs.close()
    assert base.closed
    assert meter.row_ledger is None


def test_the_same_cost_is_not_charged_twice(meter: ComputeMeter) -> None:
    inner = ComputePenaltyReward(make(), 0.1, meter=meter)
    for wrap in (ComputeVectorReward, lambda envs, meter: ComputePenaltyReward(envs, 0.1, meter=meter)):
        with pytest.raises(WrapperOrderError, match="a second time"):
            wrap(inner, meter)


def test_vector_rewards_go_outermost(meter: ComputeMeter) -> None:
    for name in ("record", "penalty"):
        with pytest.raises(WrapperOrderError, match="Put ComputeVectorReward outermost"):
            WRAPPERS[name](ComputeVectorReward(make(), meter), meter)


def test_a_second_recorder_or_limit_raises(meter: ComputeMeter) -> None:
    with pytest.raises(InfoKeyError, match="One RecordComputeStatistics is enough"):
        RecordComputeStatistics(RecordComputeStatistics(make(), meter), meter, key="other")
    with pytest.raises(WrapperOrderError, match="has a ComputeLimit already"):
        ComputeLimit(ComputeLimit(make(), 300, meter=meter), 300, meter=meter)


def test_an_episode_that_nothing_was_connected_to_raises_at_its_end(meter: ComputeMeter) -> None:
    envs = RecordComputeStatistics(make(ends=(2, None)), meter)
    envs.reset()
    envs.step(ACTIONS)
    with pytest.raises(MeterError, match="never watched a module nor received a charge"):
        envs.step(ACTIONS)


def test_rows_of_another_batch_raise(meter: ComputeMeter) -> None:
    envs = RecordComputeStatistics(make(), meter)
    envs.reset()
    meter.add(30, rows=3)
    with pytest.raises(MeterError, match=r"3 rows under the name 'tests'.*2 environments"):
        envs.step(ACTIONS)


def test_two_meters_are_two_accounts(meter: ComputeMeter) -> None:
    other = ComputeMeter("other")
    envs = ComputePenaltyReward(RecordComputeStatistics(make(), meter), 1.0, meter=other)
    envs.reset()
    other.add(2, rows=2, by_row=[0, 2])
    _, rewards, _, _, infos = step(envs, meter, [5, 6])
    assert (infos["cost"].tolist(), rewards.tolist()) == ([5.0, 6.0], [1.0, -1.0])


def test_a_mode_that_nobody_knows_is_refused(meter: ComputeMeter) -> None:
    envs = make()
    envs.metadata["autoreset_mode"] = "Sometimes"
    with pytest.raises(ConfigError, match=r"expected a gymnasium\.vector\.AutoresetMode"):
        RecordComputeStatistics(envs, meter)


def test_without_a_declared_mode_it_is_the_one_of_old_gymnasium(meter: ComputeMeter) -> None:
    """Gymnasium 1.0 declares none and behaves like NEXT_STEP."""
    base = make(NEXT, ends=(1, None))
    base.metadata.pop("autoreset_mode", None)
    envs = RecordComputeStatistics(base, meter)
    envs.reset(seed=0)
    assert [step(envs, meter, [8, 5])[4]["cost"].tolist() for _ in range(2)] == [[8.0, 5.0], [0.0, 5.0]]


def test_worker_processes_need_no_meter() -> None:
    """The wrapper is in the process of the policy; its account stays there."""
    meter = get_meter("tests.vector.workers")
    envs = RecordComputeStatistics(AsyncVectorEnv([lambda: SpacesEnv(end_at=2)] * 2), "tests.vector.workers")
    envs.reset(seed=0)
    step(envs, meter, [3, 4])
    assert step(envs, meter, [3, 4])[4]["compute"]["flops"].tolist() == [6.0, 8.0]
    envs.close()


def test_a_row_that_will_only_reset_pays_nothing_after_a_masked_reset_of_another() -> None:
    meter = ComputeMeter("tests.masked")
    ends = (1, 9)
    envs: Any = SyncVectorEnv([lambda n=n: gym.make("CartPole-v1", max_episode_steps=n) for n in ends])
    envs = RecordComputeStatistics(envs, meter)
    envs.reset(seed=0)
    meter.add(20, rows=2)
    envs.step(np.array([0, 1]))  # row 0 has ended
    meter.add(20, rows=2)  # the policy has acted
    envs.reset(options={"reset_mask": np.array([False, True])})
    cost = envs.step(np.array([0, 1]))[-1]["cost"]
    assert cost.tolist() == [0.0, 0.0]
    assert meter.totals["charged"] == 20


class Skip(VectorWrapper):
    """Makes each step several times with the same actions, and hands out the last infos."""

    times = 4

    def step(self, actions: Any) -> Any:
        for _ in range(self.times):
            transition = self.env.step(actions)
        return transition


@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
def test_a_recorder_inside_a_frame_skip_raises_before_it_loses_a_second_cost(
    mode: AutoresetMode, meter: ComputeMeter
) -> None:
    envs = Skip(RecordComputeStatistics(make(mode), meter))
    envs.reset(seed=0)
    with pytest.raises(WrapperOrderError, match=r"Skip steps RecordComputeStatistics several .*lost\. Put"):
        for _ in range(2):
            step(envs, meter, [100, 100])


def test_who_holds_actions_by_himself_sees_every_cost_also_through_a_wrapper(meter: ComputeMeter) -> None:
    envs, costs = VectorWrapper(RecordComputeStatistics(make(), meter)), []
    envs.reset(seed=0)
    for _ in range(3):
        costs.append(step(envs, meter, [100, 50])[4]["cost"].tolist())
        costs.append(envs.step(ACTIONS)[4]["cost"].tolist())
    assert costs == [[100.0, 50.0], [0.0, 0.0]] * 3
