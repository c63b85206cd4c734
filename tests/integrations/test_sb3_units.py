"""Networks of Stable-Baselines3 are pruned while they learn; what is saved is a plain model of the size asked for."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env

from budget_wrappers.errors import ComputeWarning
from budget_wrappers.integrations.sb3 import flops_per_action, metered
from budget_wrappers.integrations.sb3_units import PruneUnits
from budget_wrappers.metering import ComputeMeter

SMALL = {"policy_kwargs": {"net_arch": [24, 16]}, "seed": 0, "device": "cpu"}
OFF_POLICY = {**SMALL, "learning_starts": 20, "batch_size": 16, "buffer_size": 300}
CASES: dict[str, tuple[type, str, dict[str, Any]]] = {
    "SAC": (SAC, "Pendulum-v1", OFF_POLICY),
    "TD3": (TD3, "Pendulum-v1", OFF_POLICY),
    "DDPG": (DDPG, "Pendulum-v1", OFF_POLICY),
    "DQN": (DQN, "CartPole-v1", {**OFF_POLICY, "train_freq": 1, "target_update_interval": 10}),
    "PPO": (PPO, "CartPole-v1", {**SMALL, "n_steps": 16, "batch_size": 8, "n_epochs": 2}),
    "A2C": (A2C, "Pendulum-v1", SMALL),
}
STEPS = 110


class StopAt(BaseCallback):
    """Stop a training after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def _on_step(self) -> bool:
        return self.model.num_timesteps < self._steps


def make(name: str, **settings: Any) -> Any:
    cls, env, own = CASES[name]
    return cls("MlpPolicy", gym.make(env), **copy.deepcopy({**own, **settings}))


def prune(name: str, **limits: Any) -> PruneUnits:
    critics = {} if name == "DQN" else {"max_critic_parameters": 260}
    return PruneUnits(**{"prune_every": 5, **critics, **limits})


def stopped(name: str, steps: int = 70) -> tuple[Any, PruneUnits]:
    """Return a model whose training was stopped while its units learn, and their callback."""
    model, callback = make(name), prune(name, max_parameters=120)
    model.learn(STEPS, callback=[callback, StopAt(steps)])
    assert {one.pruning.stage for one in callback._networks} == {"learning"}
    return model, callback


def acting(model: Any) -> list[nn.Module]:
    """Return what ``predict`` runs."""
    policy = model.policy
    if isinstance(model, SAC):
        return [policy.actor.latent_pi, policy.actor.mu, policy.actor.log_std]
    if isinstance(model, TD3):
        return [policy.actor]
    return [policy.q_net] if isinstance(model, DQN) else [policy.mlp_extractor.policy_net, policy.action_net]


def count(modules: list[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def observations(model: Any) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(32, *model.observation_space.shape)).astype(np.float32)


def predictions(model: Any) -> np.ndarray:
    """Return what the policy says before an argmax, which would hide what differs."""
    with torch.no_grad():
        given = torch.as_tensor(observations(model))
        if isinstance(model, DQN):
            return model.policy.q_net(given).numpy()
        if isinstance(model, PPO | A2C):
            return (
                model.policy.get_distribution(given).distribution.logits.numpy()
                if isinstance(model, PPO)
                else (model.predict(observations(model), deterministic=True)[0])
            )
    return model.predict(observations(model), deterministic=True)[0]


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [40, 120, 700])
@pytest.mark.parametrize("name", CASES)
def test_what_acts_is_at_most_as_large_as_asked_for(name: str, most: int) -> None:
    model, callback = make(name), prune(name, max_parameters=most)
    model.learn(STEPS, callback=callback)
    assert count(acting(model)) == callback.parameters_of() <= most
    widths = model.policy_kwargs["net_arch"]
    assert (widths if name == "DQN" else widths["pi"]) == callback.units_of()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.policy.modules())
    assert not model.policy._state_dict_hooks


@pytest.mark.parametrize("name", ["SAC", "DQN", "PPO"])
def test_flops_are_those_of_an_action(name: str) -> None:
    model = make(name)
    model.learn(STEPS, callback=PruneUnits(max_flops=200, prune_every=5))
    assert flops_per_action(model) <= 200


