"""``budget train --penalty-budget``: a weight that adapts, in the run's rows, checkpoints and evaluations."""

from pathlib import Path

import pytest

from agents.cli import main
from agents.loop.checkpoint import read_header
from agents.runs.log import read_rows
from agents.studies.policies import PolicyOptions, open_policy
from budget_wrappers.wrappers.weighing import multiplier_in

FLAGS = "--env CartPole-v1 --steps 450 --net-arch 16 16 --learning-starts 50 --log-every 50 --eval-episodes 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run whose policy of 704 FLOPs, and 0 where it explores, is to keep 300 a step."""
    folder = tmp_path_factory.mktemp("runs") / "dqn"
    words = ["train", "dqn", *FLAGS.split(), "--eval-every", "200", "--run", str(folder), "--penalty-budget", "300"]
    assert main([*words, "--penalty", "1e-5"]) == 0
    return folder


def weights(folder: Path) -> list[float]:
    return [row["compute/penalty_weight"] for row in read_rows(folder, "training") if "compute/penalty_weight" in row]


def test_the_weight_begins_at_the_penalty_and_moves_after_an_interval(folder: Path) -> None:
    assert weights(folder)[0] == 1e-5
    assert weights(folder)[-1] > 1e-5


@pytest.mark.parametrize("which", ["last", "best"])
def test_an_evaluation_has_the_weight_that_training_left_and_keeps_it(folder: Path, which: str) -> None:
    path = folder / {"last": "checkpoint.safetensors", "best": "best.safetensors"}[which]
    policy, env, _ = open_policy(PolicyOptions(folder, which))
    weigher, stored = multiplier_in(env), read_header(path)["extra"]["wrappers"]["ComputePenaltyReward.1"]
    assert weigher.state_dict() == stored
    observation, _ = env.reset(seed=0)
    for _ in range(300):
        *step, _ = env.step(policy.predict(observation)[0])
        observation = env.reset()[0] if step[2] or step[3] else step[0]
    assert weigher.state_dict() == stored


def test_a_share_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "dqn", "--env", "CartPole-v1", "--penalty-budget", "0.5"]) == 2
    assert "penalty_budget=0.5: expected FLOPs per environment step, above 1, or 0 for none" in capsys.readouterr().err
