"""ComputeLimit: hard over a wrapper that chooses, one step late around an opaque policy."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import FlattenObservation, StickyAction, TimeLimit

from benchmarks.limit_adversary import campaign, hard_episode, opaque_episode
from budget_wrappers.errors import ConfigError, CostError, InfeasibleBudgetError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction
from tests.contracts.wrapper import WrapperContract
from tests.gymnasium_versions import AutoresetMode, RepeatAction, sync
from tests.wrappers.environments import CHEAP, DEAR, HORIZON, SpacesEnv, cheap, dear, make

MODES = ("cheapest", "hold", "truncate", "terminate")


class TestHardContract(WrapperContract):
    wrapper = ComputeLimit
    variants: ClassVar = {
        "max_flops": ({"max_flops": 300}, {"max_flops": 450}),
        "on_exhausted": ({"on_exhausted": "cheapest"}, {"on_exhausted": "truncate"}),
        "meter": ({}, {"meter": "tests.another"}),
        "horizon": ({"horizon": None}, {"horizon": 3}),
    }

    def arguments(self, kind: str) -> dict[str, Any]:
        return {"max_flops": 300}

    def inside(self, env: gym.Env) -> gym.Env:
        kind = env.unwrapped.spec.id.split("/")[1].removesuffix("-v0")
        return SubPolicyAction(env, [f"cheap-{kind}", f"dear-{kind}"], hold=2, selector_flops=64)

    def wrap(self, env: gym.Env, kind: str = "box", **arguments: Any) -> gym.Wrapper:
        if isinstance(env, ComputeLimit):
            return ComputeLimit(env, **self.arguments(kind))
        if arguments.get("meter"):
            inner = SubPolicyAction(env, ["cheap-box", "dear-box"], hold=2, selector_flops=64, **arguments)
            return ComputeLimit(inner, **{**self.arguments(kind), **arguments})
        return super().wrap(env, kind, **arguments)

    def visible(self, env: gym.Env) -> list[Any]:
        get_meter("tests.another").add(0)
        return super().visible(env)


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def options(
    meter: ComputeMeter, hold: int = 3, selector: int = 0, end_at: int | None = None, time_limit: int | None = HORIZON
) -> SubPolicyAction:
    """Return cheap (10 a step) and dear (40 a step) sub-policies in an episode of 12 steps."""
    env: gym.Env = SpacesEnv(end_at=end_at)
    env = TimeLimit(env, time_limit) if time_limit else env
    return SubPolicyAction(env, [cheap("box"), dear("box")], hold=hold, meter=meter, selector_flops=selector)


def play(env: gym.Env, meter: ComputeMeter, choices: list[int], selector: int = 0) -> list[tuple[Any, ...]]:
    """Run one episode; the last choice is made again until it ends."""
    env.reset(seed=0)
    transitions: list[tuple[Any, ...]] = []
    while not transitions or not (transitions[-1][2] or transitions[-1][3]):
        if selector:
            meter.add(selector, "selector")
        transitions.append(env.step(choices[min(len(transitions), len(choices) - 1)]))
        assert len(transitions) <= HORIZON
    return transitions


def ran(transitions: list[tuple[Any, ...]]) -> list[tuple[float, float]]:
    """Return option and duration of each decision."""
    return [(float(t[4]["option"]), float(t[4]["duration"])) for t in transitions]


# Over a wrapper that chooses. An episode has 12 steps: 4 options of 3; all cheap is 120 FLOPs, all dear 480.


def test_a_limit_above_everything_changes_nothing(meter: ComputeMeter) -> None:
    assert ran(play(ComputeLimit(options(meter), 480, meter=meter), meter, [1])) == [(1, 3)] * 4


def test_the_cheapest_path_is_kept_affordable(meter: ComputeMeter) -> None:
    # 240: dear costs 120 an option. First: 240 − 90 kept back = 150 >= 120. Then 120 left, 60 kept back, 60 < 120
    env = ComputeLimit(options(meter), 240, meter=meter)
    assert ran(play(env, meter, [1])) == [(1, 3), (0, 3), (0, 3), (0, 3)]
    assert (env.remaining, env.overshoot) == (240 - 120 - 90, 0)


def test_what_is_not_spent_early_is_there_late(meter: ComputeMeter) -> None:
    # 30 + 30 cheap leave 180 of 240; dear needs 120 + 30 kept back; then 60 are left: cheap
    assert ran(play(ComputeLimit(options(meter), 240, meter=meter), meter, [0, 0, 1])) == [
        (0, 3),
        (0, 3),
        (1, 3),
        (0, 3),
    ]


def test_selector_calls_are_kept_back_as_well(meter: ComputeMeter) -> None:
    # limit 240, selector 15 a call. First: 240 − 15 = 225, kept back 3·(30 + 15) = 135, 90 < 120: cheap.
    # Each of the others has 90 as well: it leaves 45 less and keeps 45 less back
    env = ComputeLimit(options(meter, selector=15), 240, meter=meter)
    assert ran(play(env, meter, [1], selector=15)) == [(0, 3)] * 4
    # 270: first 255 − 135 = 120: dear
    env = ComputeLimit(options(meter, selector=15), 270, meter=meter)
    assert ran(play(env, meter, [1], selector=15))[0] == (1, 3)


def test_below_the_cheapest_path_it_holds_to_the_end_in_one_step(meter: ComputeMeter) -> None:
    # 70 pays two cheap options; 10 do not pay a third: the other 6 steps repeat the action, inside the second step
    env = ComputeLimit(options(meter), 70, meter=meter)
    transitions = play(env, meter, [1])
    assert ran(transitions) == [(0, 3), (0, 3 + 6)]
    assert transitions[-1][1] == sum(range(4, 13))  # rewards of steps 4 to 12
    assert transitions[-1][2:4] == (False, True)
    assert env.limit_report() == {"limit": 70.0, "overshoot": 0.0, "held_steps": 6.0}
    assert meter.totals["act"] == 60


def test_control_does_not_return_to_a_selector_that_cannot_be_paid(meter: ComputeMeter) -> None:
    # 45 + 30 = 75 for the first decision leaves 25 < 45: the selector never runs again, 9 steps are held
    env = ComputeLimit(options(meter, selector=45), 100, meter=meter)
    assert ran(play(env, meter, [1], selector=45)) == [(0, 12)]
    assert meter.totals["act"] == 75


def test_hold_repeats_the_last_action_and_keeps_nothing_back(meter: ComputeMeter) -> None:
    # 150: dear 120 leaves 30; another dear does not fit: held; 30 pays the cheapest, so control comes back: cheap,
    # nothing is left: the last 3 steps are held within that one
    env = ComputeLimit(options(meter), 150, "hold", meter=meter)
    assert ran(play(env, meter, [1, 1, 0])) == [(1, 3), (-1, 3), (0, 6)]
    assert meter.totals["act"] == 150


def test_hold_without_a_last_action_takes_the_cheapest(meter: ComputeMeter) -> None:
    env = ComputeLimit(options(meter), 60, "hold", meter=meter)
    assert ran(play(env, meter, [1]))[0] == (0, 3)


def test_a_held_action_is_the_last_one(meter: ComputeMeter) -> None:
    env = ComputeLimit(options(meter), 30, meter=meter)
    play(env, meter, [0])
    actions = env.unwrapped.actions
    assert len(actions) == HORIZON
    assert all(np.array_equal(action, actions[0]) for action in actions)


@pytest.mark.parametrize(("mode", "flags"), [("truncate", (False, True)), ("terminate", (True, False))])
def test_an_exhausted_limit_ends_the_episode(meter: ComputeMeter, mode: str, flags: tuple[bool, bool]) -> None:
    # 170: dear 120; 50 does not pay dear: cheap; 20 pay nothing: the end, after 6 of 12 steps
    env = ComputeLimit(options(meter), 170, mode, meter=meter)
    transitions = play(env, meter, [1])
    assert ran(transitions) == [(1, 3), (0, 3)]
    assert transitions[-1][2:4] == flags
    assert [type(flag) for flag in transitions[-1][2:4]] == [bool, bool]


@pytest.mark.parametrize("mode", MODES)
def test_an_early_end_of_the_episode_stays_what_it_is(meter: ComputeMeter, mode: str) -> None:
    env = ComputeLimit(options(meter, end_at=4), 10**6, mode, meter=meter)
    assert play(env, meter, [1])[-1][2:4] == (True, False)


@pytest.mark.parametrize("mode", MODES)
def test_a_limit_below_the_first_decision_names_both_numbers(meter: ComputeMeter, mode: str) -> None:
    # one selector call and three cheap steps: 15 + 30
    with pytest.raises(InfeasibleBudgetError, match="A limit of 44 FLOPs an episode is below the 45"):
        ComputeLimit(options(meter, selector=15), 44, mode, meter=meter)
    ComputeLimit(options(meter, selector=15), 45, mode, meter=meter)


def test_a_selector_that_grew_dearer_is_found_at_the_reset(meter: ComputeMeter) -> None:
    chooser = options(meter)
    env = ComputeLimit(chooser, 50, meter=meter)
    chooser.set_selector_flops(21)
    with pytest.raises(InfeasibleBudgetError, match="below the 51"):
        env.reset()


def test_a_selector_dearer_than_declared_raises_before_anything_runs(meter: ComputeMeter) -> None:
    env = ComputeLimit(options(meter, selector=5), 480, meter=meter)
    env.reset()
    meter.add(6)
    with pytest.raises(CostError, match=r"charged 6 FLOPs for one choice and 5 are declared.*selector_flops="):
        env.step(0)
    assert env.unwrapped.steps == 0


def test_a_selector_may_be_cheaper_than_declared(meter: ComputeMeter) -> None:
    """Exploration picks at random and runs no network."""
    env = ComputeLimit(options(meter, selector=100), 480 + 400, meter=meter)
    assert ran(play(env, meter, [1], selector=0)) == [(1, 3)] * 4


@pytest.mark.parametrize(
    "between",
    [
        lambda env, meter: RepeatAction(env, 2),
        lambda env, meter: StickyAction(env, 0.9),
        lambda env, meter: FlattenObservation(env),
        lambda env, meter: ComputePenaltyReward(env, 1e-3, meter=meter),
        lambda env, meter: RecordComputeStatistics(env, meter),
    ],
    ids=["repeat", "sticky", "flatten", "penalty", "record"],
)
def test_it_is_hard_through_any_nesting(meter: ComputeMeter, between: Any) -> None:
    """A wrapper between may run other choices, or more of them, than the limit was asked for."""
    env = ComputeLimit(between(options(meter, selector=7), meter), 200, meter=meter)
    play(env, meter, [1, 0, 1, 0, 1], selector=7)
    assert meter.totals["act"] <= 200


def test_a_horizon_of_its_own_truncates_there(meter: ComputeMeter) -> None:
    env = ComputeLimit(options(meter, time_limit=None), 10**6, meter=meter, horizon=7)
    transitions = play(env, meter, [1])
    assert ran(transitions) == [(1, 3), (1, 3), (1, 1)]
    assert transitions[-1][3] is True


@pytest.mark.parametrize("mode", ["cheapest", "hold"])
def test_an_unknown_horizon_raises(meter: ComputeMeter, mode: str) -> None:
    with pytest.raises(ConfigError, match=r"has no time limit. Pass horizon="):
        ComputeLimit(options(meter, time_limit=None), 100, mode, meter=meter)


@pytest.mark.parametrize("mode", ["truncate", "terminate"])
def test_ending_the_episode_needs_no_horizon(meter: ComputeMeter, mode: str) -> None:
    assert len(play(ComputeLimit(options(meter, time_limit=None), 100, mode, meter=meter), meter, [0])) == 3


def test_a_time_limit_around_the_chooser_counts_decisions(meter: ComputeMeter) -> None:
    chooser = TimeLimit(options(meter, time_limit=None), 4)
    assert ran(play(ComputeLimit(chooser, 240, meter=meter), meter, [1])) == [(1, 3), (0, 3), (0, 3), (0, 3)]


def test_a_chooser_on_another_meter_raises(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match=r"charges meter 'tests' and this limit reads 'tests.other'"):
        ComputeLimit(options(meter), 100, meter="tests.other")


def test_a_second_limit_raises(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match="use its set_budget"):
        ComputeLimit(ComputeLimit(options(meter), 100, meter=meter), 100, meter=meter)


@pytest.mark.parametrize("outside", [True, False])
def test_the_recorder_reports_the_limit_from_either_side(meter: ComputeMeter, outside: bool) -> None:
    if outside:
        env: gym.Env = RecordComputeStatistics(ComputeLimit(options(meter), 70, meter=meter), meter)
    else:
        env = ComputeLimit(RecordComputeStatistics(options(meter), meter), 70, meter=meter)
    info = play(env, meter, [1])[-1][4]
    account = info["compute"]
    assert info["cost"] == 30.0  # of the option; the held steps were free
    assert (account["flops"], account["limit"], account["overshoot"], account["held_steps"]) == (60.0, 70.0, 0.0, 6.0)
    assert (account["steps"], account["share_steps"]["hold"]) == (12.0, 0.5)
    assert account["return_raw"] == sum(range(1, 13))


def test_limits_of_a_batch_may_hold_for_free_beside_one_that_pays(meter: ComputeMeter) -> None:
    """Options of two steps: the first environment can pay for dear ones (80) all along, the second for one of 100."""
    envs = sync([lambda limit=limit: ComputeLimit(options(meter, hold=2), limit, "hold", meter=meter)
                 for limit in (480, 100)], AutoresetMode.NEXT_STEP)  # fmt: skip
    envs.reset(seed=0)
    assert [envs.step(np.array([1, 1]))[4]["option"].tolist() for _ in range(3)] == [[1, 1], [1, -1], [1, -1]]


def test_a_chooser_without_declared_costs_is_opaque(meter: ComputeMeter) -> None:
    class Half(gym.Wrapper):
        def hold_last_action(self, steps: int) -> None: ...

    with pytest.raises(ConfigError, match=r"nothing inside|has none"):
        ComputeLimit(Half(make()), 100, meter=meter)


# The law, against adversaries; benchmarks/limit_adversary.py runs 10^6 steps of it.


def test_no_adversary_passes_a_hard_limit() -> None:
    outcome = campaign(10_000, seed=7, episode=hard_episode)
    assert outcome.violations == []
    assert outcome.closest > 0.99  # the limits were tight enough to be worth attacking


def test_an_opaque_policy_passes_its_limit_by_one_step_at_most() -> None:
    outcome = campaign(5_000, seed=7, episode=opaque_episode)
    assert outcome.violations == []
    assert len(outcome.episodes) == 3


def test_costs_here_are_those_of_the_sub_policies() -> None:
    assert (CHEAP, DEAR) == (10, 40)
