"""Asymmetric sub-policies whose master picks how long its choice lasts."""

import tomllib

import gymnasium as gym
import numpy as np
import pytest

from agents.cli import main
from agents.loop.evaluate import evaluate_policy
from agents.methods.asymmetric import Asymmetric, AsymmetricConfig
from budget_wrappers.errors import ConfigError
from tests.agents.methods.test_asymmetric import LARGE, SMALL, always, make

# The master has one value for each of two sub-policies and two durations: 2·(3·8 + 8·4).
MASTER = 112
SMALL_SHORT, LARGE_SHORT, SMALL_LONG, LARGE_LONG = range(4)


def adaptive(**settings: object) -> Asymmetric:
    return make(hold=(1, 10), master_learning_starts=0, **settings)


def test_the_master_has_a_value_for_each_pair() -> None:
    agent = adaptive()
    assert agent.options.action_space == gym.spaces.Discrete(4)
    assert agent.master.flops_per_action == MASTER


@pytest.mark.parametrize(
    ("action", "flops", "decisions"),
    [(SMALL_SHORT, SMALL, 23), (LARGE_SHORT, LARGE, 23), (SMALL_LONG, SMALL, 3), (LARGE_LONG, LARGE, 3)],
)
def test_the_account_holds_the_steps_and_as_many_decisions_as_the_duration_makes(
    action: int, flops: int, decisions: int
) -> None:
    agent = always(adaptive(), action)
    agent.learn(23)
    assert agent.meter.totals["act"] == 23 * flops + decisions * MASTER
    result = evaluate_policy(agent, gym.make("Pendulum-v1", max_episode_steps=23), episodes=1)
    assert result.flops == [23 * flops + decisions * MASTER]


def test_bootstraps_reach_as_far_as_each_choice_lasted() -> None:
    agent = adaptive(gamma=0.9)
    agent.learn(200)
    count = len(agent.master.replay)
    durations = agent.master.replay.duration[:count]
    # Episodes have 23 steps: 10 at most, fewer only at their ends.
    assert {1.0, 10.0} < set(durations.tolist())
    chosen = agent.master.replay.replay.action[:count].flatten() // 2
    assert durations[chosen == 0].unique().tolist() == [1.0]
    batch = agent.master.replay.sample(40, agent.generator)
    np.testing.assert_allclose(batch.discount, 0.9 ** durations[batch.index], rtol=1e-5)


def test_rows_of_a_batch_hold_for_their_own_durations() -> None:
    agent = adaptive()
    agent.master.act = lambda rows, deterministic: np.array([SMALL_SHORT, LARGE_LONG, LARGE_SHORT, SMALL_LONG])
    _, (option, left) = agent.predict(np.zeros((4, 3), np.float32))
    assert (option.tolist(), left.tolist()) == ([0, 1, 1, 0], [0, 9, 0, 9])


@pytest.mark.parametrize("hold", [(), (0, 5), (5, 5)])
def test_impossible_durations_are_refused(hold: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="hold"):
        AsymmetricConfig(hold=hold)


def test_several_durations_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "asymmetric", "--env", "Pendulum-v1", "--hold", "1", "5", "20", "--dry-run"]
    assert main(words) == 0
    assert tomllib.loads(capsys.readouterr().out)["hold"] == [1, 5, 20]
