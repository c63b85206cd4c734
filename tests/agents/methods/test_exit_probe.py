"""An agent that learns where a dear exit matters: what a batch's program wins is what the arithmetic says."""

import numpy as np
import pytest

from benchmarks.bexa import probe
from benchmarks.bexa.probe import TARGET, EasyOrHard, expected, outcome


def test_the_arithmetic_of_the_probe() -> None:
    assert expected("budget", 0.25) == 0.625  # ½·1 for easy states, ½·¼ for hard ones
    assert expected("batch_budget", 0.25) == pytest.approx(
        0.75, abs=1e-6
    )  # hard states get the dear exit half of the time
    assert expected("batch_budget", 0.5) == pytest.approx(
        0.98, abs=0.005
    )  # a batch may have more hard states than easy


def test_the_probe_pays_what_it_says() -> None:
    env = EasyOrHard()
    for seed in range(50):
        hard, x, y, z = env.reset(seed=seed)[0]
        right = TARGET * (y * z if hard else x)
        assert env.step(np.array([right]))[1] == pytest.approx(1.0)
        env.reset(seed=seed)
        assert env.step(np.array([0.0]))[1] == pytest.approx(0.0)  # the best that is linear, in a hard state


def test_a_batch_s_program_wins_what_the_arithmetic_says_on_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    # Five times the step size: as close to the arithmetic in a third of the steps.
    monkeypatch.setattr(probe, "SETTINGS", {**probe.SETTINGS, "learning_rate": 1e-2, "learning_starts": 300})
    reward = {training: outcome(training, 0.25, 0, 1_000, 1_500)["reward"] for training in ("budget", "batch_budget")}
    # standard error of 1,500 rewards in [0, 1]: at most .013
    assert reward["budget"] == pytest.approx(expected("budget", 0.25), abs=0.05)
    assert reward["batch_budget"] - reward["budget"] == pytest.approx(0.125, abs=0.05)
