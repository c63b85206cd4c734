"""ComputeLimit for teams: hard over sub-policies, one step late around opaque policies."""

from typing import Any

import numpy as np
import pettingzoo
import pytest
from gymnasium import spaces
from pettingzoo.utils import parallel_to_aec

from benchmarks.team_adversary import campaign, hard_episode, opaque_episode
from budget_wrappers.errors import ConfigError, CostError, InfeasibleBudgetError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers.multi_agent import aec, parallel
from tests.wrappers.multi_agent.environments import (
    AGENTS,
    CHEAP,
    DEAR,
    PATH,
    STEPS,
    Team,
    dear,
    limited,
    of_kind,
    play,
    ran,
    spent,
    sub_policies,
    turns,
)

both = pytest.mark.parametrize("make", [Team, turns], ids=["parallel", "aec"])


# Hard limits. Everybody cheap costs 120, everybody dear 480.


@both
def test_a_limit_above_everything_changes_nothing(make: Any) -> None:
    env = limited(make, team_max_flops=480)
    assert ran(play(env, dear)) == {agent: [1] * STEPS for agent in AGENTS}
    assert (env.remaining(), env.overshoot()) == (0, 0)


@both
def test_the_cheapest_path_of_every_agent_is_kept_affordable(make: Any) -> None:
    # 180 are 60 above the path: two upgrades of 30, for the first two that ask
    env = limited(make, team_max_flops=PATH + 60)
    assert ran(play(env, dear)) == {
        "agent_0": [1, 0, 0, 0],
        "agent_1": [1, 0, 0, 0],
        "agent_2": [0, 0, 0, 0],
    }
    assert env.remaining() == 0


@both
def test_what_is_not_spent_early_is_there_late(make: Any) -> None:
    env = limited(make, team_max_flops=PATH + 60)
    infos = play(env, lambda agent, number: int(agent == "agent_2" and number >= 2))
    assert ran(infos)["agent_2"] == [0, 0, 1, 1]


@both
def test_an_agent_that_ends_leaves_what_was_kept_for_it(make: Any) -> None:
    # agent_0 terminates at step 1 and leaves 3 · 10 to the others: one upgrade more, from step 2 on
    infos = play(limited(make, team_max_flops=PATH, deaths={"agent_0": 1}), dear)
    assert ran(infos) == {"agent_0": [0], "agent_1": [0, 1, 0, 0], "agent_2": [0, 0, 0, 0]}


@both
def test_each_agent_has_its_own_limit_within_the_teams(make: Any) -> None:
    # agent_1 alone: 70 are one upgrade above its path of 40
    env = limited(make, max_flops={"agent_1": 70}, team_max_flops=480)
    assert ran(play(env, dear)) == {"agent_0": [1] * 4, "agent_1": [1, 0, 0, 0], "agent_2": [1] * 4}
    assert (env.remaining("agent_1"), env.remaining()) == (0, 480 - 160 - 70 - 160)


@both
def test_calls_of_selectors_are_kept_back(make: Any) -> None:
    # the path with selectors of 5 costs 3 · 4 · 15 = 180
    env = limited(make, selector=5, team_max_flops=210)
    infos = play(env, dear, lambda agent, number: 5)
    assert ran(infos) == {"agent_0": [1, 0, 0, 0], "agent_1": [0] * 4, "agent_2": [0] * 4}
    assert spent(env) == 210


def test_what_a_selector_has_not_used_of_its_declared_cost_is_free_again() -> None:
    # selectors of 5 that cost nothing at the first step: 195 − 2 · 10 for the others − 3 · 3 · 15 for later leave 40
    infos = play(limited(Team, selector=5, team_max_flops=195), dear, lambda agent, number: 5 * (number > 0))
    assert ran(infos)["agent_0"][0] == 1
    infos = play(limited(Team, selector=5, team_max_flops=194), dear, lambda agent, number: 5 * (number > 0))
    assert ran(infos)["agent_0"][0] == 0


@both
def test_below_the_path_the_cheapest_runs_while_it_can_be_paid_and_is_then_held(make: Any) -> None:
    # 50 pay 5 actions of 10: one each, two more; the other 7 repeat the last one
    env = limited(make, team_max_flops=50)
    assert ran(play(env, dear)) == {"agent_0": [0, 0, -1, -1], "agent_1": [0, 0, -1, -1], "agent_2": [0, -1, -1, -1]}
    assert (spent(env), env.team_report()["held_steps"]) == (50, 7.0)
    assert [sorted(step) for step in env.unwrapped.taken] == [list(AGENTS)] * STEPS