@pytest.mark.parametrize("name", ["SAC", "TD3", "DDPG"])
def test_critics_have_one_list_of_widths_and_targets_are_cut_alike(name: str) -> None:
    model, callback = make(name), prune(name, max_critic_parameters=300)
    model.learn(STEPS, callback=callback)
    critics = model.policy.critic.q_networks
    assert count(list(critics)) <= 300
    assert callback.units_of("critic") == model.policy_kwargs["net_arch"]["qf"] * len(critics)
    shapes = [parameter.shape for parameter in model.policy.critic.parameters()]
    assert [parameter.shape for parameter in model.policy.critic_target.parameters()] == shapes


def test_the_value_of_ppo_has_a_limit_of_its_own() -> None:
    model = make("PPO")
    model.learn(STEPS, callback=PruneUnits(max_parameters=100, max_critic_parameters=60, prune_every=5))
    assert count([model.policy.mlp_extractor.value_net, model.policy.value_net]) <= 60
    assert model.policy.mlp_extractor.latent_dim_vf == model.policy_kwargs["net_arch"]["vf"][-1]


@pytest.mark.parametrize(
    ("name", "settings", "envs"),
    [
        ("TD3", {"train_freq": (1, "episode"), "gradient_steps": 40}, 1),
        ("TD3", {"train_freq": 2, "gradient_steps": 3, "policy_delay": 3}, 1),
        ("SAC", {"train_freq": 2, "gradient_steps": -1, "target_update_interval": 2}, 2),
        ("PPO", {"target_kl": 0.01}, 2),
    ],
)
def test_rounds_of_several_updates_end_at_the_size_asked_for(name: str, settings: Any, envs: int) -> None:
    cls, env, own = CASES[name]
    venv = make_vec_env(lambda: gym.make(env, max_episode_steps=20), n_envs=envs)
    model = cls("MlpPolicy", venv, **{**copy.deepcopy(own), **settings})
    model.learn(160, callback=(callback := prune(name, max_parameters=120)))
    assert callback.parameters_of() <= 120


def test_dictionaries_of_vectors_are_observations_too() -> None:
    class Split(gym.ObservationWrapper):
        def __init__(self) -> None:
            super().__init__(gym.make("Pendulum-v1"))
            box = gym.spaces.Box(-9, 9, (3,), np.float32)
            self.observation_space = gym.spaces.Dict({"a": box, "b": box})

        def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
            return {"a": observation, "b": -observation}

    model = SAC("MultiInputPolicy", Split(), **copy.deepcopy(OFF_POLICY))
    model.learn(STEPS, callback=PruneUnits(max_parameters=120, prune_every=5))
    assert count(acting(model)) <= 120


# ---- the zip --------------------------------------------------------------------------------------------------------

