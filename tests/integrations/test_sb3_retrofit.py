"""Retrofitting Stable-Baselines3's models: their layers are found, the last exit is the model, a critic says values."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.cli import main
from agents.cli.profiling import ProfileOptions, by_engine
from agents.loop.evaluate import REPORT_SEED
from agents.report.tradeoff import Comparison
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy
from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.integrations.sb3_retrofit import normalisation_of, trained_actor
from budget_wrappers.policies.retrofit import Retrofit, RetrofitConfig

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8, 8]}, "seed": 0, "device": "cpu"}
CONTINUOUS = [SAC, TD3, DDPG, PPO, A2C]
DISCRETE = [DQN, PPO, A2C]


def made(algorithm: type, env_id: str) -> Any:
    return algorithm("MlpPolicy", gym.make(env_id), **copy.deepcopy(SMALL))  # models write into their policy_kwargs


@pytest.mark.parametrize(
    ("algorithm", "env_id"), [(a, "Pendulum-v1") for a in CONTINUOUS] + [(a, "CartPole-v1") for a in DISCRETE]
)
def test_the_last_exit_is_the_model(algorithm: type, env_id: str) -> None:
    model = made(algorithm, env_id)
    actor = trained_actor(model)
    network = Retrofit(actor).network
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((30, *model.observation_space.shape)).astype(np.float32)
    expected = model.predict(observations, deterministic=True)[0]
    acted = actor.action_map.actions(network.last(torch.tensor(observations)).numpy())
    np.testing.assert_allclose(acted, expected, atol=1e-5)


class Goals(gym.Env):
    """Observes two vectors."""

    observation_space = gym.spaces.Dict(
        {"goal": gym.spaces.Box(-1, 1, (2,), np.float32), "arm": gym.spaces.Box(-1, 1, (3,), np.float32)}
    )
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observation_space.sample(), float(action[0]), False, self.steps == 10, {}


@pytest.mark.parametrize("algorithm", [SAC, PPO])
def test_the_last_exit_is_the_model_on_dictionaries_of_vectors(algorithm: type, tmp_path: Path) -> None:
    model = algorithm("MultiInputPolicy", Goals(), **copy.deepcopy(SMALL))
    actor = trained_actor(model)
    retrofit = Retrofit(actor, RetrofitConfig(steps=20, rounds=1, updates=2, batch_size=8))
    retrofit.imitate(Goals())
    retrofit.teach_gates(1.0)
    made = BudgetedExitPolicy(retrofit.network, actor.action_map, 1.0, concatenation=actor.to_array)
    for layer in list(made.network.exits)[:-1]:
        layer.bias.data[-1] = -100.0  # no gate opens
    policy = BudgetedExitPolicy.load(made.save(tmp_path / "policy"))
    policy.require_spaces(model.observation_space, model.action_space)
    several = [Goals.observation_space.sample() for _ in range(20)]
    batch = {key: np.stack([one[key] for one in several]) for key in Goals.observation_space}
    np.testing.assert_allclose(policy.predict(batch)[0], model.predict(batch, deterministic=True)[0], atol=1e-5)
    if algorithm is SAC:
        x, said = torch.as_tensor(actor.to_array(batch)), torch.rand(20, 1) * 2 - 1
        with torch.no_grad():
            values = model.critic({key: torch.as_tensor(rows) for key, rows in batch.items()}, said)
        assert torch.equal(actor.worth(x, said), torch.minimum(*values)[:, 0])


def test_dictionaries_that_were_normalised_are_refused_with_the_remedy() -> None:
    model = PPO("MultiInputPolicy", VecNormalize(DummyVecEnv([Goals])), **copy.deepcopy(SMALL))
    with pytest.raises(ConfigError, match=r"VecNormalize.*FlattenObservation"):
        trained_actor(model)


class Scaled(BaseFeaturesExtractor):
    """Has no parameters, and changes what the layers see."""

    def __init__(self, space: gym.spaces.Box) -> None:
        super().__init__(space, space.shape[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 10 - 5


class Shifted(FlattenExtractor):
    """Likewise, and it is a FlattenExtractor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


@pytest.mark.parametrize("extractor", [Scaled, Shifted])
@pytest.mark.parametrize(("algorithm", "env_id"), [(SAC, "Pendulum-v1"), (PPO, "Pendulum-v1"), (DQN, "CartPole-v1")])
def test_features_of_one_s_own_are_refused_also_without_parameters(
    algorithm: type, env_id: str, extractor: type
) -> None:
    settings = copy.deepcopy(SMALL)
    settings["policy_kwargs"]["features_extractor_class"] = extractor
    with pytest.raises(ConfigError, match=rf"{extractor.__name__}.*no features extractor of one's own"):
        trained_actor(algorithm("MlpPolicy", gym.make(env_id), **settings))


