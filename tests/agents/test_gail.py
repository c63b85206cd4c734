"""GAIL: its losses against numbers worked out by hand, what it learns, and what can have no influence on it."""

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import GAIL, SAC
from agents.gail import discrimination_loss, imitation_reward
from agents.loop.callbacks import FunctionCallback
from agents.loop.offline import FixedReplay
from agents.replay.buffers import Batch
from agents.replay.dataset import Transitions, write_dataset
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from benchmarks.resume import differences
from budget_wrappers.errors import ConfigError, DatasetError, NonFiniteError, SpaceError
from tests.agents import probes
from tests.agents.data import random_transitions
from tests.agents.test_dataset import Chance, spoil
from tests.agents.test_resume import Killed
from tests.contracts.agent import Countdown, parameters

SMALL: dict[str, Any] = {"net_arch": (8,), "batch_size": 8, "learning_starts": 5, "buffer_size": 200}
LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def make(env: gym.Env | None = None, **settings: Any) -> GAIL:
    """Return a small agent with random demonstrations."""
    agent = GAIL(env or Countdown(), **{**SMALL, "discriminator_net_arch": (8,), **settings})
    agent.demonstrations = FixedReplay(random_transitions(agent, 60))
    return agent


def linear(weight: list[float], bias: float, **settings: Any) -> GAIL:
    """Return an agent whose discriminator is ``f(s, a) = weight·[s, a] + bias``."""
    agent = make(discriminator_net_arch=(), **settings)
    with torch.no_grad():
        agent.discriminator[0].weight.copy_(torch.tensor([weight]))
        agent.discriminator[0].bias.fill_(bias)
    return agent


def batch_of(observation: list[list[float]], action: list[list[float]]) -> Batch:
    """Return a batch with these pairs and garbage for rewards."""
    rows = len(observation)
    shown = torch.tensor(observation)
    garbage, one = torch.full((rows,), 1e9), torch.ones(rows)
    return Batch(shown, torch.tensor(action), garbage, 0.9 * one, shown, one, torch.arange(rows))


# ---- the formulas ---------------------------------------------------------------------------------------------------


def test_loss_is_the_cross_entropy_of_both_sides() -> None:
    # D = 1/2 and 3/4 on both sides. Policy: −log 1/2 = ln 2, −log 1/4 = ln 4. Expert: ln 2, −log 3/4 = ln 4 − ln 3.
    logits = torch.tensor([0.0, LN3])
    expected = (LN2 + LN4) / 2 + (LN2 + LN4 - LN3) / 2
    assert discrimination_loss(logits, logits).item() == pytest.approx(expected, abs=1e-6)


def test_reward_is_the_form_that_was_asked_for() -> None:
    # D = 1/2 and 3/4: −log(1 − D) = ln 2 and ln 4; log D − log(1 − D) = 0 and log(3/4) − log(1/4) = ln 3.
    logit = torch.tensor([0.0, LN3])
    assert imitation_reward(logit, "-log(1-D)").tolist() == pytest.approx([LN2, LN4], abs=1e-6)
    assert imitation_reward(logit, "log D - log(1-D)").tolist() == pytest.approx([0.0, LN3], abs=1e-6)


def test_discriminator_reads_observation_and_action_and_policy_before_expert() -> None:
    # f = s₀ + 2·a₁: the policy's pair has 1 − 2 = −1, the expert's 1 + 2 = 3.
    agent = linear([1.0, 0.0, 0.0, 0.0, 2.0], 0.0, gradient_penalty=0.0)
    policy, expert = batch_of([[1.0, 5.0, 5.0]], [[0.5, -1.0]]), batch_of([[1.0, 7.0, 7.0]], [[0.5, 1.0]])
    loss, penalty = agent.discriminator_losses(policy, expert)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)) + math.log1p(math.exp(-3)), abs=1e-6)
    assert penalty.item() == 0.0


def test_penalty_is_the_squared_distance_of_the_slope_to_one() -> None:
    # The slope of a linear f is its weight: (‖(3, 0, 0, 0, 4)‖ − 1)² = 16 at every point between.
    agent = linear([3.0, 0.0, 0.0, 0.0, 4.0], 1.0)
    pairs = batch_of([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]], [[0.5, 0.5], [-1.0, 1.0]])
    _, penalty = agent.discriminator_losses(pairs, pairs)
    assert penalty.item() == pytest.approx(16.0, abs=1e-4)
    # d(‖w‖ − 1)²/dw = 2·(5 − 1)·w/5 = 8·(0.6, 0, 0, 0, 0.8).
    (slope,) = torch.autograd.grad(penalty, agent.discriminator[0].weight)
    assert slope[0].tolist() == pytest.approx([4.8, 0.0, 0.0, 0.0, 6.4], abs=1e-4)


