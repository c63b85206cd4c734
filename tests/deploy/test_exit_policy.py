"""A policy with exits as a file: it acts as before it was saved, is charged by exit, and holds no code."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from agents.loop.evaluate import evaluate_policy
from budget_wrappers.deploy.exit_policy import HEADER, BudgetedExitPolicy, Normalisation, is_exit_policy
from budget_wrappers.errors import CheckpointError, ConfigError, NonFiniteError, SpaceError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies.outputs import ActionMap
from budget_wrappers.policies.rows import Concatenation
from budget_wrappers.tensor_files import checksum, metadata_of
from budget_wrappers.wrappers import RecordComputeStatistics

NORMALISATION = Normalisation(np.array([1.0, 0.0, -1.0]), np.array([2.0, 1.0, 0.5]), 5.0)


def made(normalisation: Normalisation | None = None, reads_budget: bool = False, **settings: Any) -> BudgetedExitPolicy:
    torch.manual_seed(0)
    network = EarlyExitNetwork(3, 1, (8, 8), reads_budget=reads_budget)
    return BudgetedExitPolicy(network, ActionMap("squash", (-2.0,), (2.0,)), 0.3, normalisation, **settings)


def rewrite(path: Path, change: dict[str, Any], other: Any = dict) -> None:
    """Change a saved policy's header and tensors, with checksums that fit what is written."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[HEADER])
    tensors = other(load_file(path))
    header |= {"crc32": {name: checksum(tensor) for name, tensor in tensors.items()}}
    save_file(tensors, path, metadata=metadata_of(HEADER, header | change))


@pytest.mark.parametrize("reads_budget", [False, True])
@pytest.mark.parametrize("normalisation", [None, NORMALISATION])
def test_a_saved_policy_acts_as_before(tmp_path: Path, normalisation: Normalisation | None, reads_budget: bool) -> None:
    policy = made(normalisation, reads_budget)
    path = policy.save(tmp_path / "budget-0.3")
    assert path.name == "budget-0.3.safetensors"
    again = BudgetedExitPolicy.load(path)
    observations = np.random.default_rng(0).standard_normal((50, 3))
    np.testing.assert_array_equal(again.predict(observations)[0], policy.predict(observations)[0])
    assert again.network.reads_budget is reads_budget
    assert (again.budget, again.flops) == (policy.budget, policy.flops)


def test_one_observation_and_a_batch_say_the_same_where_one_exit_acts() -> None:
    policy = made()
    with torch.no_grad():
        policy.network.exits[0].bias[-1] = -100.0
        policy.network.exits[1].bias[-1] = 100.0
    observations = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    batch, state = policy.predict(observations, state="kept")
    assert (batch.shape, state) == ((5, 1), "kept")
    rows = [policy.predict(row)[0] for row in observations]
    np.testing.assert_allclose(np.stack(rows), batch, rtol=1e-5)
    expected = 2 * np.tanh(policy.network.at(torch.tensor(observations), 1).numpy())
    np.testing.assert_allclose(batch, expected, rtol=1e-5)


def test_observations_are_normalised_as_in_training() -> None:
    np.testing.assert_allclose(NORMALISATION(np.array([3.0, 0.5, 9.0])), [1.0, 0.5, 5.0])  # the last is clipped


def test_an_episode_is_charged_by_exit() -> None:
    policy = made(meter=ComputeMeter())
    env = RecordComputeStatistics(gym.make("Pendulum-v1"), policy.meter)
    result = evaluate_policy(policy, env, 2)
    flops = dict(zip(policy.exits.names, policy.flops, strict=True))
    expected = sum(flops[name] * share for name, share in result.shares.items())
    assert result.flops_per_step == pytest.approx(expected)
    assert sum(result.shares.values()) == pytest.approx(1)


def test_observations_of_another_kind_are_refused() -> None:
    policy = made()
    with pytest.raises(SpaceError, match=r"\(4,\): expected \(3,\)"):
        policy.predict(np.zeros(4))
    with pytest.raises(SpaceError):
        policy.predict(np.zeros((1, 1, 3)))
    for bad in ([0.0, np.nan, 0.0], [1e300, 0.0, 0.0]):  # the second is beyond float32
        with pytest.raises(NonFiniteError):
            policy.predict(np.array(bad))
    normalised = made(NORMALISATION)
    for wrong in (0.5, np.zeros(1), np.zeros((3, 1)), np.zeros(5), {"a": 1}, "text"):
        with pytest.raises(SpaceError):
            normalised.predict(wrong)
    with pytest.raises(NonFiniteError):
        normalised.predict(np.array([np.inf, 0.0, 0.0]))


TWO_VECTORS = gym.spaces.Dict(
    {"goal": gym.spaces.Box(-1, 1, (1,), np.float64), "arm": gym.spaces.Box(-1, 1, (2,), np.float32)}
)