class Board(gym.Env):
    """Observes a box that is no vector."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, *shape: int) -> None:
        self.observation_space = gym.spaces.Box(-1, 1, shape, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.mark.parametrize("shape", [(5, 5), (1, 3), ()])
def test_boxes_of_other_than_one_dimension_are_refused_with_the_remedy(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpaceError, match="FlattenObservation"):
        trained_actor(DQN("MlpPolicy", Board(*shape), **copy.deepcopy(SMALL)))


def test_a_policy_on_such_a_box_is_profiled_without_engines() -> None:
    model = DQN("MlpPolicy", Board(5, 5), **copy.deepcopy(SMALL))
    assert by_engine(model, model.observation_space.sample(), ProfileOptions(), "board") == {}


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_an_exit_is_worth_what_the_smaller_of_the_twins_says(algorithm: type) -> None:
    model = made(algorithm, "Pendulum-v1")
    x, said = torch.randn(6, 3), torch.rand(6, 1) * 2 - 1
    with torch.no_grad():
        first, second = model.critic(x, said)
    assert torch.equal(trained_actor(model).worth(x, said), torch.minimum(first, second)[:, 0])


def test_observations_go_through_the_model_s_normalisation() -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, **copy.deepcopy(SMALL)).learn(64)
    normalisation = normalisation_of(model)
    observation = np.array([0.3, -0.9, 4.0])
    assert normalisation is not None
    np.testing.assert_allclose(normalisation(observation), env.normalize_obs(observation), rtol=1e-5)
    np.testing.assert_allclose(trained_actor(model).to_array(observation), env.normalize_obs(observation), rtol=1e-5)


def test_the_model_is_the_same_afterwards() -> None:
    model = made(SAC, "Pendulum-v1")
    before = copy.deepcopy(model.policy.state_dict())
    retrofit = Retrofit(trained_actor(model), RetrofitConfig(steps=50, rounds=2, updates=20, batch_size=16))
    retrofit.imitate(gym.make("Pendulum-v1"))
    retrofit.teach_gates(0.3)
    assert all(torch.equal(value, before[key]) for key, value in model.policy.state_dict().items())
    assert all(parameter.grad is None for parameter in model.policy.parameters())


def test_other_policies_are_refused() -> None:
    class Images(gym.Env):
        observation_space = gym.spaces.Box(0, 255, (3, 36, 36), np.uint8)
        action_space = gym.spaces.Discrete(2)

    with pytest.raises(ConfigError, match="MlpPolicy"):
        trained_actor(DQN("CnnPolicy", Images(), buffer_size=10, device="cpu"))
    with pytest.raises(ConfigError, match="SAC, TD3, DDPG, DQN"):
        trained_actor(object())

    class Several(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
        action_space = gym.spaces.MultiDiscrete([2, 3])

    with pytest.raises(SpaceError, match="Discrete"):
        trained_actor(PPO("MlpPolicy", Several(), **copy.deepcopy(SMALL)))


def test_from_a_zip_to_a_policy_in_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = made(SAC, "Pendulum-v1")
    model.save(tmp_path / "model.zip")
    command = ["retrofit", str(tmp_path / "model.zip"), "--env", "Pendulum-v1"]
    small = ["--steps", "60", "--rounds", "1", "--updates", "30", "--episodes", "1", "--folder", str(tmp_path / "out")]
    assert main([*command, *small]) == 2
    assert "trust" in capsys.readouterr().err
    assert main([*command, *small, "--trust", "--budget", "0.1", "0.6"]) == 0
    said = capsys.readouterr().out
    assert "as trained" in said
    assert "µs by the numpy engine" in said
    points = Comparison.read(tmp_path / "out").points
    assert [point.label for point in points] == ["SAC as trained", "b = 0.1", "b = 0.6"]
    assert points[0].flops_per_step == 2 * (3 * 8 + 8 * 8 + 8 * 2)
    assert (tmp_path / "out" / "tradeoff.png").stat().st_size > 10_000
    policy = BudgetedExitPolicy.load(tmp_path / "out" / "budget-0.1.safetensors")
    assert policy.budget == 0.1
    assert (
        main(["eval", str(tmp_path / "out" / "budget-0.1.safetensors"), "--env", "Pendulum-v1", "--episodes", "1"]) == 0
    )
    assert "b = 0.1" in capsys.readouterr().out
    assert main([*command, *small, "--trust", "--budget", "0.1", "0.1"]) == 2


def test_our_own_agents_get_exits_too(tmp_path: Path) -> None:
    from agents import CQL, SAC, TD3, BexaSAC
    from agents.dqn import DQN
    from agents.studies.retrofit import trained_actor as own_actor

    for agent_class, env_id in ((SAC, "Pendulum-v1"), (TD3, "Pendulum-v1"), (CQL, "Pendulum-v1"), (DQN, "CartPole-v1")):
        agent = agent_class(gym.make(env_id), net_arch=(8, 8))
        actor = own_actor(agent)
        observations = np.random.default_rng(0).standard_normal((9, *agent.observation_space.shape)).astype(np.float32)
        acted = actor.action_map.actions(Retrofit(actor).network.last(torch.tensor(observations)).numpy())
        np.testing.assert_allclose(acted, agent.predict(observations)[0], atol=1e-5)
    with pytest.raises(ConfigError, match="have a budget already"):
        own_actor(BexaSAC(gym.make("Pendulum-v1")))
    with pytest.raises(ConfigError, match="one stream"):
        own_actor(DQN(gym.make("CartPole-v1"), dueling=True))


def test_a_normalised_model_is_retrofitted_from_its_two_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 2))  # trained in two, opened in one
    model = PPO("MlpPolicy", env, n_steps=256, batch_size=64, **copy.deepcopy(SMALL)).learn(512)
    model.save(tmp_path / "model.zip")
    env.save(str(tmp_path / "normalise.pkl"))
    files = [str(tmp_path / "model.zip"), "--env", "Pendulum-v1", "--vec-normalize", str(tmp_path / "normalise.pkl")]
    assert main(["eval", *files]) == 2
    small = ["--steps", "60", "--rounds", "1", "--updates", "30", "--episodes", "1", "--folder", str(tmp_path / "out")]
    assert main(["retrofit", *files, *small, "--trust", "--budget", "1"]) == 0
    capsys.readouterr()
    policy = BudgetedExitPolicy.load(tmp_path / "out" / "budget-1.safetensors")
    with torch.no_grad():  # keep the gates shut: what acts is the model
        for layer in list(policy.network.exits)[:-1]:
            layer.bias[-1] = -100.0
    observations = np.random.default_rng(0).standard_normal((20, 3)) * [1, 1, 8]
    env.training = False
    expected = model.predict(env.normalize_obs(observations), deterministic=True)[0]
    np.testing.assert_allclose(policy.predict(observations)[0], expected, atol=1e-4)
    assert main(["eval", str(tmp_path / "out" / "budget-1.safetensors"), *files[1:], "--trust"]) == 2
    assert "only its models have one" in capsys.readouterr().err


def test_a_comparison_opens_a_normalised_model_from_its_two_files(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, **copy.deepcopy(SMALL)).learn(64)
    zipped, normaliser = tmp_path / "model.zip", tmp_path / "normalise.pkl"
    model.save(zipped)
    env.save(str(normaliser))
    asked = TradeoffConfig(
        env=("Pendulum-v1",),
        methods=(f"ppo=retrofit:{zipped}@steps=60@rounds=1@updates=20@vec_normalize={normaliser}", "fit", "dense:4"),
        budgets=(1.0,),
        seeds=(0,),
        episodes=2,
        max_episode_steps=20,
        workers=1,
    )
    run_tradeoff(asked, tmp_path / "study", trust=True)
    points = {point.label: point for point in Comparison.read(tmp_path / "study").points}
    assert set(points) == {"ppo, as trained", "ppo, b = 1", "student of ppo, b = 1", "student:4 of ppo"}
    env.training = False
    single = env.venv.envs[0]
    returns = []
    for number in range(2):
        observation, total = single.reset(seed=REPORT_SEED + number)[0], 0.0
        for _ in range(20):
            action = model.predict(env.normalize_obs(observation), deterministic=True)[0]
            observation, reward, *_ = single.step(action)
            total += float(reward)
        returns.append(total)
    assert [one["return"] for one in points["ppo, as trained"].episodes] == pytest.approx(returns, rel=1e-4)
    with pytest.raises(ConfigError, match="vec_normalize=7: expected a text"):
        bad = dataclasses.replace(asked, methods=(f"ppo=retrofit:{zipped}@vec_normalize=7",))
        run_tradeoff(bad, tmp_path / "bad", trust=True)
