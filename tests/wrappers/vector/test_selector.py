"""step(None) of vector wrappers: the selector is asked once a row, and each row pays for its own choice."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import budget_wrappers.wrappers as scalar
from budget_wrappers.core import Choice
from budget_wrappers.errors import ConfigError, CostError, SpaceError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.selection import coin, fixed
from budget_wrappers.wrappers.vector import ComputeLimit, EarlyExitAction, RecordComputeStatistics, SubPolicyAction
from tests.gymnasium_versions import needs_masks, sync
from tests.wrappers.environments import CHEAP, DEAR, Alternating, SpacesEnv, cheap, dear, exits
from tests.wrappers.vector.episodes import RandomLengthEnv, cost_of, first_number
from tests.wrappers.vector.test_traps import DISABLED, NEXT, SAME, make


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def options(meter: ComputeMeter, selector: Any, envs: Any = None, **arguments: Any) -> SubPolicyAction:
    envs = make(NEXT) if envs is None else envs
    return SubPolicyAction(envs, [dear("box"), cheap("box")], meter=meter, selector=selector, **arguments)


class ByObservation:
    """Picks by the observation, at a cost that the observation decides too: the same in a batch and singly."""

    flops = 100

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, observation: Any) -> Choice:
        self.seen.append(np.array(observation))
        return Choice(int(first_number(observation) > 0.5), cost_of(observation, self.flops))


def test_the_selector_is_asked_once_a_row_and_each_row_pays(meter: ComputeMeter) -> None:
    envs = RecordComputeStatistics(options(meter, Alternating()), meter)
    envs.reset(seed=0)
    infos = envs.step(None)[4]
    assert infos["option"].tolist() == [1.0, 0.0]
    assert infos["cost"].tolist() == [DEAR + 70, CHEAP + 70]
    assert meter.by_name["selector"] == 2 * 70


def test_each_row_s_choice_is_of_its_own_observation(meter: ComputeMeter) -> None:
    selector = ByObservation()
    envs = options(meter, selector)
    observations = envs.reset(seed=0)[0]
    infos = envs.step(None)[4]
    np.testing.assert_array_equal(selector.seen, observations)
    assert infos["option"].tolist() == [float(first_number(row) > 0.5) for row in observations]


def test_actions_override_the_selector(meter: ComputeMeter) -> None:
    selector = ByObservation()
    envs = options(meter, selector)
    envs.reset(seed=0)
    assert envs.step([1, 0])[4]["option"].tolist() == [1.0, 0.0]
    assert (selector.seen, meter.take().executed) == ([], DEAR + CHEAP)


def test_a_row_that_is_only_reset_asks_nobody_and_pays_nothing(meter: ComputeMeter) -> None:
    selector = Alternating()
    envs = RecordComputeStatistics(options(meter, selector, make(NEXT, ends=(1, None))), meter)
    envs.reset(seed=0)
    told = [envs.step(None)[4] for _ in range(3)]
    # the second step resets the first environment: one question fewer
    assert [infos["option"].tolist() for infos in told] == [[1.0, 0.0], [-1.0, 1.0], [0.0, 1.0]]
    assert told[1]["cost"].tolist() == [0.0, DEAR + 70]
    assert (selector._asked, meter.uncharged) == (5, 0)


@pytest.mark.parametrize("mode", [NEXT, SAME])
def test_a_batch_is_what_single_environments_are(mode: Any) -> None:
    """Rows' accounts, first episodes: the very numbers of the wrapper for single environments."""
    policies = [FunctionPolicy(lambda obs: 0, 10, "lean"), FunctionPolicy(lambda obs: 1, 40, "rich")]
    accounts = []
    for row in range(3):
        single = ComputeMeter(f"single {row}")
        env = scalar.SubPolicyAction(RandomLengthEnv(), policies, 1, 0.01, single, selector=ByObservation())
        env = scalar.RecordComputeStatistics(env, single)
        env.reset(seed=row)
        transition: Any = (None, 0.0, False, False, {})
        while not (transition[2] or transition[3]):
            transition = env.step(None)
        accounts.append(transition[4]["compute"])
    meter = ComputeMeter("batch")
    envs = SubPolicyAction(sync([RandomLengthEnv] * 3, mode), policies, 1, 0.01, meter, ByObservation())
    envs = RecordComputeStatistics(envs, meter)
    envs.reset(seed=[0, 1, 2])
    found: list[Any] = [None] * 3
    while None in found:
        *_, infos = envs.step(None)
        infos = infos if mode is NEXT else infos.get("final_info", {})
        for row in np.flatnonzero(infos.get("_compute", [])):
            if found[row] is None:
                account = infos["compute"]
                found[row] = {key: account[key][row] for key in ("flops", "steps", "return_raw", "return_penalised")}
                found[row]["selector"] = account["share_flops"]["selector"][row]
    for one, other in zip(found, accounts, strict=True):
        assert one.pop("selector") == pytest.approx(other["share_flops"]["selector"])
        assert one == {key: other[key] for key in one}


