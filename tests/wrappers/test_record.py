"""RecordComputeStatistics: the cost of a step and the account of an episode."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RecordEpisodeStatistics

from budget_wrappers.errors import ConfigError, CostError, InfoKeyError, MeterError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers import RecordComputeStatistics, SubPolicyAction
from tests.contracts.wrapper import WrapperContract
from tests.gymnasium_versions import RepeatAction
from tests.wrappers.environments import HORIZON, SpacesEnv, cheap, dear, make


class TestContract(WrapperContract):
    wrapper = RecordComputeStatistics
    variants: ClassVar = {
        "meter": ({"meter": "policy"}, {"meter": "tests.another"}),
        "key": ({"key": "cost"}, {"key": "flops"}),
        "stable_info": ({"stable_info": False}, {"stable_info": True}),
    }

    def visible(self, env: gym.Env) -> list[Any]:
        get_meter("tests.another").add(0)
        return super().visible(env)


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def run(env: gym.Env, meter: ComputeMeter, costs: list[int], name: str | None = None) -> list[dict[str, Any]]:
    """Reset, charge and step; return the infos of the steps."""
    env.reset(seed=0)
    infos = []
    for cost in costs:
        meter.add(cost, name)
        infos.append(env.step(env.action_space.sample())[4])
    return infos


def test_each_step_reports_its_own_cost(meter: ComputeMeter) -> None:
    infos = run(RecordComputeStatistics(make(), meter), meter, [5, 0, 7])
    assert [info["cost"] for info in infos] == [5.0, 0.0, 7.0]


def test_costs_are_numpy_floats_from_the_reset_on(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(make(), meter)
    at_reset = env.reset()[1]["cost"]
    assert (type(at_reset), at_reset) == (np.float64, 0.0)
    assert type(run(env, meter, [5])[0]["cost"]) is np.float64


def test_the_account_comes_at_the_end_of_an_episode_only(meter: ComputeMeter) -> None:
    infos = run(RecordComputeStatistics(make(), meter), meter, [3] * HORIZON)
    assert [("compute" in info) for info in infos] == [False] * (HORIZON - 1) + [True]


def test_the_account_of_an_episode(meter: ComputeMeter) -> None:
    account = run(RecordComputeStatistics(SpacesEnv(end_at=4), meter), meter, [10, 0, 30, 20])[-1]["compute"]
    assert account == {
        "flops": 60.0,
        "flops_per_step": 15.0,
        "steps": 4.0,
        "return_raw": 10.0,  # 1 + 2 + 3 + 4
        "return_penalised": 10.0,
        "share_flops": {"tests": 1.0},
        "share_steps": {"tests": 0.75},  # one step cost nothing
    }


def test_info_holds_numbers_only(meter: ComputeMeter) -> None:
    """Text in an info breaks RLlib's connectors; the convention is an attribute."""
    env = RecordComputeStatistics(SpacesEnv(end_at=1), meter)
    account = run(env, meter, [1])[-1]["compute"]
    leaves = [leaf for value in account.values() for leaf in (value.values() if isinstance(value, dict) else [value])]
    assert {type(leaf) for leaf in leaves} == {np.float64}
    assert env.get_wrapper_attr("convention") == "matmul"