@both
def test_hold_repeats_the_agents_own_last_action_and_keeps_nothing_back(make: Any) -> None:
    # 110 − 2 · 10 kept for first actions of the others: 40; 70 − 10: 40; the third has 30: cheap. 20 are left: no dear
    # one fits, so all hold. agent_2 asks for the cheap one: it fits twice
    env = limited(make, team_max_flops=110, on_exhausted="hold")
    infos = play(env, lambda agent, number: int(agent != "agent_2"))
    assert ran(infos) == {"agent_0": [1, -1, -1, -1], "agent_1": [1, -1, -1, -1], "agent_2": [0, 0, 0, -1]}
    assert [round(step["agent_0"], 1) for step in env.unwrapped.taken] == [0.4] * STEPS


@both
@pytest.mark.parametrize("how", ["truncate", "terminate"])
def test_the_episode_ends_for_all_when_the_next_decisions_cannot_be_paid(make: Any, how: str) -> None:
    # in turns 100 pay 40 and 40, then 10 and 10, as nothing is kept back
    env = limited(make, team_max_flops=100, on_exhausted=how)
    env = of_kind(env).RecordComputeStatistics(env)
    infos = play(env, dear)
    if isinstance(env, pettingzoo.ParallelEnv):
        # 100 − 2 · 10 kept for who chooses after: 40; 60 − 10: 40; 20: 10. 10 do not pay the next 30
        assert ran(infos) == {"agent_0": [1], "agent_1": [1], "agent_2": [0]}
    else:
        assert ran(infos) == {"agent_0": [1, 0], "agent_1": [1], "agent_2": [0]}
    ends = dict(infos) if not isinstance(env, pettingzoo.ParallelEnv) else infos[-1]
    assert {agent: "compute" in info for agent, info in ends.items()} == dict.fromkeys(AGENTS, True)
    assert env.agents == []


def test_those_who_choose_at_the_same_step_get_their_cheapest() -> None:
    # 85 − 2 · 10: dear. 45 − 10 are no second 40: cheap, and so is the third; 25 do not pay the next 30
    assert ran(play(limited(Team, team_max_flops=85, on_exhausted="truncate"), dear)) == {
        "agent_0": [1],
        "agent_1": [0],
        "agent_2": [0],
    }


@pytest.mark.parametrize(("how", "flags"), [("truncate", (False, True)), ("terminate", (True, False))])
def test_an_end_is_reported_as_what_was_asked_for(how: str, flags: tuple[bool, bool]) -> None:
    env = limited(Team, team_max_flops=30, on_exhausted=how)
    env.reset()
    _, _, terminations, truncations, _ = env.step(dict.fromkeys(AGENTS, 0))
    assert (terminations, truncations) == (dict.fromkeys(AGENTS, flags[0]), dict.fromkeys(AGENTS, flags[1]))
    assert env.step({}) == ({}, {}, {}, {}, {})
    env = limited(turns, team_max_flops=30, on_exhausted=how)
    env.reset()
    for _ in AGENTS:
        env.step(0)
    assert (env.terminations, env.truncations) == (dict.fromkeys(AGENTS, flags[0]), dict.fromkeys(AGENTS, flags[1]))
    assert [env.last()[1], *env.last()[2:4]] == [1.0, *flags]


@both
def test_an_episode_is_truncated_at_the_horizon(make: Any) -> None:
    env = limited(make, team_max_flops=480, horizon=2)
    assert ran(play(env, dear)) == {agent: [1, 1] for agent in AGENTS}


@both
@pytest.mark.parametrize("how", ["cheapest", "hold", "truncate"])
def test_a_reset_forgets_the_last_episode(make: Any, how: str) -> None:
    env = limited(make, team_max_flops=50, on_exhausted=how)  # first actions: 10 each, as no dear one fits
    first, second = ran(play(env, dear)), ran(play(env, dear))
    assert first == second


@both
def test_budgets_change_at_run_time_from_the_next_reset_on(make: Any) -> None:
    env = limited(make, team_max_flops=480)
    env.reset()
    env.set_budget(team_max_flops=200)
    assert env.remaining() == 480
    env.reset(options={"budget": {"agent_0": 90}})
    assert (env.remaining(), env.remaining("agent_0")) == (200, 90)
    env.reset(options={"team_budget": 300, "budget": 100})
    assert (env.remaining(), env.remaining("agent_0"), env.remaining("agent_2")) == (300, 100, 100)
    assert env.unwrapped.resets[-1] == (None, {"team_budget": 300, "budget": 100})