def test_exits_of_a_batch_take_a_selector_too(meter: ComputeMeter) -> None:
    envs = EarlyExitAction(make(NEXT), exits(), meter=meter, selector=fixed(1))
    envs.reset(seed=0)
    assert envs.step(None)[4]["option"].tolist() == [1.0, 1.0]


@needs_masks
def test_under_a_limit_rows_pay_for_their_choices(meter: ComputeMeter) -> None:
    envs = ComputeLimit(options(meter, Alternating(), make(NEXT)), 200, meter=meter)
    envs.reset(seed=0)
    envs.step(None)
    assert envs.remaining.tolist() == [200 - DEAR - 70, 200 - CHEAP - 70]
    truncations = envs.step(None)[3]
    assert (truncations.tolist(), envs.overshoot.tolist()) == ([True, False], [20, 0])


# ---- memories -------------------------------------------------------------------------------------------------------


class Remembering:
    """A selector with a memory: which choice of the episode it is."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def reset(self) -> None:
        self.count = 0

    def __call__(self, observation: Any) -> Choice:
        self.counts.append(self.count)
        self.count += 1
        return Choice(0)


def test_a_memory_that_rows_would_share_is_refused(meter: ComputeMeter) -> None:
    with pytest.raises(ConfigError, match="keeps a memory, and 2 environments would share it"):
        options(meter, Remembering())


@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
def test_a_single_row_s_memory_is_told_of_each_episode(meter: ComputeMeter, mode: Any) -> None:
    selector = Remembering()
    envs = options(meter, selector, make(mode, ends=(2,)))
    envs.reset(seed=0)
    while len(selector.counts) < 6:
        _, _, terminations, _, _ = envs.step(None)
        if mode is DISABLED and terminations.any():
            envs.reset(options={"reset_mask": terminations})
    assert selector.counts == [0, 1] * 3


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_step_none_without_a_selector_is_refused(meter: ComputeMeter) -> None:
    envs = options(meter, None)
    envs.reset(seed=0)
    with pytest.raises(SpaceError, match=r"step\(None\) asks a selector, and this wrapper has none"):
        envs.step(None)


def test_a_choice_lasts_one_step(meter: ComputeMeter) -> None:
    envs = options(meter, coin([0.5, 0.5], np.random.default_rng(0), duration=2))
    envs.reset(seed=0)
    with pytest.raises(ConfigError, match="duration=2, and the wrapper's choices last hold=1"):
        envs.step(None)


def test_what_rows_have_asked_before_a_failure_is_paid(meter: ComputeMeter) -> None:
    """Row 0 was asked, row 1 costs more than is declared, row 2 is never asked."""

    class Greedy(Alternating):
        flops = 5

        def __call__(self, observation: Any) -> Choice:
            self._asked += 1
            return Choice(0, 6 if self._asked == 2 else 5)

    envs = SubPolicyAction(sync([SpacesEnv] * 3, NEXT), [cheap("box")], meter=meter, selector=Greedy())
    envs = RecordComputeStatistics(envs, meter)
    envs.reset(seed=0)
    with pytest.raises(CostError, match="ran 6 FLOPs for one choice and 5 are declared"):
        envs.step(None)
    assert meter.executed == 5 + 6
    assert envs.step(None)[4]["cost"].tolist() == [5 + 5 + CHEAP, 6 + 5 + CHEAP, 5 + CHEAP]  # the next step pays


def test_the_selector_is_recorded_by_its_name(meter: ComputeMeter) -> None:
    envs = SubPolicyAction(make(NEXT), ["cheap-box", "dear-box"], meter=meter, selector="alternating")
    assert envs._saved_kwargs["selector"] == "alternating"
    assert isinstance(envs.selector, Alternating)
    assert isinstance(envs.single_action_space, gym.spaces.Discrete)