def test_points_of_the_penalty_lie_between_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, seen = make(), []
    agent.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    agent.penalty(torch.zeros(500, 5), torch.ones(500, 5))
    share = seen[0][:, 0]
    # One u a row, uniform: its mean over 500 is within 0.5 ± 5·0.29/√500 = 0.5 ± 0.065.
    assert torch.equal(seen[0], share[:, None].expand(500, 5))
    assert share.min() >= 0 and share.max() < 1 and abs(share.mean() - 0.5) < 0.065


# ---- who is paid by whom --------------------------------------------------------------------------------------------


def test_update_is_sacs_with_the_present_discriminators_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, paid = linear([0.0] * 5, LN3), []
    monkeypatch.setattr(SAC, "update", lambda self, batch: paid.append(batch) or {})
    batch = batch_of([[1.0, 2.0, 3.0]], [[0.5, 0.5]])
    agent.update(batch)
    with torch.no_grad():
        agent.discriminator[0].bias.zero_()
    agent.update(batch)
    assert [one.reward.item() for one in paid] == pytest.approx([LN4, LN2], abs=1e-6)
    assert all(torch.equal(one.discount, batch.discount) for one in paid)


def test_environments_reward_has_no_influence() -> None:
    agents = [
        make(gym.wrappers.TransformReward(Countdown(), function)).learn(40)
        for function in (lambda reward: reward, lambda reward: 1e6 * (-1) ** int(reward))
    ]
    assert agents[0].num_updates == 35
    assert all(torch.equal(a, b) for a, b in zip(*map(parameters, agents), strict=True))


def test_discriminator_takes_as_many_steps_as_it_is_told() -> None:
    agent = make(discriminator_updates=3).learn(20)
    (state,) = {float(state["step"]) for state in agent.discriminator_optimizer.state.values()}
    assert (agent.num_updates, state) == (15, 45.0)


def test_sac_begins_with_the_networks_it_would_have_alone() -> None:
    assert all(
        torch.equal(a, b) for a, b in zip(parameters(SAC(Countdown(), **SMALL)), parameters(make()), strict=False)
    )


def test_learning_of_the_discriminator_is_charged() -> None:
    # I = 3 + 2 inputs, H = 8, one output, B = 8. On 2·B rows: forward I·H + H products, as many for the weights'
    # gradients, H for the hidden layer's; then B rows forward for the reward. Two FLOPs a product.
    expected = 2 * 16 * (2 * (40 + 8) + 8) + 2 * 8 * (40 + 8)
    plain, agent = SAC(Countdown(), **SMALL).learn(6), make(gradient_penalty=0.0).learn(6)
    assert agent.meter.totals["learn"] - plain.meter.totals["learn"] == expected
    # The penalty on B rows: forward and slope, 2·(I·H + H), and both once more for the weights, at least.
    with_penalty = make().learn(6)
    assert with_penalty.meter.totals["learn"] >= agent.meter.totals["learn"] + 2 * 8 * 4 * (40 + 8)


@pytest.mark.parametrize("reward_form", ["-log(1-D)", "log D - log(1-D)"])
def test_student_acts_as_the_expert_whatever_is_paid(reward_form: str) -> None:
    env = probes.of_both(discrete=False)
    env.pay = lambda t, shown, action: -1e3 * probes.right(action, shown)
    state = np.where(np.arange(100) % 2, 1.0, -1.0).astype(np.float32)[:, None]
    ends = np.ones(100, bool)
    agent = GAIL(
        env,
        net_arch=(32, 32),
        discriminator_net_arch=(32, 32),
        learning_rate=3e-3,
        discriminator_learning_rate=3e-3,
        gradient_penalty=1.0,
        batch_size=64,
        learning_starts=64,
        buffer_size=1_000,
        reward_form=reward_form,
    )
    agent.demonstrations = FixedReplay(Transitions(state, 0.5 * state, state[:, 0], state, ends, ~ends, state[:, 0]))
    agent.learn(700)
    acted = [agent.predict(np.array([shown], np.float32))[0].item() for shown in (-1.0, 1.0)]
    assert acted == pytest.approx([-0.5, 0.5], abs=0.2)


