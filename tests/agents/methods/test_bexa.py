"""Early exits in agents: what acts is charged, gates follow the program, steps of one exit leave the others alone."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import BexaDQN, BexaSAC, BexaTD3
from agents.loop.callbacks import Callback
from agents.loop.evaluate import evaluate_policy, undisturbed
from agents.methods.exit_kinds import gaussian_divergence
from agents.runs.monitors import Checkpoint
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.gates import mixture_weights
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.selection.gates import GateTeacher
from budget_wrappers.wrappers import RecordComputeStatistics

SETTINGS: dict[str, Any] = {"net_arch": (8, 8), "batch_size": 8, "learning_starts": 20, "buffer_size": 500, "seed": 3}
AGENTS = (BexaSAC, BexaTD3)


def make(agent_class: Any = BexaSAC, **settings: Any) -> Any:
    return agent_class(gym.make("Pendulum-v1"), **{**SETTINGS, **settings})


class OnEpisode(Callback):
    def __init__(self, reports: list[dict[str, Any]]) -> None:
        self.reports = reports

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        self.reports.append(episode)


def parts_of(agent: Any) -> list[list[torch.Tensor]]:
    """Return copies of the parameters of each exit: its stage, head and gate."""
    policy = agent.policy
    return [
        [parameter.detach().clone() for part in parts for parameter in part.parameters()]
        for parts in zip(policy.stages, policy.exits, strict=True)
    ]


@pytest.mark.parametrize("agent_class", AGENTS)
def test_each_exit_that_acts_is_charged_by_its_name(agent_class: Any) -> None:
    agent = make(agent_class)
    agent.learn(120)  # the first 20 actions are random
    flops = dict(zip(agent.exits.names, agent.policy.flops, strict=True))
    counts = dict(zip(agent.exits.names, agent.exits.counts.tolist(), strict=True))
    assert sum(counts.values()) == 100
    assert min(counts.values()) > 0
    assert dict(agent.meter.by_name) == {name: counts[name] * flops[name] for name in flops}
    assert sum(float(agent.logged()[f"acting/{name}"]) for name in flops) == pytest.approx(1)


def test_the_wrapper_s_report_has_a_share_for_each_exit() -> None:
    agent = make()
    env = RecordComputeStatistics(gym.make("Pendulum-v1"), agent.meter)
    result = evaluate_policy(agent, env, 2)
    shares = result.compute[0]["share_steps"]
    assert set(shares) == set(agent.exits.names)
    assert sum(shares.values()) == pytest.approx(1)
    spent = sum(shares[name] * f for name, f in zip(agent.exits.names, agent.policy.flops, strict=True))
    assert result.compute[0]["flops_per_step"] == pytest.approx(spent)


@pytest.mark.parametrize(("acting", "charged"), [("backbone", 2 * (24 + 64 + 16)), ("ensemble", 2 * (104 + 6 + 16))])
def test_without_gates_none_is_charged(acting: str, charged: int) -> None:
    # O = 3, two layers of 8, two numbers an exit: layers 3·8 and 8·8, heads 3·2, 8·2 and 8·2
    agent = make(acting=acting)
    agent.predict(np.zeros((5, 3)))
    assert dict(agent.meter.by_name) == {acting: 5 * charged}
    assert agent.flops_per_action == charged


def test_the_fraction_rule_follows_a_running_reference_of_either_sign() -> None:
    teacher = GateTeacher([1, 2], 0.0, "fraction", fraction=0.9)
    low = torch.tensor([[-10.5, -10.0], [-12.0, -10.0]])
    # −10 − .1·10 = −11: −10.5 is good enough
    assert teacher.target(low).argmax(1).tolist() == [0, 1]
    assert teacher.reference == -10.0
    teacher.target(low + 20.0)
    assert teacher.reference == pytest.approx(-10.0 + 0.01 * 20.0)


@pytest.mark.parametrize("scheme", ["jointly", "stepwise"])
@pytest.mark.parametrize("agent_class", AGENTS)
def test_the_reference_of_the_fraction_rule_moves_once_an_update(agent_class: Any, scheme: str) -> None:
    agent = make(agent_class, gate_training="fraction", scheme=scheme).learn(30)
    moved, threshold = [], agent.teacher._threshold

    def following(*given: Any) -> torch.Tensor:
        before = agent.teacher.reference
        found = threshold(*given)
        moved.append(agent.teacher.reference != before)
        return found

    agent.teacher._threshold = following
    updates = agent.method("exits").actor_updates
    agent.train(4)
    assert sum(moved) == agent.method("exits").actor_updates - updates
    assert len(moved) == sum(moved) * (3 if scheme == "stepwise" else 1)


def test_each_exit_s_values_learn_from_a_target_of_their_own() -> None:
    agent = BexaDQN(gym.make("CartPole-v1"), **SETTINGS, gamma=0.5)
    with torch.no_grad():
        for number, layer in enumerate(agent.target_network.exits):
            layer.weight.zero_()
            layer.bias.fill_(10.0 * (number + 1))
    batch = agent.replay.gather(torch.zeros(0, dtype=torch.int64))
    batch = batch._replace(reward=torch.tensor([1.0]), discount=torch.tensor([0.5]), next_observation=torch.zeros(1, 4))
    assert agent.target(batch)[:, 0].tolist() == [6.0, 11.0, 16.0]  # 1 + .5·(10, 20, 30)


def test_cartpole_is_balanced_at_a_small_budget() -> None:
    agent = BexaDQN(
        gym.make("CartPole-v1"),
        net_arch=(64, 64),
        budget=0.1,
        gate_loss_scale=1.0,
        learning_rate=1e-3,
        batch_size=64,
        train_freq=4,
        gradient_steps=4,
        target_update_interval=200,
        exploration_fraction=0.2,
        learning_starts=500,
        seed=1,
    )
    env = gym.make("CartPole-v1")
    before = evaluate_policy(agent, env, 20)
    agent.learn(6_000)
    after = evaluate_policy(agent, env, 5)
    low, high = min(agent.actor.flops), max(agent.actor.flops)
    costs = [(result.flops_per_step - low) / (high - low) for result in (before, after)]
    assert costs[0] > 0.2 > costs[1]
    assert before.mean < 50 < after.mean


@pytest.mark.parametrize("interval", [1, 2, 3])
@pytest.mark.parametrize("scheme", ["jointly", "stepwise"])
@pytest.mark.parametrize("agent_class", AGENTS)
def test_gates_learn_every_so_many_actor_updates(agent_class: Any, scheme: str, interval: int) -> None:
    agent = make(agent_class, gate_interval=interval, scheme=scheme)
    told, losses = [], agent.teacher.losses
    agent.teacher.losses = lambda *given: told.append(agent.method("exits").actor_updates) or losses(*given)
    agent.learn(20 + 24)
    updates = 24 if agent_class is BexaSAC else 12  # the actor's, of 24 of the critics
    assert sorted(set(told)) == list(range(1, updates + 1, interval))
    assert len(told) == len(set(told)) * (1 if scheme == "jointly" else 3)


def test_two_agents_on_one_meter_and_a_meter_that_begins_anew_keep_their_counts() -> None:
    meter = ComputeMeter()
    one, other = (
        BexaSAC(gym.make("Pendulum-v1"), meter=meter, **{**SETTINGS, "net_arch": w}) for w in ((8, 8), (4, 4))
    )
    one.predict(np.zeros((7, 3)))
    assert (one.exits.counts.sum(), other.exits.counts.sum()) == (7, 0)
    twin = copy.deepcopy(one)
    twin.predict(np.zeros((5, 3)))
    assert one.exits.counts.sum() == 7
    meter.reset_totals()
    one.learn(40)
    assert one.exits.counts.sum() == 7 + 20


def test_a_batch_is_one_batch_whatever_exits_its_rows_took() -> None:
    agent = make()
    agent.predict(np.random.default_rng(0).normal(size=(50, 3)))
    assert (agent.exits.counts > 0).sum() > 1
    assert agent.meter.pending_rows == 50


def test_an_ensemble_acts_by_the_mean_of_its_exits_actions() -> None:
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    for agent_class in AGENTS:
        agent = make(agent_class, acting="ensemble")
        with torch.no_grad():
            output = agent.policy(torch.from_numpy(x)).output
        mean = output.chunk(2, -1)[0] if agent_class is BexaSAC else output
        np.testing.assert_allclose(agent.act(x, True), torch.tanh(mean).mean(0).numpy(), atol=1e-5)
        assert agent.act(x, False).shape == (6, 1)
    values = BexaDQN(gym.make("CartPole-v1"), **SETTINGS, acting="ensemble").values(np.zeros((6, 4)))
    assert values.shape == (6, 2)


def test_an_exit_that_copies_badly_is_worth_what_the_last_one_says_of_its_choice() -> None:
    agent = BexaDQN(gym.make("CartPole-v1"), **{**SETTINGS, "net_arch": (4,)}, exit_training="imitate")
    with torch.no_grad():
        for layer, bias in zip(agent.actor.exits, ([9.0, 0.0, 0.0], [1.0, 3.0]), strict=True):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor(bias))
    seen, losses = [], agent.teacher.losses
    agent.teacher.losses = lambda logits, values, *rest: seen.append(values) or losses(logits, values, *rest)
    batch = agent.replay.gather(torch.zeros(0, dtype=torch.int64))
    batch = batch._replace(
        observation=torch.zeros(1, 4),
        action=torch.tensor([0]),
        reward=torch.tensor([1.0]),
        discount=torch.tensor([0.5]),
        next_observation=torch.zeros(1, 4),
        weight=torch.ones(1),
    )
    _, error = agent.loss(batch)
    assert seen[0].tolist() == [[1.0, 3.0]]
    assert error.shape == (1, 1)  # the last exit's alone sets priorities


def test_an_evaluation_in_between_is_not_among_the_exits_that_acted() -> None:
    agent = make().learn(120)
    rows = agent.exits.counts.tolist()
    with undisturbed(agent):
        evaluate_policy(agent, gym.make("Pendulum-v1"), 1)
        assert agent.exits.counts.sum() == sum(rows) + 200
    assert agent.exits.counts.tolist() == rows


def test_what_is_charged_is_in_the_meter_s_convention() -> None:
    plain = make()
    full = BexaSAC(gym.make("Pendulum-v1"), meter=ComputeMeter(convention="all"), **SETTINGS)
    assert plain.exits.flops == plain.policy.flops
    assert all(more > less for more, less in zip(full.exits.flops, plain.exits.flops, strict=True))


def test_an_episode_of_random_actions_costs_nothing() -> None:
    agent = make(learning_starts=300)
    agent.set_env(RecordComputeStatistics(gym.make("Pendulum-v1"), agent.meter))
    reports: list[dict[str, Any]] = []
    agent.learn(200, OnEpisode(reports))
    assert (reports[0]["compute"]["flops"], set(reports[0]["compute"]["share_steps"])) == (0.0, set(agent.exits.names))


def test_sampled_gates_open_as_often_as_they_say() -> None:
    agent, rows = make(), 40_000
    observation = np.repeat(np.array([[0.3, -0.2, 1.0]], np.float32), rows, 0)
    agent.predict(observation)
    with torch.no_grad():
        logits = agent.policy(torch.from_numpy(observation[:1])).logits
    share = mixture_weights(torch.cat([torch.sigmoid(logits), torch.ones(1, 1)], 1))[0].numpy()
    # 5 standard deviations of a share of 40,000 draws are at most .0125
    np.testing.assert_allclose(agent.exits.counts / rows, share, atol=0.0125)


@pytest.mark.parametrize("agent_class", AGENTS)
def test_stepwise_training_moves_one_exit_at_a_time(agent_class: Any) -> None:
    agent = make(agent_class, scheme="stepwise")
    moved = []
    for optimizer in agent.exit_optimizers:
        step = optimizer.descend

        def watched(loss: Any, max_norm: float | None = None, step: Any = step) -> None:
            before = parts_of(agent)
            step(loss, max_norm)
            after = parts_of(agent)
            pairs = zip(before, after, strict=True)
            moved.append([any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairs])

        optimizer.descend = watched
    while not moved:  # TD3's actor is due every other update
        agent.learn(25)
    assert moved[:3] == [[True, False, False], [False, True, False], [False, False, True]]


@pytest.mark.parametrize("agent_class", AGENTS)
def test_imitating_exits_follow_the_last_one_whose_head_they_leave_alone(agent_class: Any) -> None:
    agent = make(agent_class, exit_training="imitate", gate_loss_scale=0.0)
    assert agent.critic.heads == 1
    x = torch.randn(64, 3)
    if agent_class is BexaSAC:
        own = agent.sample(x)
        copying = gaussian_divergence(own.moments.mean, own.moments.log_std).mean()
    else:
        action = torch.tanh(agent.policy(x).output)
        copying = (action[:-1] - action[-1].detach()).square().sum()
    last = agent.policy.exits[-1].weight
    gradients = torch.autograd.grad(copying, [last, *(layer.weight for layer in agent.policy.exits[:-1])])
    assert not gradients[0].any()
    assert all(gradient.abs().sum() > 0 for gradient in gradients[1:])


def test_divergence_is_that_of_torch_s_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std = (torch.randn(3, 7, 2, generator=generator).clamp(max=2) for _ in range(2))
    normal = [torch.distributions.Normal(m, s.exp()) for m, s in zip(mean, log_std, strict=True)]
    expected = torch.stack([torch.distributions.kl_divergence(normal[2], each).sum(-1) for each in normal[:2]])
    assert torch.allclose(gaussian_divergence(mean, log_std), expected, atol=1e-5)


@pytest.mark.parametrize("agent_class", AGENTS)
@pytest.mark.parametrize(
    "settings",
    [
        {"scheme": "stepwise", "gate_interval": 2, "exit_training": "imitate"},
        {"gate_training": "batch_budget", "budget_feedback": 0.01},
        {"gate_training": "fraction"},
    ],
)
def test_a_resumed_run_is_the_same(agent_class: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    whole, first = make(agent_class, **settings), make(agent_class, **settings)
    for agent in (whole, first):
        agent.teacher.set_budget(0.2)
    whole.learn(400)
    first.learn(400, [Checkpoint(path, 100), lambda agent: agent.num_timesteps < 250])
    second = agent_class.load(path, gym.make("Pendulum-v1"))
    assert second.teacher.budget == 0.2
    assert (second.teacher.gap, second.teacher.reference) != (0.0, None)
    second.learn(400 - second.num_timesteps)
    pairs = zip(whole.modules.values(), second.modules.values(), strict=True)
    assert all(torch.equal(a, b) for one, two in pairs for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert whole.exits.counts.tolist() == second.exits.counts.tolist()


@pytest.mark.parametrize(
    ("training", "targets"),
    # .75 of the last exit's mean value, 4, is 3: only exit 1, exit 2 and nobody but the last reach it
    [("advantage", [0, 1, 2]), ("greedy", [0, 1, 2]), ("fraction", [0, 1, 2]), ("softmax", None)],
)
def test_other_ways_to_teach_gates(training: str, targets: list[int] | None) -> None:
    values = torch.tensor([[5.0, 1.0, 4.0], [1.0, 9.0, 4.0], [1.0, 2.0, 4.0]])
    alpha = GateTeacher([1, 2, 3], 0.0, training, temperature=0.5, fraction=0.75).target(values)
    if targets is None:
        assert torch.allclose(alpha, torch.softmax(2 * values, 1))
    else:
        assert alpha.argmax(1).tolist() == targets


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"budget": -0.1}, ConfigError, "budget=-0.1: expected 0"),
        ({"exit_after": (1,)}, ConfigError, r"exit_after=\(1,\): expected two exits at least"),
        ({"exit_after": (0, 3)}, ConfigError, r"exit_after=\(0, 3\): expected different depths of 0 to 2"),
        ({"gate_training": "budgets"}, ConfigError, "gate_training"),
        ({"gate_temperature": 0}, ConfigError, "gate_temperature=0: expected a number above 0"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make(**settings)
