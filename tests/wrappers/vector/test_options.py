"""Sub-policies of a batch: each row's own acts on its observation, and is charged to it."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import data_equivalence

import budget_wrappers.wrappers as scalar
from budget_wrappers.errors import ConfigError, InfoKeyError, NonFiniteError, SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import AgentPolicy, FunctionPolicy, ModulePolicy
from budget_wrappers.wrappers import PrimitiveTransition, vector
from budget_wrappers.wrappers.vector import (
    ComputeDelayAction,
    ComputeLimit,
    ComputePenaltyReward,
    EarlyExitAction,
    RecordComputeStatistics,
    SubPolicyAction,
)
from tests.gymnasium_versions import needs_masks, sync
from tests.wrappers.environments import CHEAP, DEAR, KINDS, SpacesEnv, cheap, constant_action, dear, exits
from tests.wrappers.vector.episodes import MODES, Policy, RandomLengthEnv, batch_stories, both_stories
from tests.wrappers.vector.test_equivalence import SUB_POLICIES, reusing_sync
from tests.wrappers.vector.test_traps import NEXT, SAME, make


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def options(meter: ComputeMeter, envs: Any = None, **arguments: Any) -> SubPolicyAction:
    return SubPolicyAction(make(NEXT) if envs is None else envs, [dear("box"), cheap("box")], meter=meter, **arguments)


def acting(function: Callable[[Any], Any]) -> FunctionPolicy:
    return FunctionPolicy(function, 1, "mine")


def three(*policies: Any, meter: ComputeMeter) -> SubPolicyAction:
    """Return three environments, after a reset, with such sub-policies."""
    envs = SubPolicyAction(sync([SpacesEnv] * 3, NEXT), policies, meter=meter)
    envs.reset(seed=0)
    return envs


def test_numbers_by_hand(meter: ComputeMeter) -> None:
    """Rewards are 1, 2, … in both; the cheap one costs 10 FLOPs, the dear one 40: 1 and 4 units."""
    envs = RecordComputeStatistics(options(meter, make(NEXT, ends=(2, None)), weight=0.5), meter)
    assert envs.reset(seed=0)[1]["option"].tolist() == [-1.0, -1.0]
    meter.add(10, "gate", rows=2, by_row=[3, 7])
    _, rewards, _, _, infos = envs.step([1, 0])
    assert rewards.tolist() == [1 - 0.5 * 4, 1 - 0.5 * 1]
    assert infos["cost"].tolist() == [40 + 3, 10 + 7]
    assert (infos["option"].tolist(), infos["duration"].tolist()) == ([1.0, 0.0], [1.0, 1.0])
    account = envs.step([0, 0])[4]["compute"]
    assert (account["flops"][0], account["steps"][0], account["return_raw"][0]) == (40 + 3 + 10, 2, 1 + 2)
    assert account["return_penalised"][0] == 3 - 0.5 * (4 + 1)
    shares = {name: share[0] for name, share in account["share_flops"].items() if not name.startswith("_")}
    assert shares == {"cheap": 10 / 53, "dear": 40 / 53, "selector": 3 / 53}
    shares = {name: share[0] for name, share in account["share_steps"].items() if not name.startswith("_")}
    assert shares == {"cheap": 0.5, "dear": 0.5, "hold": 0.0}


def test_actions_are_the_sub_policies_cheapest_first(meter: ComputeMeter) -> None:
    envs = options(meter)
    assert envs.single_action_space == gym.spaces.Discrete(2)
    assert (envs.action_space.shape, envs.action_space.nvec.tolist()) == ((2,), [2, 2])
    assert (envs.sub_policies.names, envs.choice_flops.tolist()) == (("cheap", "dear"), [CHEAP, DEAR])


def test_a_row_that_is_only_reset_runs_nothing_and_pays_nothing(meter: ComputeMeter) -> None:
    seen: list[Any] = []
    policy = acting(lambda obs: seen.append(obs) or np.zeros(3))
    envs = SubPolicyAction(make(NEXT, ends=(1, None)), [policy], meter=meter)
    envs.reset(seed=0)
    told = [envs.step([0, 0])[4] for _ in range(3)]
    assert [infos["option"].tolist() for infos in told] == [[0.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]
    assert [infos["duration"].tolist() for infos in told] == [[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]
    assert (len(seen), meter.executed, meter.uncharged) == (5, 5, 0)


# ---- batches ---------------------------------------------------------------------------------------------------------


class Noting:
    """A sub-policy that notes how many observations it is given at once."""

    name, flops, batched = "noting", 5, True

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, observation: Any) -> Any:
        self.sizes.append(1)
        return observation

    def batch(self, observations: Any) -> Any:
        self.sizes.append(len(observations))
        return np.stack(observations)


def test_rows_of_one_sub_policy_are_one_batch_in_their_order(meter: ComputeMeter) -> None:
    noting = Noting()
    envs = three(noting, dear("box"), meter=meter)
    observations = envs.reset(seed=0)[0]
    envs.step([0, 1, 0])
    actions = [env.actions[0] for env in envs.env.envs]
    np.testing.assert_array_equal(actions, [observations[0], constant_action("box"), observations[2]])
    for choices in ([0, 0, 0], [1, 0, 1]):
        envs.step(choices)
    assert noting.sizes == [2, 3, 1]
    assert dict(meter.by_name) == {"noting": 6 * 5, "dear": 3 * DEAR}


def test_a_module_and_an_agent_act_on_batches_as_on_rows(meter: ComputeMeter) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3), torch.nn.Tanh())
    module = ModulePolicy(net, lambda net, obs: net(obs), np.zeros(3, np.float32), "module")

    class Agent:
        def predict(self, observation: Any, deterministic: bool) -> tuple[Any, None]:
            return np.clip(observation, -0.5, 0.5), None

    for policy in (module, AgentPolicy(Agent(), 1, "agent", batched=True), AgentPolicy(Agent(), 1, "rows")):
        envs = three(policy, meter=meter)
        observations = envs.reset(seed=0)[0]
        envs.step([0, 0, 0])
        alone = [policy(one) for one in observations]
        np.testing.assert_allclose([env.actions[0] for env in envs.env.envs], alone, atol=1e-6)


def test_each_row_leaves_at_its_exit(meter: ComputeMeter) -> None:
    envs = EarlyExitAction(sync([SpacesEnv] * 3, NEXT), exits(), meter=meter)
    observations = envs.reset(seed=0)[0]
    envs.step([1, 0, 1])
    said = envs.policy.network(torch.from_numpy(observations)).output.detach().numpy()
    expected = np.tanh([said[1, 0], said[0, 1], said[1, 2]])
    np.testing.assert_allclose([env.actions[0] for env in envs.env.envs], expected, atol=1e-6)
    # 3 inputs, 4 units, 3 outputs. Exit 1: head 2·3·3. Exit 2: layer 2·3·4, head 2·4·3.
    assert dict(meter.by_name) == {"exit 1": 18, "exit 2": 2 * 48}


def test_a_watched_module_is_not_charged_twice(meter: ComputeMeter) -> None:
    net = torch.nn.Linear(3, 3)
    with meter.watch(net):
        envs = three(ModulePolicy(net, lambda net, obs: net(obs).tanh(), np.zeros(3, np.float32)), meter=meter)
        envs.step([0, 0, 0])
    assert meter.executed == 3 * 18


def test_a_sub_policy_may_reuse_its_buffer(meter: ComputeMeter) -> None:
    buffer = np.zeros(3, np.float32)

    def act(observation: np.ndarray) -> np.ndarray:
        buffer[:] = observation
        return buffer

    envs = three(acting(act), meter=meter)
    observations = envs.reset(seed=0)[0]
    envs.step([0, 0, 0])
    np.testing.assert_array_equal([env.actions[0] for env in envs.env.envs], observations)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_of_every_kind_arrive(kind: str, meter: ComputeMeter) -> None:
    envs = SubPolicyAction(sync([lambda: SpacesEnv(kind)] * 2, NEXT), [cheap(kind), dear(kind)], meter=meter)
    envs.reset(seed=0)
    envs.step([0, 1])
    for env in envs.env.envs:
        assert env.actions[0] in env.action_space
        np.testing.assert_equal(env.actions[0], constant_action(kind))


# ---- subscribers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_envs", [sync, reusing_sync], ids=["copies", "reuses"])
@pytest.mark.parametrize("mode", MODES)
def test_subscribers_hear_of_each_row_what_those_of_its_environment_hear(mode: str, make_envs: Any) -> None:
    def subscribing(home: Any, notes: list[PrimitiveTransition], env: Any, meter: ComputeMeter) -> Any:
        wrapped = home.SubPolicyAction(env, SUB_POLICIES, hold=1, weight=0.3, meter=meter)
        wrapped.subscribe(lambda step: notes.append(step._replace(next_observation=np.array(step.next_observation))))
        return wrapped

    batch: list[PrimitiveTransition] = []
    singly: list[PrimitiveTransition] = []
    both_stories(
        lambda env, meter: subscribing(scalar, singly, env, meter),
        lambda env, meter: subscribing(vector, batch, env, meter),
        RandomLengthEnv,
        make_envs,
        mode,
    )
    by_row = [step for row in range(3) for step in batch if step.row == row]
    assert {step.row for step in singly} == {0}
    assert len(by_row) == len(singly) > 100
    for ours, theirs in zip(by_row, singly, strict=True):
        assert data_equivalence(list(ours[:-1]), list(theirs[:-1]), exact=True), (ours, theirs)


def test_who_no_longer_listens_hears_nothing(meter: ComputeMeter) -> None:
    envs, heard = options(meter), []
    forget = envs.subscribe(heard.append)
    envs.reset(seed=0)
    envs.step([0, 1])
    forget()
    envs.step([0, 1])
    assert [(step.row, step.index) for step in heard] == [(0, 0), (1, 1)]


# ---- limits ----------------------------------------------------------------------------------------------------------


def limited_stories(mode: str, limit: int) -> list[list[Any]]:
    policy = Policy(ComputeMeter("tests.limited"))
    envs = SubPolicyAction(sync([RandomLengthEnv] * 3, mode), SUB_POLICIES, meter=policy.meter)
    envs = RecordComputeStatistics(ComputeLimit(envs, limit, meter=policy.meter), policy.meter)
    return batch_stories(envs, mode, policy, 60, seed=0)


@needs_masks
def test_a_limit_outside_is_passed_by_one_step_at_most_and_tells_the_same_in_each_mode() -> None:
    limit = 10**9
    told = limited_stories("Disabled", limit)
    accounts = [(event[-1]["cost"], event[-1]["compute"]) for row in told for event in row if "compute" in event[-1]]
    for cost, account in accounts:
        assert sum(account["share_flops"].values()) == pytest.approx(1, rel=1e-12)
        assert 0 <= account["overshoot"] <= cost
        assert account["overshoot"] == max(account["flops"] - limit, 0)
    assert sum(account["overshoot"] > 0 for _, account in accounts) > 10
    for mode in ("NextStep", "SameStep"):
        for ours, theirs in zip(limited_stories(mode, limit), told, strict=True):
            assert len(ours) > 40
            for one, other in zip(ours, theirs, strict=False):
                assert data_equivalence(list(one), list(other), exact=True), (mode, one, other)


@needs_masks
def test_a_row_that_a_limit_has_ended_runs_nothing_until_it_is_reset(meter: ComputeMeter) -> None:
    """In ``NEXT_STEP`` its environment is stepped once more and that is thrown away: no sub-policy runs for it."""
    heard: list[PrimitiveTransition] = []
    inner = options(meter, make(NEXT))
    inner.subscribe(heard.append)
    envs = ComputeLimit(inner, 2 * CHEAP, meter=meter)
    envs.reset(seed=0)
    truncated = [envs.step([0, 0])[3].tolist() for _ in range(3)]
    assert truncated == [[False, False], [True, True], [False, False]]
    assert (len(heard), meter.executed) == (4, 4 * CHEAP)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (np.zeros(2, np.float32), SpaceError, r"'mine' returned an action of shape \(2,\); expected \(3,\)"),
        (np.zeros((1, 3), np.float32), SpaceError, "without a batch dimension"),
        (np.array([0.0, np.nan, 0.0]), NonFiniteError, "'mine' returned"),
    ],
)
def test_what_is_no_action_raises_and_names_the_sub_policy(
    returned: Any, error: type[Exception], message: str, meter: ComputeMeter
) -> None:
    envs = three(acting(lambda obs: returned), meter=meter)
    with pytest.raises(error, match=message):
        envs.step([0, 0, 0])


@pytest.mark.parametrize("act", [lambda net, obs: net(obs)[:1], lambda net, obs: net(obs).sum()], ids=["one", "none"])
def test_a_batch_of_another_length_raises_and_names_the_sub_policy(act: Any, meter: ComputeMeter) -> None:
    envs = three(ModulePolicy(torch.nn.Linear(3, 3), act, np.zeros(3, np.float32), "first only"), meter=meter)
    with pytest.raises(SpaceError, match=r"'first only' returned .* batch of 3 observations; expected 3 actions"):
        envs.step([0, 0, 0])


@pytest.mark.parametrize("hold", [2, [1, 3]])
@pytest.mark.parametrize("wrap", [lambda **kwargs: SubPolicyAction(make(NEXT), ["cheap-box"], **kwargs),
                                  lambda **kwargs: EarlyExitAction(make(NEXT), "exits-box", **kwargs)])  # fmt: skip
def test_a_longer_option_is_refused_and_says_where_it_goes(wrap: Any, hold: Any) -> None:
    with pytest.raises(ConfigError, match=r"SyncVectorEnv\(\[lambda: (SubPolicy|EarlyExit)Action\(env, …, hold="):
        wrap(hold=hold)
    assert wrap(hold=[1]).single_action_space.n >= 1


@pytest.mark.parametrize("actions", [[0], [0, 2], [-1, 0], [0.0, 1.0], 1, None])
def test_what_is_no_index_for_each_row_is_refused(actions: Any, meter: ComputeMeter) -> None:
    envs = options(meter)
    envs.reset(seed=0)
    with pytest.raises(SpaceError, match="expected"):
        envs.step(actions)


def test_wrappers_that_read_costs_go_outside(meter: ComputeMeter) -> None:
    for wrap in (RecordComputeStatistics, lambda envs, meter: ComputePenaltyReward(envs, 0.1, meter=meter)):
        with pytest.raises(WrapperOrderError, match="put wrappers that record, penalise or limit outside"):
            options(meter, wrap(make(NEXT), meter))
    with pytest.raises(WrapperOrderError, match="chooses sub-policies already"):
        EarlyExitAction(options(meter), exits(), meter=meter)
    options(meter, ComputeDelayAction(make(NEXT), [(1, 1.0)], 0.02, meter=meter))


def test_a_penalty_on_top_of_a_weight_is_refused(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match="a second time"):
        ComputePenaltyReward(options(meter, weight=0.5), 0.1, meter=meter)
    envs = options(meter)
    penalised = ComputePenaltyReward(envs, 0.1, meter=meter)
    envs.set_weight(0.25)
    with pytest.raises(WrapperOrderError, match="a second time"):
        penalised.reset()
    envs.reset(seed=0)
    assert envs.step([1, 0])[1].tolist() == [1 - 0.25 * 4, 1 - 0.25]


@pytest.mark.parametrize("mode", [NEXT, SAME])
def test_a_key_of_the_environments_is_not_overwritten(mode: Any, meter: ComputeMeter) -> None:
    with pytest.raises(InfoKeyError, match=r"'duration' and 'option' are ours.*Rename them"):
        options(meter, make(mode, info={"option": 3.0})).reset()


def test_a_step_before_the_first_reset_raises(meter: ComputeMeter) -> None:
    with pytest.raises(ResetNeeded):
        options(meter).step([0, 0])
