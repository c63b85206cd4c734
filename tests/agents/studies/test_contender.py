"""A class of somebody's own takes part in a comparison: its page is the test, and nothing that it runs is free."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.cli import main
from agents.report.tradeoff import Comparison
from agents.studies.contender import Contender
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff
from budget_wrappers.errors import ConfigError, UncountableError

PAGE = Path(__file__).parents[3] / "docs" / "own_method.md"
RUN = {"env": "Pendulum-v1", "steps": 200, "eval_every": 200}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("mine", None)


def contender(here: Path, text: str = "", **changes: Any) -> Contender:
    (here / "mine.py").write_text(text)
    settings = {"budget": None, "episodes": 1, "method": "mine", "label": "mine", "seed": 0, **changes}
    return Contender("mine:Contender", "mine-seed0", str(here), RUN, **settings)


def test_the_page_s_class_is_a_row_of_the_page_s_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python, command = re.findall(r"```(?:python|console)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (here / "mine.py").write_text(python)
    words = command.split()[1:]
    shorter = ["--steps", "400", "--batch-size", "8", "--episodes", "1", "--eval-every", "400", "--seeds", "0"]
    assert main([*words, *shorter, "--workers", "1", "--folder", "run"]) == 0
    (point,) = (one for one in Comparison.read(here / "run").points if one.method == "mine:Contender")
    # 3 observations, 4 units, 1 action.
    assert point.flops_per_step == 2 * (3 * 4 + 4 * 1)
    # Two episodes of 200 steps were all that it could take; with gradients off they are acting.
    assert point.extras["train_act_flops"] == 400 * 32
    assert point.extras["train_steps"] == 400
    assert "mine:Contender, b = 0.5" in capsys.readouterr().out


FREE = """
import numpy as np, torch
class Contender:
    def train(self, make_env, budget, steps, seed, meter):
        self.net = torch.nn.Linear(3, 1)
        return self
    def predict(self, observation, deterministic=True, **state):
        return self.net(torch.as_tensor(observation)).detach().numpy(), None
"""


def test_a_policy_that_charges_nothing_for_what_it_runs_is_refused(here: Path) -> None:
    with pytest.raises(UncountableError, match=r"runs 6 FLOPs and charges 0: expected all of them.*meter\.watch"):
        contender(here, FREE).work(lambda steps: True)


STEPS = """
import numpy as np
class Contender:
    more = 0
    def train(self, make_env, budget, steps, seed, meter):
        env = make_env()
        env.reset(seed=seed)
        for _ in range(steps + self.more):
            meter.add(1)
            env.step(env.action_space.sample())
            meter.take()
        self.meter = meter
        return self
    def predict(self, observation, deterministic=True, **state):
        self.meter.add(7, "table")
        return np.zeros(1, np.float32), None
"""


LATE = """
import numpy as np, torch
class Contender:
    def train(self, make_env, budget, steps, seed, meter):
        self.net, self.meter, self.calls = torch.nn.Linear(3, 1), meter, 0
        return self
    def predict(self, observation, deterministic=True, **state):
        self.calls += 1
        self.meter.add(6 if self.calls <= 2 else 1)
        return self.net(torch.as_tensor(observation)).detach().numpy(), None
"""


def test_a_policy_that_charges_its_first_actions_alone_is_refused(here: Path) -> None:
    # Each action that is looked at is computed once to count it and once to act: two calls are the first action.
    with pytest.raises(UncountableError, match=r"action 1 of .* runs 6 FLOPs and charges 1"):
        contender(here, LATE).work(lambda steps: True)


def test_what_a_contender_raises_is_told_and_the_others_go_on(here: Path) -> None:
    (here / "mine.py").write_text("class Contender:\n    def train(self, *given):\n        raise ValueError('no')\n")
    methods = ("sac:4", "mine:Contender")
    config = TradeoffConfig(("Pendulum-v1",), methods, budgets=(0.5,), seeds=(0,), steps=40, episodes=1, workers=1)
    run_tradeoff(config, here / "run")
    written = Comparison.read(here / "run")
    assert [point.label for point in written.points] == ["sac:4"]
    assert written.settings["failed"] == {"mine-Contender-b0.5-seed0": "ValueError: no"}


def test_steps_are_what_all_have_and_settings_are_attributes(here: Path) -> None:
    with pytest.raises(ConfigError, match="took more than its 200 steps"):
        contender(here, STEPS, settings={"more": 1}).work(lambda steps: True)
    with pytest.raises(ConfigError, match="has no less"):
        contender(here, STEPS, settings={"less": 1}).work(lambda steps: True)


def test_what_cannot_be_made_and_a_predict_without_a_state_are_refused(here: Path) -> None:
    needs = STEPS.replace("    more = 0\n", "    more = 0\n    def __init__(self, units): pass\n")
    with pytest.raises(ConfigError, match="takes no arguments"):
        contender(here, needs).instance()
    sys.modules.pop("mine")
    with pytest.raises(ConfigError, match="return action, state"):
        contender(here, STEPS.replace("np.float32), None", "np.float32)")).work(lambda steps: True)


def test_what_it_sets_for_all_of_torch_ends_with_it(here: Path) -> None:
    sets = "import torch; torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); "
    contender(here, STEPS.replace("        env = make_env()", f"        {sets}env = make_env()")).work(
        lambda steps: True
    )
    try:
        assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (torch.float32, True)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)


def test_it_stops_when_it_is_asked_to(here: Path) -> None:
    steps: list[int] = []

    def advance(count: int) -> bool:
        steps.append(count)
        return len(steps) < 5

    assert contender(here, STEPS).work(advance) is None
    assert len(steps) == 5


def test_what_was_measured_is_found_again(here: Path) -> None:
    one = contender(here, STEPS)
    assert one.found() is None
    (point,) = one.work(lambda steps: True)
    assert point.flops_per_step == 7
    assert one.found() == [point]
    with pytest.raises(ConfigError, match="budget"):
        contender(here, STEPS, budget=0.5).found()


@pytest.mark.parametrize(("target", "said"), [("nowhere:X", "cannot be imported"), ("numpy:array", "has no train")])
def test_what_is_no_contender_is_refused(here: Path, target: str, said: str) -> None:
    from agents.studies.contender import contender_named

    with pytest.raises(ConfigError, match=said):
        contender_named(target)