PLAIN = """
import json, sys
sys.modules["budget_wrappers"] = None  # as if it were not installed
import gymnasium as gym, numpy as np, stable_baselines3 as sb3
for line in sys.stdin:
    name, env, path = json.loads(line)
    model = getattr(sb3, name).load(path, env=gym.make(env), device="cpu")
    np.save(path + ".npy", model.predict(np.load(path + ".obs.npy"), deterministic=True)[0])
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(40, reset_num_timesteps=True)
    moved = any((old != new).any().item() for old, new in zip(before, model.policy.parameters()))
    print(json.dumps([name, moved, model.policy.net_arch, len(model.policy.state_dict())]))
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Each pruned model, and what a process without this package says of its zip."""
    folder, models, lines = tmp_path_factory.mktemp("zips"), {}, []
    for name, (_, env, _) in CASES.items():
        model = models[name] = make(name)
        model.learn(STEPS, callback=prune(name, max_parameters=120))
        path = str(folder / f"{name}.zip")
        model.save(path)
        np.save(f"{path}.obs.npy", observations(model))
        lines.append(json.dumps([name, env, path]))
    command = [sys.executable, "-c", PLAIN]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    said = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines()[-len(CASES) :])}
    yield {name: (models[name], np.load(folder / f"{name}.zip.npy"), said[name]) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_the_zip_is_one_of_plain_stable_baselines3_and_says_the_same_to_the_digit(plain: Any, name: str) -> None:
    model, predicted, (moved, net_arch, _) = plain[name]
    np.testing.assert_array_equal(predicted, model.predict(observations(model), deterministic=True)[0])
    assert moved  # it trains on
    assert net_arch == model.policy_kwargs["net_arch"]


@pytest.mark.parametrize("name", ["SAC", "DQN", "PPO"])
def test_a_policy_that_is_saved_alone_loads_too(name: str, tmp_path: Path) -> None:
    model = make(name)
    model.learn(STEPS, callback=prune(name, max_parameters=120))
    model.policy.save(tmp_path / "policy.zip")
    loaded = type(model.policy).load(tmp_path / "policy.zip")
    for part in (loaded, model.policy):
        part.set_training_mode(False)
    said = [part.predict(observations(model), deterministic=True)[0] for part in (loaded, model.policy)]
    np.testing.assert_array_equal(*said)


@pytest.mark.parametrize("name", CASES)
def test_a_zip_that_is_saved_while_units_learn_acts_as_the_model_does(name: str, tmp_path: Path) -> None:
    model, _ = stopped(name)
    model.save(tmp_path / "early.zip")
    loaded = CASES[name][0].load(tmp_path / "early.zip", env=gym.make(CASES[name][1]), device="cpu")
    np.testing.assert_allclose(predictions(loaded), predictions(model), atol=1e-5)
    loaded.learn(30)


def test_checkpoints_of_stable_baselines3_are_written_on_the_way(tmp_path: Path) -> None:
    model = make("SAC")
    saving = CheckpointCallback(25, str(tmp_path), "model")
    model.learn(STEPS, callback=[prune("SAC", max_parameters=120), saving])
    widths = [SAC.load(path).policy_kwargs["net_arch"] for path in sorted(tmp_path.glob("*.zip"))]
    assert len(widths) == 4
    assert [24, 16] in widths or {"pi": [24, 16], "qf": [24, 16]} in widths


def test_weights_from_elsewhere_are_refused_while_units_learn() -> None:
    model, callback = stopped("DQN")
    with pytest.raises(Exception, match=r"whose units learn: expected them to be loaded before learn"):
        model.set_parameters(model.get_parameters())
    callback.finish()
    model.set_parameters(model.get_parameters())
    assert callback.parameters_of() <= 120


# ---- what happens on the way ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_before_units_learn_training_is_the_same_to_the_bit(name: str) -> None:
    plain_model = make(name)
    plain_model.learn(200, callback=StopAt(90))
    state, pruned = torch.get_rng_state(), make(name)
    pruned.learn(200, callback=[prune(name, max_parameters=120, learn_from=0.5), StopAt(90)])
    assert torch.equal(torch.get_rng_state(), state)
    here, there = pruned.policy.state_dict(), plain_model.policy.state_dict()
    assert all(map(torch.equal, here.values(), there.values()))
    assert here.keys() == there.keys()
    assert pruned._n_updates == plain_model._n_updates > 0


@pytest.mark.parametrize("name", CASES)
def test_moments_stay_at_the_places_that_stay(name: str) -> None:
    model, callback = stopped(name)
    keeps, before = [], []
    for one in callback._networks:
        for theta in one.pruning.gates.theta:
            theta.data.fill_(0.0)[2] = 1.0  # one unit of each layer stays: the third
        first = one.network.hidden[0]
        state = one.network.optimizer.state
        keeps.append((first, state))
        before.append({key: value.clone() for key, value in state[first.weight].items() if value.dim()})
    callback.finish()
    for (first, state), moments in zip(keeps, before, strict=True):
        assert first.out_features == 1
        assert moments
        for key, value in moments.items():
            assert torch.equal(state[first.weight][key], value[2:3])
    model.learn(40)


@pytest.mark.parametrize("name", ["SAC", "TD3"])
def test_critics_draw_in_their_own_loss_and_evaluate_in_the_actors(name: str) -> None:
    model, callback = make(name), prune(name, max_parameters=120)
    seen: set[tuple[bool, bool]] = set()

    def note(network: nn.Module, given: tuple[torch.Tensor], output: torch.Tensor) -> None:
        if torch.is_grad_enabled() and (gates := callback._networks[1].pruning.gates).attached:
            factors = [gate.factor for gate in gates._gates[:2]]
            drawn = [factor.requires_grad for factor in factors]
            assert drawn[0] == drawn[1]
            assert drawn[0] or all(map(torch.equal, factors, gates.theta))
            seen.add((given[0].requires_grad, drawn[0]))

    model.policy.critic.q_networks[0].register_forward_hook(note)
    model.learn(STEPS, callback=callback)
    assert seen == {(True, False), (False, True)}  # the actor's loss is differentiated through its action


@pytest.mark.parametrize("name", ["SAC", "TD3", "DQN"])
def test_thetas_of_targets_follow_as_their_weights_do(name: str) -> None:
    model, callback = stopped(name)
    for one in callback._networks:
        one.pruning._theta.param_groups[0]["lr"] = 0.0
        for theta in one.pruning.gates.theta:
            theta.data.fill_(0.5)
        for theta in (theta for gates in one.gates[1:] for theta in gates.theta):
            theta.data.fill_(1.0)
    before = model._n_updates
    model.learn(STEPS, callback=[callback, StopAt(85)], reset_num_timesteps=False)
    moves = {"SAC": model._n_updates - before, "TD3": model._n_updates // 2 - before // 2, "DQN": 1}[name]
    assert moves > 0
    for one in callback._networks:
        for theta in (theta for gates in one.gates[1:] for theta in gates.theta):
            torch.testing.assert_close(theta, torch.full_like(theta, 0.5 + 0.5 * (1 - model.tau) ** moves))


def test_a_training_that_was_stopped_goes_on_with_the_same_callback() -> None:
    model, callback = stopped("SAC")
    assert not any(theta.requires_grad for theta in callback._networks[0].pruning.gates.theta)
    model.learn(50, callback=callback, reset_num_timesteps=False)
    assert callback.parameters_of() == count(acting(model)) <= 120


def test_a_training_without_updates_is_cut_all_the_same_and_warns() -> None:
    model, callback = make("SAC", learning_starts=1000), prune("SAC", max_parameters=120)
    with pytest.warns(ComputeWarning, match="was not updated between learn_from and fix_from"):
        model.learn(30, callback=callback)
    assert count(acting(model)) <= 120


def test_the_users_dictionary_stays_as_it_is() -> None:
    given = {"net_arch": [24, 16]}
    model = SAC("MlpPolicy", gym.make("Pendulum-v1"), **{**OFF_POLICY, "policy_kwargs": given})
    model.learn(STEPS, callback=prune("SAC", max_parameters=120))
    assert given["net_arch"] == [24, 16]


@pytest.mark.parametrize("name", ["SAC", "PPO"])
def test_meters_charge_the_smaller_networks_to_the_digit(name: str) -> None:
    meter = ComputeMeter("pruned")
    model = metered(make(name), meter)
    train, rounds = model.train, []

    def counted(*args: Any, **kwargs: Any) -> None:
        if name == "SAC" and model.num_timesteps % 7:  # torch's counter is slow
            train(*args, **kwargs)
            return
        before = meter.learned
        with FlopCounterMode(display=False) as counter:
            train(*args, **kwargs)
        rounds.append((meter.learned - before, counter.get_total_flops()))

    model.train = counted
    model.learn(STEPS, callback=prune(name, max_parameters=120))
    assert all(charged == torchs for charged, torchs in rounds)
    assert rounds[-1][0] < 0.7 * rounds[0][0]
    before = meter.executed
    model.predict(observations(model)[:1], deterministic=True)
    assert meter.executed - before == flops_per_action(model) < 250
