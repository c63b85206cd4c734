"""sb3-contrib: its zips open, its models are metered to the digit, and recurrent ones keep their memory."""

import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm

from budget_wrappers.errors import BudgetError, ConfigError, MeterError
from budget_wrappers.integrations.sb3 import as_sub_policy, flops_per_action, load, metered, unmeter
from budget_wrappers.integrations.sb3_retrofit import trained_actor
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import RecordComputeStatistics, SubPolicyAction, vector
from tests.gymnasium_versions import sync

REPLAY = {"buffer_size": 50, "learning_starts": 4, "batch_size": 4, "device": "cpu"}


def make(kind: type, env: Any = None) -> BaseAlgorithm:
    """Return a small model; the libraries write into the settings of policies, so these are made anew."""
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [4]}, "device": "cpu"}
    if kind in (TQC, CrossQ):
        settings = {**REPLAY, "policy_kwargs": {"net_arch": {"pi": [4], "qf": [4]}}}
        return kind("MlpPolicy", env or "Pendulum-v1", **settings)
    if kind is QRDQN:
        return QRDQN("MlpPolicy", env or "CartPole-v1", **REPLAY, policy_kwargs={"net_arch": [4]})
    if kind is ARS:
        return ARS("MlpPolicy", env or "CartPole-v1", n_delta=1, **small)
    if kind is RecurrentPPO:
        kwargs = {"net_arch": [4], "lstm_hidden_size": 3}
        return RecurrentPPO("MlpLstmPolicy", env or "CartPole-v1", n_steps=8, batch_size=8, policy_kwargs=kwargs)
    return kind("MlpPolicy", env or "CartPole-v1", n_steps=8, batch_size=8, **small)


ALL = [ARS, CrossQ, MaskablePPO, QRDQN, RecurrentPPO, TQC, TRPO]
names = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
plain = pytest.mark.parametrize("kind", [k for k in ALL if k is not RecurrentPPO], ids=lambda kind: kind.__name__)

ACTING = {
    TQC: 2 * (3 * 4 + 4 * 1 + 4 * 1),  # a mean and a deviation
    CrossQ: 2 * (3 * 4 + 4 * 1 + 4 * 1),
    QRDQN: 2 * (4 * 4 + 4 * 2 * 200),  # 200 quantiles of each action
    ARS: 2 * (4 * 4 + 4 * 2),
    TRPO: 2 * (4 * 4 + 4 * 2),
    MaskablePPO: 2 * (4 * 4 + 4 * 2),
}


def tried(do: Any) -> Any:
    try:
        return do()
    except (BudgetError, TypeError, AttributeError, UserWarning) as error:
        return f"{type(error).__name__}: {error}"


@names
def test_a_zip_opens_as_what_saved_it(kind: type, tmp_path: Path) -> None:
    model = make(kind)
    model.save(tmp_path / "model.zip")
    loaded = tried(lambda: load(tmp_path / "model.zip", trust=True, device="cpu"))
    assert type(loaded).__name__ == kind.__name__, loaded
    named = tried(lambda: load(tmp_path / "model.zip", kind.__name__, trust=True, device="cpu"))
    assert type(named).__name__ == kind.__name__, named


def test_a_policy_of_ones_own_is_told_the_name_that_works(tmp_path: Path) -> None:
    make(TQC).save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive, zipfile.ZipFile(tmp_path / "own.zip", "w") as other:
        for name in archive.namelist():
            data = archive.read(name)
            if name == "data":
                record = json.loads(data)
                record["policy_class"]["__module__"] = "somebody.policies"
                data = json.dumps(record).encode()
            other.writestr(name, data)
    with pytest.raises(ConfigError, match="algorithm='TQC'"):
        load(tmp_path / "own.zip", trust=True)
    assert type(load(tmp_path / "own.zip", "TQC", trust=True, device="cpu")) is TQC


@plain
def test_acting_is_charged_to_the_digit(kind: type) -> None:
    model, meter = make(kind), ComputeMeter()
    assert tried(lambda: flops_per_action(model)) == ACTING[kind]
    assert tried(lambda: metered(model, meter)) is model
    model.predict(model.observation_space.sample(), deterministic=True)
    assert meter.take().executed == ACTING[kind]
    unmeter(model)
    assert not hasattr(model, "meter")