@both
def test_the_recorder_reports_limits(make: Any) -> None:
    kind = of_kind(make())
    for env in (
        kind.RecordComputeStatistics(limited(make, team_max_flops=50, max_flops={"agent_0": 40})),
        kind.ComputeLimit(
            kind.RecordComputeStatistics(kind.SubPolicyAction(make(), sub_policies(make()))), {"agent_0": 40}, 50
        ),
    ):
        infos = play(env, dear)
        account = (dict(infos) if isinstance(infos[0], tuple) else infos[-1])["agent_0"]["compute"]
        assert {key: float(account[key]) for key in ("flops", "limit", "overshoot", "held_steps")} == {
            "flops": 20.0, "limit": 40.0, "overshoot": 0.0, "held_steps": 2.0,
        }  # fmt: skip
        team = env.team_summary()
        assert {key: float(team[key]) for key in ("flops", "limit", "overshoot", "held_steps")} == {
            "flops": 50.0, "limit": 50.0, "overshoot": 0.0, "held_steps": 7.0,
        }  # fmt: skip


# What cannot be kept is refused early.


@both
def test_a_limit_below_the_first_decisions_is_refused_with_both_numbers(make: Any) -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"limit of 29 FLOPs an episode for the team is below 30"):
        limited(make, team_max_flops=29)
    with pytest.raises(InfeasibleBudgetError, match=r"limit of 9 FLOPs an episode for 'agent_1' is below 10"):
        limited(make, max_flops={"agent_1": 9})
    # with selectors of 5: three first actions and 12 calls
    with pytest.raises(InfeasibleBudgetError, match=r"limit of 89 FLOPs an episode for the team is below 90"):
        limited(make, selector=5, team_max_flops=89)
    limited(make, selector=5, team_max_flops=90)


@both
def test_arguments_that_mean_nothing_are_refused(make: Any) -> None:
    kind = of_kind(make())
    with pytest.raises(ConfigError, match="neither max_flops nor team_max_flops"):
        limited(make)
    with pytest.raises(ConfigError, match=r"max_flops names the agent 'agent_7'; known agents are \['agent_0'"):
        limited(make, max_flops={"agent_7": 100})
    with pytest.raises(ConfigError, match="on_exhausted='cheap'"):
        limited(make, team_max_flops=100, on_exhausted="cheap")
    with pytest.raises(ConfigError, match="A limit of 0"):
        limited(make, team_max_flops=0)
    with pytest.raises(ConfigError, match="horizon=0"):
        limited(make, team_max_flops=100, horizon=0)
    for mode in ("cheapest", "hold"):
        with pytest.raises(ConfigError, match="needs a SubPolicyAction inside"):
            kind.ComputeLimit(make(), team_max_flops=100, on_exhausted=mode)
    with pytest.raises(ConfigError, match="the team has no limit"):
        limited(make, max_flops=100).remaining()


def test_the_cheapest_path_needs_a_horizon() -> None:
    base = pettingzoo.make("aec", "classic/tictactoe-v3")
    env = aec.SubPolicyAction(base, sub_policies(base))
    with pytest.raises(ConfigError, match=r"max_cycles\. Pass horizon="):
        aec.ComputeLimit(env, team_max_flops=100)
    aec.ComputeLimit(env, team_max_flops=100, horizon=5)


@both
def test_the_order_of_wrappers_is_checked(make: Any) -> None:
    kind = of_kind(make())
    with pytest.raises(WrapperOrderError, match="has a ComputeLimit already"):
        kind.ComputeLimit(limited(make, team_max_flops=100), team_max_flops=50)
    with pytest.raises(WrapperOrderError, match="reads costs inside SubPolicyAction"):
        kind.SubPolicyAction(kind.RecordComputeStatistics(make()), sub_policies(make()))
    with pytest.raises(WrapperOrderError, match="chooses sub-policies already"):
        kind.SubPolicyAction(kind.SubPolicyAction(make(), sub_policies(make())), sub_policies(make()))
    with pytest.raises(WrapperOrderError, match="charges other meters"):
        kind.ComputeLimit(kind.SubPolicyAction(make(), sub_policies(make())), team_max_flops=100, meter="other")


@both
def test_a_selector_that_costs_more_than_declared_is_named(make: Any) -> None:
    env = limited(make, selector=5, team_max_flops=300)
    with pytest.raises(CostError, match=r"selector of 'agent_1' was charged 6 FLOPs for one choice and 5"):
        play(env, dear, lambda agent, number: 5 + (agent == "agent_1"))