# ---- checkpoints and demonstrations on disk -------------------------------------------------------------------------


@pytest.fixture
def demonstrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of 23 steps of random actions in ``Countdown``."""
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    write_dataset("test/data-v0", Chance(Countdown().action_space), Countdown(), 23)
    return tmp_path / "test" / "data-v0"


def test_run_that_was_killed_equals_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    every = {"eval_every": 60, "eval_episodes": 1, "log_every": 40, "checkpoint_every": 50, "tensorboard": False}
    config = RunConfig("Pendulum-v1", steps=150, max_episode_steps=25, **every)
    env = config.make_env()
    shown = write_dataset("test/swings-v0", Chance(env.action_space), env, 60)
    for name in ("whole", "killed"):
        with Run.start(GAIL, SMALL, config, tmp_path / name, demonstrations=shown) as run:
            if name == "whole":
                assert run.train()
                continue
            run.alongside.append(FunctionCallback(kill))
            with pytest.raises(Killed):
                run.train()
    with Run.resume(GAIL, tmp_path / "killed", demonstrations=shown) as run:
        assert run.agent.num_timesteps == 50
        assert run.train()
    assert differences(tmp_path / "whole", tmp_path / "killed") == []


def kill(agent: Any) -> None:
    if agent.num_timesteps >= 90:
        raise Killed


def test_agent_without_demonstrations_acts_and_does_not_learn(demonstrations: Path, tmp_path: Path) -> None:
    agent = GAIL(Countdown(), demonstrations, **SMALL).learn(10)
    agent.save(tmp_path / "agent")
    for env in (None, Countdown()):
        loaded = GAIL.load(tmp_path / "agent", env)
        assert np.array_equal(loaded.predict(np.zeros(3))[0], agent.predict(np.zeros(3))[0])
        with pytest.raises(DatasetError, match=r"demonstrations=None.*expected a data set; pass demonstrations="):
            loaded.learn(10)
    assert GAIL.load(tmp_path / "agent", Countdown(), demonstrations=demonstrations).learn(3).num_timesteps == 13


def test_other_demonstrations_are_refused_where_it_learns_on(demonstrations: Path, tmp_path: Path) -> None:
    GAIL(Countdown(), demonstrations, **SMALL).save(tmp_path / "agent")
    other = write_dataset("test/other-v0", Chance(Countdown().action_space), Countdown(), 9)
    with pytest.raises(DatasetError, match=r"demonstrations of 9 pairs: expected the 23 that .*pass that data set"):
        GAIL.load(tmp_path / "agent", Countdown(), demonstrations=other)


def test_demonstrations_of_other_spaces_are_refused(demonstrations: Path) -> None:
    with pytest.raises(DatasetError, match=r"observation space is Box.*\(3,\).*expected Box.*\(2,\).*; use a data set"):
        GAIL(gym.make("MountainCarContinuous-v0"), demonstrations)


def test_demonstrations_that_are_not_finite_are_refused(demonstrations: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    spoil(tmp_path, "episode_1/actions", lambda array: array.__setitem__((1, 0), np.nan))
    with pytest.raises(NonFiniteError, match=r"an action of episode 1 .*\(step 1\): expected finite numbers; drop"):
        GAIL(Countdown(), demonstrations)


def test_demonstrations_that_are_no_data_set_are_refused() -> None:
    pytest.importorskip("minari")
    with pytest.raises(DatasetError, match=r"the data set is a tuple: expected a MinariDataset, .*; store episodes"):
        GAIL(Countdown(), (np.zeros((5, 3)), np.zeros((5, 2))))


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(SpaceError, match="GAIL got the action space Discrete"):
        GAIL(Countdown(discrete=True))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("discriminator_net_arch", (8, 0)),
        ("discriminator_learning_rate", 0.0),
        ("discriminator_updates", 0),
        ("gradient_penalty", -1.0),
        ("reward_form", "log(D)"),
        ("n_step", 3),
        ("hindsight", 4),
    ],
)
def test_value_out_of_bounds_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}=.*: expected"):
        GAIL(Countdown(), **{name: value})