@plain
def test_each_step_of_training_is_charged(kind: type) -> None:
    meter = ComputeMeter()
    env = gym.make("Pendulum-v1" if kind in (TQC, CrossQ) else "CartPole-v1", max_episode_steps=5)
    costs: list[float] = []

    class Noting(gym.Wrapper):
        def step(self, action: Any) -> Any:
            told = self.env.step(action)
            costs.append(told[-1]["cost"])
            return told

        def action_masks(self) -> np.ndarray:
            return np.ones(2, bool)

    model = make(kind, Noting(RecordComputeStatistics(env, meter)))
    trained = tried(lambda: metered(model, meter).learn(16))
    assert trained is model, trained
    free = {TQC: 4, CrossQ: 4}.get(kind, 0)  # random actions before learning starts
    acted = costs if kind is not QRDQN else [cost for cost in costs if cost]  # it explores by random actions
    assert set(acted[free:]) <= {ACTING[kind]}
    assert kind is QRDQN or len(acted) >= 16
    assert meter.totals["learn"] > 0


def test_a_search_in_other_processes_is_refused() -> None:
    model = tried(lambda: metered(make(ARS), ComputeMeter()))
    assert isinstance(model, ARS), model
    with pytest.raises(MeterError, match="async_eval"):
        model.learn(4, async_eval=object())


def test_a_recurrent_model_cannot_be_metered_and_the_message_names_it() -> None:
    error = tried(lambda: metered(make(RecurrentPPO), ComputeMeter()))
    assert str(error).startswith("ConfigError: RecurrentPPO acts by a recurrent policy")


def alone(model: Any, observations: list[Any]) -> list[int]:
    """Return what a loop of Stable-Baselines3's kind does in one episode."""
    state, start, taken = None, np.ones(1, bool), []
    for observation in observations:
        action, state = model.predict(observation, state=state, episode_start=start, deterministic=True)
        start[:] = False
        taken.append(int(action))
    return taken


@pytest.fixture
def forgetful() -> tuple[Any, list[int], list[int]]:
    """Return a recurrent model whose actions depend on its memory: with it, and from the observation alone."""
    seen: list[Any] = []
    spy = gym.wrappers.TransformObservation(gym.make("CartPole-v1"), lambda o: (seen.append(o.copy()), o)[1], None)
    spy.reset(seed=0)
    for step in range(6):
        spy.step(step % 2)
    for seed in range(40):
        model = RecurrentPPO(
            "MlpLstmPolicy",
            "CartPole-v1",
            seed=seed,
            policy_kwargs={"net_arch": [8], "lstm_hidden_size": 8},
            device="cpu",
        )
        for parameter in model.policy.parameters():
            parameter.data *= 6
        remembered, at_once = alone(model, seen), [alone(model, [one])[0] for one in seen]
        if remembered != at_once:
            return model, seen, remembered
    raise AssertionError("no model whose memory matters")


def test_a_recurrent_sub_policy_remembers_as_in_a_loop_of_its_own(forgetful: Any) -> None:
    model, seen, remembered = forgetful
    policy = tried(lambda: as_sub_policy(model))
    assert not isinstance(policy, str), policy
    assert policy.flops == flops_per_action(model) > 0

    class Played(gym.Env):
        observation_space, action_space = model.observation_space, model.action_space

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.taken: list[int] = []
            return seen[0], {}

        def step(self, action: Any) -> Any:
            self.taken.append(int(action))
            return seen[min(len(self.taken), len(seen) - 1)], 0.0, False, len(self.taken) == len(seen), {}

    env = SubPolicyAction(Played(), [policy], hold=1, meter=ComputeMeter())
    for _ in range(2):
        env.reset()
        for _ in seen:
            env.step(0)
        assert env.unwrapped.taken == remembered

    envs = vector.SubPolicyAction(sync([Played] * 2, "Disabled"), [policy], meter=ComputeMeter())
    taken: list[list[int]] = [[], []]
    envs.subscribe(lambda step: taken[step.row].append(int(step.action)))
    envs.reset()
    for _ in seen:
        envs.step([0, 0])
    assert taken == [remembered] * 2


def test_retrofitting_a_model_of_quantiles_values_actions_by_their_means() -> None:
    actor = tried(lambda: trained_actor(make(TQC)))
    assert not isinstance(actor, str), actor
    values = tried(lambda: actor.worth(torch.zeros(5, 3), torch.zeros(5, 1)).shape)
    assert values == (5,)
