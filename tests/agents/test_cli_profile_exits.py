"""``budget profile`` of a policy with early exits: states that it visits, all of its parameters, its slowest exit."""

import re
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import PendulumEnv

from agents.cli import main
from agents.loop.evaluate import evaluate_policy
from budget_wrappers.deploy.exit_acting import ExitForward
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy
from budget_wrappers.metering import Latency, Profile, profiling
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies.outputs import ActionMap

WIDTH = 8


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a policy that leaves at exit 1 where the pendulum hangs (cos θ < 0) and at exit 3 where it stands."""
    torch.manual_seed(0)
    network = EarlyExitNetwork(3, 1, (WIDTH, WIDTH))
    with torch.no_grad():
        network.exits[0].weight[-1] = torch.tensor([-50.0, 0.0, 0.0])
        network.exits[0].bias[-1] = 0.0
        network.exits[1].weight[-1] = 0.0
        network.exits[1].bias[-1] = -50.0
    policy = BudgetedExitPolicy(network, ActionMap("squash", (-2.0,), (2.0,)), 0.3)
    return policy.save(tmp_path_factory.mktemp("policy") / "budget-0.3")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure energy, which is not what these tests are about, for a hundredth of the time."""
    whole = profiling.measure_energy
    monkeypatch.setattr(profiling, "measure_energy", lambda call, **how: whole(call, **{**how, "seconds": 0.01}))


def profiled(policy: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Return exit code and output of ``budget profile``."""
    capsys.readouterr()
    code = main(["profile", str(policy), "--env", "Pendulum-v1", "--samples", "20", *words])
    return code, capsys.readouterr().out


@pytest.mark.parametrize("seed", [20_000, 3])
def test_flops_are_those_of_the_states_that_it_visits(
    seed: int, policy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = BudgetedExitPolicy.load(policy_file)
    result = evaluate_policy(policy, gym.make("Pendulum-v1"), 5, seed)
    _, shown = profiled(policy_file, capsys, "--seed", str(seed))
    found = re.search(r"FLOPs per action +([\d,]+)", shown)
    assert found is not None
    assert int(found[1].replace(",", "")) == round(result.flops_per_step)
    # One state costs one of the two; a mean over these lies between.
    assert policy.flops[0] < round(result.flops_per_step) < policy.flops[2]
    assert re.search(rf"1,000 states of 5 episodes, seeds from {seed} on", shown)


def test_parameters_of_an_exit_policy_are_counted(policy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Heads with gates on 3 and on 8 numbers, the last head on 8; two layers, each with biases.
    expected = 4 * 2 + 9 * 2 + 9 * 1 + 4 * WIDTH + 9 * WIDTH
    _, shown = profiled(policy_file, capsys)
    assert re.search(rf"parameters +{expected}\b", shown)


def test_it_fits_only_where_its_slowest_exit_does(
    policy_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Exit 3 takes 1,000 µs, any other 10; every episode starts at the bottom, where the policy leaves at exit 1.
    runs, act = np.zeros(3, dtype=int), ExitForward.__call__
    reset = PendulumEnv.reset

    def counted(self: ExitForward, *args: Any, **settings: Any) -> np.ndarray:
        output = act(self, *args, **settings)
        runs[self.taken] += 1
        return output

    def measured(call: Any, *, samples: int, **_: Any) -> Latency:
        before = runs[2]
        for _ in range(samples):
            call()
        time = 1000.0 if runs[2] - before == samples else 10.0
        return Latency(time, time, time, time, samples, 0, 1, None)

    def at_the_bottom(self: Any, *, seed: int | None = None, options: Any = None) -> Any:
        reset(self, seed=seed, options=options)
        self.state = np.array([np.pi, 0.0])
        return self._get_obs(), {}

    monkeypatch.setattr(ExitForward, "__call__", counted)
    monkeypatch.setattr(PendulumEnv, "reset", at_the_bottom)
    for module in [
        one for name, one in sys.modules.items() if name.startswith(("agents.cli", "budget_wrappers.meter"))
    ]:
        if hasattr(module, "measure_latency"):
            monkeypatch.setattr(module, "measure_latency", measured)
    # Periods of 500 and of 2,000 µs, with 1,000 µs between.
    card = tmp_path / "card.json"
    assert profiled(policy_file, capsys, "--hz", "2000", "--out", str(card))[0] == 1
    assert profiled(policy_file, capsys, "--hz", "500")[0] == 0
    # Another machine that judges the saved profile comes to the same end.
    assert Profile.load(card).at(2000).fits is False


def test_an_agent_with_exits_is_judged_alike(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    words = ["profile", "--env", "Pendulum-v1", "--agent", "bexa-sac", "--net-arch", "8", "8"]
    assert main([*words, "--samples", "20", "--hz", "0.01"]) == 0
    shown = capsys.readouterr().out
    assert "1,000 states of 5 episodes" in shown
    assert len(re.findall(r"^  exit \d", shown, re.MULTILINE)) == 3
    assert re.search(r"judged by exit \d, the slowest", shown)