def test_dictionaries_of_vectors_are_concatenated_as_gymnasium_flattens_them(tmp_path: Path) -> None:
    path = made(NORMALISATION, concatenation=Concatenation.of(TWO_VECTORS)).save(tmp_path / "policy")
    policy, plain = BudgetedExitPolicy.load(path), made(NORMALISATION)
    TWO_VECTORS.seed(0)
    several = [TWO_VECTORS.sample() for _ in range(9)]
    batch = {key: np.stack([one[key] for one in several]) for key in TWO_VECTORS}
    rows = np.stack([gym.spaces.flatten(TWO_VECTORS, one) for one in several])
    np.testing.assert_array_equal(policy.predict(batch)[0], plain.predict(rows)[0])
    assert policy.predict(several[0])[0].shape == (1,)
    action = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
    policy.require_spaces(TWO_VECTORS, action)
    other = gym.spaces.Dict({"goal": TWO_VECTORS["goal"], "leg": TWO_VECTORS["arm"]})
    for wrong in (other, gym.spaces.Box(-1, 1, (3,)), gym.spaces.Dict({"goal": TWO_VECTORS["goal"]})):
        with pytest.raises(SpaceError, match=r"arm, goal|Dict of Boxes"):
            policy.require_spaces(wrong, action)


@pytest.mark.parametrize(
    "wrong", [np.zeros(3), {"arm": np.zeros(2)}, {"arm": np.zeros(2), "goal": np.zeros((2, 1))}, {"arm": 1, "goal": 2}]
)
def test_other_dictionaries_are_refused(wrong: Any) -> None:
    with pytest.raises(SpaceError, match=r"expected a dictionary of arm, goal|expected vectors"):
        made(concatenation=Concatenation.of(TWO_VECTORS)).predict(wrong)


def test_a_policy_of_vectors_says_what_to_do_with_dictionaries() -> None:
    with pytest.raises(SpaceError, match=r"concatenation=.*FlattenObservation"):
        made().predict({"arm": np.zeros(2), "goal": np.zeros(1)})
    for space in (gym.spaces.Dict({"image": gym.spaces.Box(0, 255, (3, 3, 3), np.uint8)}), gym.spaces.Discrete(3)):
        with pytest.raises(SpaceError, match="FlattenObservation"):
            Concatenation.of(space)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    path = made().save(tmp_path / "policy")
    assert is_exit_policy(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        BudgetedExitPolicy.load(tmp_path / "nothing.safetensors")
    whole = path.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        BudgetedExitPolicy.load(tmp_path / "short.safetensors")
    assert not is_exit_policy(tmp_path / "short.safetensors")
    save_file(load_file(path), tmp_path / "other.safetensors")
    assert not is_exit_policy(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no exit policy"):
        BudgetedExitPolicy.load(tmp_path / "other.safetensors")


MAP = {"meaning": "squash", "low": [-2.0], "high": [2.0], "start": 0, "dtype": "float32"}


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": [9, 8]},
        {"inputs": "three"},
        {"action_map": {}},
        {"activation": "gelu"},
        {"keys": 3},
        {"keys": "abc"},
        {"keys": [1, 2, 3]},
        {"budget": True},
        {"budget": "0.3"},
        {"budget": 10**400},
        {"exit_after": [True, 2]},
        {"secret": 1},
        {"action_map": {**MAP, "low": [False]}},
        {"action_map": {**MAP, "low": ["-2"]}},
        {"action_map": {**MAP, "low": "1", "high": "2"}},
        {"action_map": {**MAP, "high": [1e39]}},
        {"action_map": {**MAP, "low": [-3e38], "high": [3e38]}},
        {"action_map": {**MAP, "start": 0.5}},
        {"action_map": {**MAP, "start": "7"}},
        {"action_map": {**MAP, "secret": 1}},
    ],
    ids=str,
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = made().save(tmp_path / "policy")
    rewrite(path, change)
    with pytest.raises(CheckpointError, match="damaged"):
        BudgetedExitPolicy.load(path)


@pytest.mark.parametrize("bound", [True, "5", 1e39, 10**400], ids=["truth", "text", "float", "int"])
def test_a_bound_of_observations_that_is_no_number_of_float32_is_refused(bound: Any, tmp_path: Path) -> None:
    path = made(NORMALISATION).save(tmp_path / "policy")
    rewrite(path, {"bound": bound})
    with pytest.raises(CheckpointError, match="damaged"):
        BudgetedExitPolicy.load(path)


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_weights_that_are_no_real_floats_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    path = made().save(tmp_path / "policy")
    rewrite(path, {}, lambda tensors: tensors | {"network/exits.0.bias": tensors["network/exits.0.bias"].to(kind)})
    with pytest.raises(CheckpointError, match="damaged"):
        BudgetedExitPolicy.load(path)


def test_a_tensor_of_something_else_is_refused(tmp_path: Path) -> None:
    path = made().save(tmp_path / "policy")
    rewrite(path, {}, lambda tensors: tensors | {"secret": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="damaged"):
        BudgetedExitPolicy.load(path)


@pytest.mark.parametrize(("low", "high"), [(-3e38, 3e38), (3e38, 3.3e38), (-1e39, 0.0), (0.0, 1e300)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bounds_whose_actions_are_not_finite_in_float32_are_refused(low: float, high: float, dtype: str) -> None:
    # float32 ends at 3.4e38: the difference of the first pair and the sum of the second one are above it.
    with pytest.raises(ConfigError, match="finite in float32"):
        ActionMap("squash", (low,), (high,), dtype=dtype)


def test_an_action_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActionMap, "actions", lambda self, output: np.full((1, 1), np.inf, np.float32))
    with pytest.raises(NonFiniteError, match="the action is"):
        made().predict(np.zeros(3, np.float32))


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = made()
    path = policy.save(tmp_path / "policy")
    before = path.read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("budget_wrappers.tensor_files.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        policy.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