def test_shares_of_several_names(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(SpacesEnv(end_at=4), meter)
    env.reset()
    for names in (("gate",), ("gate", "deep"), ("gate",), ("gate", "deep")):
        for name in names:
            meter.add({"gate": 10, "deep": 30}[name], name)
        info = env.step(None)[4]
    # gate 4·10 = 40 of 100 FLOPs in 4 of 4 steps, deep 2·30 = 60 in 2 of 4
    assert info["compute"]["share_flops"] == {"gate": 0.4, "deep": 0.6}
    assert info["compute"]["share_steps"] == {"gate": 1.0, "deep": 0.5}


def test_a_name_that_turns_up_later_takes_no_step_for_those_before(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(SpacesEnv(end_at=4), meter)
    env.reset()
    for name in ("first", "first", "second", "first"):
        meter.add(10, name)
        info = env.step(None)[4]
    assert info["compute"]["share_flops"] == {"first": 0.75, "second": 0.25}
    assert info["compute"]["share_steps"] == {"first": 0.75, "second": 0.25}


def test_another_environment_on_the_same_meter_does_not_enter_the_shares(meter: ComputeMeter) -> None:
    """An evaluation in the middle of a training episode."""
    train, evaluation = (RecordComputeStatistics(SpacesEnv(end_at=2), meter) for _ in range(2))
    train.reset()
    meter.add(10, "a")
    train.step(None)
    run(evaluation, meter, [500, 500], "b")
    meter.add(30, "b")
    account = train.step(None)[4]["compute"]
    assert (account["flops"], account["share_flops"]) == (40.0, {"a": 0.25, "b": 0.75})


@pytest.mark.parametrize(
    "steps",
    [
        [[("first", 100, 40), ("second", 10, 10)]],  # no step before the second name
        [[("first", 40, 40)], [("first", 60, 0), ("second", 10, 10), ("second", 90, 0)]],
        [[("first", 60, 30)], [("first", 10, 10), ("second", 10, 10)], [("second", 70, 0)]],
    ],
)
def test_shares_are_of_what_was_paid_whatever_else_was_executed(meter: ComputeMeter, steps: list) -> None:
    env = RecordComputeStatistics(SpacesEnv(end_at=len(steps)), meter)
    env.reset()
    for charges in steps:
        for name, flops, charged in charges:
            meter.add(flops, name, charged=charged)
        info = env.step(None)[4]
    account = info["compute"]
    assert account["flops"] == 50.0
    assert account["share_flops"] == {"first": 0.8, "second": 0.2}
    free = [sum(any(part[0] == name and part[2] for part in step) for step in steps) for name in ("first", "second")]
    assert account["share_steps"] == dict(zip(("first", "second"), np.divide(free, len(steps)), strict=True))


def test_shares_of_the_sub_policies_and_their_selector(meter: ComputeMeter) -> None:
    env = SubPolicyAction(SpacesEnv(end_at=6), [cheap("box"), dear("box")], hold=3, meter=meter, selector_flops=25)
    env = RecordComputeStatistics(env, meter)
    env.reset()
    for choice in (0, 1):
        meter.add(25, "selector")
        info = env.step(choice)[4]
    # 3·10 + 3·40 + 2·25 = 200
    assert info["cost"] == 3 * 40 + 25
    assert info["compute"]["flops_per_step"] == pytest.approx(200 / 6)
    assert info["compute"]["share_flops"] == {"cheap": 0.15, "dear": 0.6, "selector": 0.25}
    assert info["compute"]["share_steps"] == {"cheap": 0.5, "dear": 0.5, "hold": 0.0}


def test_a_watched_module_is_charged(meter: ComputeMeter) -> None:
    actor = torch.nn.Linear(3, 2)
    env = RecordComputeStatistics(SpacesEnv(end_at=2), meter)
    env.reset()
    with meter.watch(actor, "actor"), torch.no_grad():
        actor(torch.zeros(1, 3))
        assert env.step(None)[4]["cost"] == 2 * 3 * 2


def test_a_watched_module_that_does_not_run_costs_nothing(meter: ComputeMeter) -> None:
    """Random warm-up."""
    actor = torch.nn.Linear(3, 2)
    with meter.watch(actor):
        infos = run(RecordComputeStatistics(SpacesEnv(end_at=2), meter), ComputeMeter("elsewhere"), [1, 1])
    assert [info["cost"] for info in infos] == [0.0, 0.0]
    assert infos[-1]["compute"]["flops"] == 0.0


def test_an_episode_that_nothing_was_connected_to_raises_at_its_end(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(SpacesEnv(end_at=2), meter)
    env.reset()
    assert env.step(None)[4]["cost"] == 0.0
    with pytest.raises(
        MeterError, match=r"'tests' never watched a module nor received a charge.*watch\(policy_module\)"
    ):
        env.step(None)


def test_a_batch_says_what_to_do_instead(meter: ComputeMeter) -> None:
    actor = torch.nn.Linear(3, 2)
    env = RecordComputeStatistics(SpacesEnv(), meter)
    env.reset()
    with meter.watch(actor), torch.no_grad():
        actor(torch.zeros(4, 3))
        with pytest.raises(MeterError, match=r"batch of 4 observations.*n_envs=1.*budget_wrappers\.wrappers\.vector"):
            env.step(None)


def test_several_charges_of_one_row_are_no_batch(meter: ComputeMeter) -> None:
    infos = run(RecordComputeStatistics(RepeatAction(SpacesEnv(), 2), meter), meter, [1])
    meter.add(1, "encoder")
    assert infos[0]["cost"] == 1.0


def test_a_reset_drops_what_is_pending(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(SpacesEnv(), meter)
    env.reset()
    meter.add(99)
    assert run(env, meter, [5])[0]["cost"] == 5.0


def test_an_episode_forgets_the_one_before(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(SpacesEnv(end_at=2), meter)
    first, second = (run(env, meter, [5, 5])[-1]["compute"] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("cost", [-1, float("nan"), 0.5])
def test_an_illegal_charge_never_reaches_an_info(meter: ComputeMeter, cost: float) -> None:
    with pytest.raises(CostError):
        meter.add(cost)


def test_stable_info_has_the_same_keys_at_every_step(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(SpacesEnv(end_at=3), meter, stable_info=True)
    infos = [env.reset()[1], *run(env, meter, [1, 2, 3], "late")]
    structures = [(set(info), set(info["compute"]), set(info["compute"]["share_flops"])) for info in infos]
    assert structures == [structures[0]] * 4
    assert infos[-1]["compute"]["share_flops"] == {"other": 1.0}  # nothing was watched at the first reset


def test_a_key_of_the_environment_is_not_overwritten(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(SpacesEnv(info={"cost": 3.0}), meter)
    with pytest.raises(InfoKeyError, match="key='compute_cost'"):
        env.reset()


def test_another_key_leaves_the_environments_cost_alone(meter: ComputeMeter) -> None:
    env = RecordComputeStatistics(SpacesEnv(info={"cost": 3.0}), meter, key="compute_cost")
    info = run(env, meter, [5])[0]
    assert (info["cost"], info["compute_cost"]) == (3.0, 5.0)


def test_a_key_that_turns_up_late_is_not_overwritten_either(meter: ComputeMeter) -> None:
    env = SpacesEnv()
    recorder = RecordComputeStatistics(env, meter)
    recorder.reset()
    env._info = {"cost": 1.0}
    with pytest.raises(InfoKeyError, match="'cost'"):
        recorder.step(None)


def test_an_environment_that_hands_out_one_dict_is_no_conflict(meter: ComputeMeter) -> None:
    class OneDict(SpacesEnv):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return (*super().step(action)[:4], self._info)

    infos = run(RecordComputeStatistics(OneDict(), meter), meter, [1, 2])
    assert [info["cost"] for info in infos] == [1.0, 2.0]


def test_a_second_recorder_raises(meter: ComputeMeter) -> None:
    with pytest.raises(InfoKeyError, match="One RecordComputeStatistics is enough"):
        RecordComputeStatistics(RecordComputeStatistics(make(), meter), meter, key="other")


@pytest.mark.parametrize("key", ["compute", "", 3])
def test_a_key_has_to_be_a_free_text(key: Any) -> None:
    with pytest.raises(ConfigError, match="expected a text other than 'compute'"):
        RecordComputeStatistics(make(), key=key)


@pytest.mark.parametrize("given", [3, None, torch.nn.Linear(1, 1)])
def test_what_is_no_meter_raises(given: Any) -> None:
    with pytest.raises(ConfigError, match="expected the name of a meter or a ComputeMeter"):
        RecordComputeStatistics(make(), given)


def test_it_agrees_with_gymnasiums_own_recorder(meter: ComputeMeter) -> None:
    env = RecordEpisodeStatistics(RecordComputeStatistics(make(), meter))
    info = run(env, meter, [1] * HORIZON)[-1]
    assert info["episode"]["r"] == info["compute"]["return_raw"]
    assert info["episode"]["l"] == info["compute"]["steps"]
