"""Budgets of early exits: met by gates, read from observations, corrected, given again, refused where unreadable."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import NormalizeObservation, TimeAwareObservation

from agents import BexaCQL, BexaDiscreteCQL, BexaDQN, BexaSAC, BexaTD3
from agents.runs.run_config import RunConfig
from budget_wrappers.errors import CheckpointError, ConfigError, InfeasibleBudgetError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.selection.gates import GateTeacher
from budget_wrappers.wrappers import BudgetAwareObservation, ComputeLimit
from tests.agents.methods.test_bexa import AGENTS, SETTINGS, make


def test_feedback_takes_off_the_budget_what_acting_cost_too_much() -> None:
    teacher = GateTeacher([0, 10], 0.5, feedback=0.1)
    teacher.observe(0.9)
    assert teacher.aim == pytest.approx(0.5 - 0.1 * 0.4)
    assert teacher.gap == pytest.approx(1e-3 * 0.4)
    # v = (0, 1) in every state: the program spends all it may
    assert teacher.target(torch.tensor([[0.0, 1.0]]))[0, 1] == pytest.approx(0.46)
    for _ in range(1000):
        teacher.observe(1.0)
    assert teacher.aim == 0.0
    teacher.observe(0.0)  # back at once: nothing has piled up at the end
    assert teacher.aim == pytest.approx(0.05)


def test_one_action_is_noted_to_the_digit_as_before() -> None:
    teacher = GateTeacher([0, 10], 0.5, feedback=0.1)
    teacher.observe(0.9, 1)
    assert teacher.correction == -0.1 * (0.9 - 0.5)
    assert teacher.gap == 1e-3 * (0.9 - 0.5)


def test_many_actions_count_as_so_many_and_correct_no_more_than_all() -> None:
    one, many = (GateTeacher([0, 10], 0.5, feedback=0.01) for _ in range(2))
    for _ in range(20):
        one.observe(0.6)
    many.observe(0.6, 20)
    assert many.gap == pytest.approx(one.gap, rel=1e-9)  # .1·(1 − .999²⁰)
    assert many.correction == pytest.approx(-20 * 0.01 * 0.1)
    assert many.correction == pytest.approx(one.correction)
    for _ in range(20):  # a plant that follows at once, seen 1000 actions late: .01·1000 alone would swing
        many.observe(min(many.aim + 0.2, 1.0), 1000)
    assert many.aim + 0.2 == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(("environments", "settings"), [(1, {}), (1, {"train_freq": 50}), (3, {"gradient_steps": -1})])
def test_the_teacher_is_told_of_each_action_of_training_and_of_no_other(
    environments: int, settings: dict[str, Any]
) -> None:
    made = gym.make_vec("Pendulum-v1", num_envs=environments, vectorization_mode="sync")
    agent = BexaSAC(made if environments > 1 else gym.make("Pendulum-v1"), **{**SETTINGS, **settings})
    told, observe = [], agent.teacher.observe
    agent.teacher.observe = lambda cost, actions: told.append(actions) or observe(cost, actions)
    agent.learn(120, lambda agent: bool(agent.predict(np.zeros((40, 3))) or True))
    assert set(told) == {environments}
    assert sum(told) == (agent.replay.acted_by[: len(agent.replay)] >= 0).sum() > 90
    gap = agent.teacher.gap
    agent.predict(np.zeros((500, 3)))
    agent.learn(0)
    assert agent.teacher.gap == gap


def test_another_budget_starts_without_what_was_found_out_about_the_one_before() -> None:
    teacher = GateTeacher([0, 10], 0.5, feedback=0.1)
    teacher.observe(0.9)
    teacher.set_budget(0.5)
    assert teacher.correction == pytest.approx(-0.04)  # the same budget: still true
    teacher.set_budget(0.8)
    assert (teacher.correction, teacher.gap, teacher.aim) == (0.0, 0.0, 0.8)


def test_feedback_closes_a_gap_that_the_gates_leave() -> None:
    """Gates that always open .2 too often, as fitted ones may."""
    teacher = GateTeacher([0, 10], 0.5, feedback=0.01)
    for _ in range(2000):
        teacher.observe(min(teacher.aim + 0.2, 1.0))
    assert teacher.aim + 0.2 == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("agent_class", AGENTS)
def test_gates_meet_the_budget_that_values_leave_to_them(agent_class: Any) -> None:
    # The dearest exit is worth most in every state, so the program spends all of the budget; b = .3.
    agent = make(agent_class, budget=0.3, gate_loss="mixture", gate_loss_scale=1.0)
    x, optimizer = torch.randn(256, 3), torch.optim.Adam(agent.policy.parameters(), lr=1e-2)
    values = torch.tensor([[0.0], [0.5], [10.0]]).expand(3, 256)
    for _ in range(300):
        loss = agent.with_gates(torch.zeros(3), agent.policy(x).logits, values, x).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(agent.logged()["gate/expected_cost"]) == pytest.approx(0.3, abs=0.01)
    agent.predict(np.repeat(x.numpy(), 40, 0))
    executed = agent.exits.counts @ np.array(agent.teacher.costs) / agent.exits.counts.sum()
    assert executed == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    # Gates of three exits. A coin; and half of the states at the first exit, half at the last: log 2.
    ("logits", "nats"),
    [([[0.3, -1.0]] * 4, 0.0), ([[50.0, 0.0], [-50.0, -50.0]] * 2, np.log(2))],
    ids=["a coin", "by state"],
)
def test_the_log_tells_gates_that_look_at_the_state_from_a_coin(logits: list[list[float]], nats: float) -> None:
    agent, rows = make(BexaTD3), len(logits)
    agent.with_gates(torch.zeros(3), torch.tensor(logits), torch.zeros(3, rows), torch.zeros(rows, 3))
    assert float(agent.logged()["gate/information"]) == pytest.approx(nats, abs=1e-6)


def test_information_is_not_computed_where_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.Tensor] = []
    monkeypatch.setattr("agents.methods.exit_reports.gate_information", lambda logits: asked.append(logits) or logits)
    agent = make(BexaTD3, learning_starts=5, batch_size=4).learn(12)
    assert asked == []
    agent.logged()
    assert len(asked) == 1


def test_a_batch_s_program_wins_by_what_the_arithmetic_says() -> None:
    # Exits cost 0 and 1, b = ½. In half of the states the cheap one is as good (1, 1), in the other half worthless
    # (0, 1). Each state by itself: the second kind gets ½, so ¾ on average, at a cost of ¼. Over the batch: all of it
    # goes where it pays, 1 on average at a cost of ½.
    values = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).repeat(50, 1)
    expected = {"budget": (0.75, 0.25), "batch_budget": (1.0, 0.5)}
    for training, (worth, cost) in expected.items():
        alpha = GateTeacher([10, 30], 0.5, training).target(values)
        assert float((alpha * values).sum(1).mean()) == pytest.approx(worth)
        assert float(alpha[:, 1].mean()) == pytest.approx(cost)


def conditioned(**settings: Any) -> BexaSAC:
    env = BudgetAwareObservation(gym.make("Pendulum-v1"), "budget", draw=(0.0, 1.0))
    return BexaSAC(env, **{**SETTINGS, "budget_from_observation": True, **settings})


def test_one_agent_s_gates_follow_the_budget_in_the_observation() -> None:
    agent = conditioned(gate_loss="mixture", gate_loss_scale=1.0, net_arch=(32, 32))
    x, optimizer = torch.rand(512, 4), torch.optim.Adam(agent.policy.parameters(), lr=3e-2)
    values = torch.tensor([[0.0], [0.5], [10.0]]).expand(3, 512)
    for _ in range(500):
        loss = agent.with_gates(torch.zeros(3), agent.policy(x).logits, values, x).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for budget in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        x[:, -1] = budget
        assert float(agent.teacher.expected_cost(agent.policy(x).logits)) == pytest.approx(budget, abs=0.02)


def test_a_budget_set_on_the_agent_or_at_a_reset_is_what_the_policy_sees() -> None:
    agent = conditioned().learn(60)
    agent.set_budget(0.3)
    assert agent.env.reset()[0][-1] == np.float32(0.3)
    assert agent.env.reset(options={"budget": 0.7})[0][-1] == np.float32(0.7)
    with pytest.raises(ConfigError, match="expected a share in"):
        agent.set_budget(1.2)
    assert len(set(agent.replay.observation[:60, -1].tolist())) == 1  # one episode
    agent.env.set_budget(None)
    agent.learn(500)
    assert len(set(agent.replay.observation[: len(agent.replay), -1].tolist())) > 2


def test_a_run_s_environments_have_the_budget_that_it_asks_for() -> None:
    config = RunConfig(env="Pendulum-v1", budget_input=True)
    assert config.make_env().observation_space.shape == config.make_env(ComputeMeter()).observation_space.shape == (4,)
    envs = RunConfig(env="Pendulum-v1", budget_input=True, n_envs=2).make_training_env(ComputeMeter())
    assert envs.single_observation_space.shape == (4,)
    assert envs.reset(seed=0, options={"budget": 0.25})[0][:, -1].tolist() == [0.25, 0.25]


def test_a_budget_must_be_in_the_observation_to_be_read_from_there(tmp_path: Path) -> None:
    with pytest.raises(WrapperOrderError, match="do not end in a budget"):
        make(budget_from_observation=True)
    agent = conditioned()
    agent.save(tmp_path / "agent")
    loaded = BexaSAC.load(tmp_path / "agent.safetensors", None)
    assert loaded.predict(np.zeros(4))[0].shape == (1,)
    for training in ("batch_budget", "advantage", "greedy"):
        with pytest.raises(ConfigError, match=f"gate_training='{training}': expected 'budget'"):
            conditioned(gate_training=training)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: BudgetAwareObservation(env, "budget", flatten=False),
        lambda env: TimeAwareObservation(BudgetAwareObservation(env, "budget")),
        lambda env: NormalizeObservation(BudgetAwareObservation(env, "budget")),
        lambda env: BudgetAwareObservation(ComputeLimit(env, 10_000, "truncate")),
        lambda env: BudgetAwareObservation(ComputeLimit(env, 10_000, "truncate"), "budget"),
    ],
)
def test_a_number_that_is_no_share_at_the_end_of_the_observation_is_not_read(wrap: Any) -> None:
    with pytest.raises(WrapperOrderError, match="do not end in a budget"):
        BexaSAC(wrap(gym.make("Pendulum-v1")), **SETTINGS, budget_from_observation=True)


def test_a_budget_that_was_given_is_given_again_after_a_checkpoint(tmp_path: Path) -> None:
    agent = conditioned()
    agent.set_budget(0.3)
    agent.save(tmp_path / "agent")
    fresh = conditioned().env
    BexaSAC.load(tmp_path / "agent.safetensors", fresh)
    assert fresh.reset()[0][-1] == np.float32(0.3)
    with pytest.raises(CheckpointError, match="loaded with env=None"):
        BexaSAC.load(tmp_path / "agent.safetensors", None).set_budget(0.2)


def test_a_budget_that_nothing_reads_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected gate_training of budget or batch_budget"):
        make(gate_training="advantage").set_budget(0.3)
    for acting in ("backbone", "ensemble"):
        with pytest.raises(ConfigError, match=f"acting='{acting}', which asks no gate: expected acting='early_exit'"):
            make(acting=acting).set_budget(0.3)
    for agent in (make(gate_loss_scale=0.0), conditioned(gate_loss_scale=0.0)):
        with pytest.raises(ConfigError, match="gates learn nothing: expected gate_loss_scale above 0"):
            agent.set_budget(0.3)
    for settings in ({"gate_training": "advantage"}, {"acting": "backbone"}):
        with pytest.raises(ConfigError, match="expected 0 unless gates are taught one budget and act"):
            make(budget_feedback=0.1, **settings)


@pytest.mark.parametrize("budget", ["0.5", None, True, [0.1, 0.2], np.array([0.1, 0.2]), torch.tensor([0.1, 0.2])])
def test_a_budget_that_is_no_number_is_refused(budget: Any) -> None:
    agent = make()
    with pytest.raises(ConfigError, match=r"budget=.*: expected one number, 0 or more"):
        agent.set_budget(budget)
    with pytest.raises(ConfigError, match=r"budget=.*: expected one number, 0 or more"):
        GateTeacher([1, 2], budget)
    assert agent.teacher.budget == 0.5


@pytest.mark.parametrize("agent_class", [BexaCQL, BexaDiscreteCQL])
def test_data_hold_no_budget_to_read(agent_class: Any) -> None:
    with pytest.raises(ConfigError, match="a data set's observations hold no budget"):
        agent_class.config_class(budget_from_observation=True)
    with pytest.raises(ConfigError, match=r"budget_feedback=0\.1: expected 0: learning from data, nothing acts"):
        agent_class.config_class(budget_feedback=0.1)


def test_a_budget_that_no_exit_can_keep_is_refused_at_run_time() -> None:
    agent = make()
    with pytest.raises(InfeasibleBudgetError, match=r"budget=-1 is below 0, the cost of the cheapest exit"):
        agent.set_budget(-1)
    with pytest.raises(InfeasibleBudgetError, match="budget=nan"):
        agent.set_budget(float("nan"))
    with pytest.raises(ConfigError, match="budget=inf: expected a finite number"):
        agent.set_budget(float("inf"))
    assert agent.teacher.budget == 0.5


@pytest.mark.parametrize("kind", [np.float32, np.float64, float, int])
def test_a_budget_of_any_number_type_is_saved(kind: Any, tmp_path: Path) -> None:
    for agent in (make(), conditioned()):
        agent.set_budget(kind(1))
        agent.save(tmp_path / "agent")


def test_the_budget_that_the_environment_was_given_last_outlives_a_checkpoint_and_another_environment(
    tmp_path: Path,
) -> None:
    def after_a_load() -> Any:
        agent.save(tmp_path / "agent")
        return BexaSAC.load(tmp_path / "agent.safetensors", conditioned().env).env.get_wrapper_attr("given_budget")

    agent = conditioned()
    agent.set_budget(0.3)
    agent.env.set_budget(0.9)
    assert after_a_load() == 0.9
    agent.env.reset(options={"budget": 0.6})
    assert after_a_load() == 0.6
    agent.set_env(conditioned().env)
    assert agent.env.given_budget == 0.6
    own = conditioned().env
    own.set_budget(0.1)
    agent.set_env(own)
    assert agent.env.given_budget == 0.1
    agent.env.set_budget(None)
    assert after_a_load() is None
    agent.set_env(conditioned().env)
    assert agent.env.given_budget is None


def test_a_checkpoint_loaded_without_an_environment_keeps_its_budget_for_the_next(tmp_path: Path) -> None:
    agent = conditioned()
    agent.set_budget(0.3)
    agent.save(tmp_path / "agent")
    loaded = BexaSAC.load(tmp_path / "agent.safetensors", None)
    loaded.save(tmp_path / "again")
    loaded.set_env(conditioned().env)
    assert loaded.env.given_budget == 0.3
    assert BexaSAC.load(tmp_path / "again.safetensors", conditioned().env).given_budget == 0.3


@pytest.mark.parametrize(("agent_class", "name"), [(BexaTD3, "Pendulum-v1"), (BexaDQN, "CartPole-v1")])
def test_a_resumed_run_logs_what_the_unbroken_one_does(agent_class: Any, name: str, tmp_path: Path) -> None:
    def env() -> gym.Env:
        return gym.make(name, max_episode_steps=20)

    unbroken = agent_class(env(), **SETTINGS).learn(60)
    unbroken.save(tmp_path / "agent", replay=True)
    resumed = agent_class.load(tmp_path / "agent.safetensors", env())
    for _ in range(5):  # what acts is not updated at each step
        rows = [{key: float(value) for key, value in agent.logged().items()} for agent in (unbroken, resumed)]
        assert rows[0] == rows[1]
        assert {"gate/expected_cost", "gate/information"} <= rows[0].keys()
        for agent in (unbroken, resumed):
            agent.learn(1)