# Around opaque policies.


@both
def test_an_opaque_team_passes_its_limit_by_one_step_at_most_and_says_so(make: Any) -> None:
    kind = of_kind(make())
    env = kind.ComputeLimit(make(), team_max_flops=100, on_exhausted="truncate")
    play(env, lambda agent, number: np.zeros(1, np.float32), lambda agent, number: 30)
    # parallel: 90, then 180; in turns the fourth action makes it 120
    assert (env.overshoot(), env.remaining()) == ((80, 0) if kind is parallel else (20, 0))


@both
def test_an_opaque_agent_that_passes_its_own_limit_ends_the_episode(make: Any) -> None:
    kind = of_kind(make())
    env = kind.ComputeLimit(make(), max_flops={"agent_1": 50}, on_exhausted="terminate")
    play(env, lambda agent, number: np.zeros(1, np.float32), lambda agent, number: 30)
    assert (env.account.total("agent_1"), env.overshoot("agent_1")) == (60, 10)
    assert len(env.unwrapped.taken) == (2 if kind is parallel else 1)  # in turns the second round was not finished


# The law, against adversaries; benchmarks/team_adversary.py runs 10^5 steps of it.


def test_no_adversary_makes_a_team_overspend() -> None:
    outcome = campaign(2_000, seed=7, episode=hard_episode)
    assert outcome.violations == []
    assert outcome.closest > 0.99  # the limits were tight enough to be worth attacking
    assert outcome.allocated > 50


def test_no_opaque_team_passes_its_limit_by_more_than_one_step() -> None:
    outcome = campaign(1_000, seed=7, episode=opaque_episode)
    assert outcome.violations == []
    assert len(outcome.episodes) == 4


def test_costs_here_are_those_of_the_sub_policies() -> None:
    assert (CHEAP, DEAR, STEPS, len(AGENTS)) == (10, 40, 4, 3)
    assert isinstance(get_meter("policy.agent_0"), ComputeMeter)


class Masked(Team):
    """A team whose observations and infos say which of their three primitive actions are legal."""

    def __init__(self) -> None:
        super().__init__()
        mask = spaces.Box(0, 1, (3,), np.int8)
        self._observation = spaces.Dict({"observation": spaces.Box(-1, 1, (2,), np.float32), "action_mask": mask})

    def _observe(self) -> dict[str, Any]:
        seen = {"observation": np.zeros(2, np.float32), "action_mask": np.array([1, 0, 1], np.int8)}
        return {agent: dict(seen) for agent in self.agents}


@pytest.mark.parametrize("selector", [0, 7])
def test_masks_are_of_the_choices_that_the_limits_let_run(selector: int) -> None:
    """In parallel where the others take their cheapest: one agent asks for the dear one and is told beforehand."""
    env = Masked()
    policies = [FunctionPolicy(lambda seen: np.zeros(1, np.float32), cost, f"costs {cost}") for cost in (CHEAP, DEAR)]
    # the path of all is 3 · 4 · (10 + selector); one upgrade of 30 is in it, and a rest of 20
    limit = PATH + 12 * selector + 50
    env = parallel.ComputeLimit(parallel.SubPolicyAction(env, policies, selector_flops=selector), team_max_flops=limit)
    observations, _ = env.reset(seed=0)
    shown, options = [], []
    for _ in range(STEPS):
        shown.append([seen["action_mask"].tolist() for seen in observations.values()])
        for agent in AGENTS:
            get_meter(f"policy.{agent}").add(selector, "selector")
        observations, _, _, _, infos = env.step({"agent_0": 0, "agent_1": 1, "agent_2": 0})
        options.append(float(infos["agent_1"]["option"]))
    assert shown == [[[1, 1]] * 3] + [[[1, 0]] * 3] * (STEPS - 1)
    assert options == [1.0, 0.0, 0.0, 0.0]


def test_masks_of_turns_are_of_the_choices_that_the_limits_let_run() -> None:
    policies = [FunctionPolicy(lambda seen: np.zeros(1, np.float32), cost, f"costs {cost}") for cost in (CHEAP, DEAR)]
    env = aec.ComputeLimit(aec.SubPolicyAction(parallel_to_aec(Masked()), policies), team_max_flops=PATH + 50)
    env.reset(seed=0)
    shown = []
    for _ in range(3):
        shown.append(env.last()[0]["action_mask"].tolist())
        env.step(1)
    assert shown == [[1, 1], [1, 0], [1, 0]]
    assert env.infos["agent_1"]["option"] == 0.0
