"""Engines: the same actions from torch, numpy and ONNX Runtime, at the FLOPs that the layers have."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from agents.loop.evaluate import evaluate_policy
from budget_wrappers.deploy.engines import ENGINES, EnginePolicy
from budget_wrappers.errors import ConfigError, MissingExtraError, SpaceError
from budget_wrappers.policies.retrofit import TrainedActor
from budget_wrappers.wrappers import RecordComputeStatistics

BOX = spaces.Box(-2.0, 2.0, (1,), np.float32)


def module(outputs: int, activation: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, outputs))


def policy(engine: Any, space: gym.Space = BOX, activation: type[nn.Module] = nn.ReLU) -> EnginePolicy:
    if engine == "onnxruntime":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    outputs = 1 if isinstance(space, spaces.Box) else 4
    return EnginePolicy(TrainedActor.of_module(module(outputs, activation), space, "squash"), engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("space", [BOX, spaces.Discrete(4, start=2)])
def test_every_engine_says_what_the_module_says(engine: Any, activation: Any, space: gym.Space) -> None:
    x = np.random.default_rng(0).standard_normal((20, 3))
    with torch.no_grad():
        said = module(1 if space is BOX else 4, activation)(torch.tensor(x, dtype=torch.float32)).numpy()
    expected = 2 * np.tanh(said) if space is BOX else 2 + said.argmax(1)
    made = policy(engine, space, activation)
    np.testing.assert_allclose(made.predict(x)[0], expected, atol=1e-5)
    np.testing.assert_allclose(made.predict(x[0])[0], expected[0], atol=1e-5)
    assert made.meter.totals["act"] == 21 * 2 * (3 * 8 + 8 * 8 + 8 * (1 if space is BOX else 4))


@pytest.mark.parametrize("engine", ENGINES)
def test_layers_without_a_bias_are_evaluated_as_they_are(engine: Any) -> None:
    if engine == "onnxruntime":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8, bias=False), nn.Tanh(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))
    made = ENGINES[engine](net[::2], "tanh")
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.as_tensor(x)).numpy()
    said = made(x)
    assert said.dtype == np.float32
    np.testing.assert_allclose(said, expected, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_plays_an_episode_under_a_wrapper(engine: Any) -> None:
    made = policy(engine)
    result = evaluate_policy(made, RecordComputeStatistics(gym.make("Pendulum-v1"), made.meter), 1)
    assert result.flops_per_step == made.flops == 2 * (3 * 8 + 8 * 8 + 8)


def test_engines_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = TrainedActor.of_module(module(1, nn.ReLU), BOX, "squash")
    with pytest.raises(ConfigError, match="expected one of torch, numpy, onnxruntime"):
        EnginePolicy(actor, "jax")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"budget-wrappers\[onnx\]"):
        EnginePolicy(actor, "onnxruntime")


def test_another_observation_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"expected \(3,\)"):
        policy("numpy").predict(np.zeros(4))


def test_the_profile_has_a_row_for_each_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from agents.cli import main

    command = ["profile", "--env", "Pendulum-v1", "--agent", "sac", "--net-arch", "8", "8", "--samples", "20"]
    assert main([*command, "--out", str(tmp_path / "card.json"), "--hz", "1"]) == 0
    said = capsys.readouterr().out
    for engine in ("torch", "numpy"):
        assert f"  {engine}" in said
        assert (tmp_path / f"card.{engine}.json").exists()
    assert main([*command, "--agent", "bexa-sac"]) == 0  # no single network: no engines
