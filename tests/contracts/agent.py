"""The contract of agents: a subclass names the agent and its options, and inherits a guard for each known way to fail.

Rows refer to silent failures of admired libraries: equal seeds, losses that step optimizers, options that nobody ran,
a log-density of other actions.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.loop.agent import OffPolicyAgent
from agents.replay.buffers import Batch
from budget_wrappers.errors import ConfigError, NonFiniteError, SpaceError
from tests.gymnasium_versions import AutoresetMode, sync

LENGTHS = (3, 5, 4)
"""Steps after which the episodes of environment 0, 1 and 2 end."""


class Countdown(gym.Env):
    """Shows ``(which environment, episode, step)``, so every stored transition tells where it comes from.

    Odd episodes end by termination, even ones by a time limit. The reward is the step.

    Args:
        which: a number to tell copies apart.
        discrete: three actions, or two numbers in [-2, 2].
        spoil: ``{"observation" | "reward": step at which it is NaN}``, counted over all episodes.
    """

    def __init__(self, which: int = 0, discrete: bool = False, spoil: dict[str, int] | None = None) -> None:
        self.observation_space = spaces.Box(-100.0, 100.0, (3,), np.float32)
        self.action_space = spaces.Discrete(3, start=5) if discrete else spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.which, self.spoil, self.episode, self.steps = which, spoil or {}, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.t, self.steps = self.t + 1, self.steps + 1
        over, terminates = self.t == LENGTHS[self.which], self.episode % 2 == 1
        reward = float("nan") if self.spoil.get("reward") == self.steps else float(self.t)
        return self._observe(), reward, over and terminates, over and not terminates, {}

    def _observe(self) -> np.ndarray:
        first = np.nan if self.spoil.get("observation") == self.steps else self.which
        return np.array([first, self.episode, self.t], np.float32)


class AgentContract:
    """Subclass it in a test module.

    Attributes:
        agent_class: the agent.
        settings: that make it small and quick.
        flips: another value for every key of its configuration, or a dictionary of settings where a value needs
            company.
        discrete: whether it acts on ``Discrete`` spaces.
    """

    agent_class: ClassVar[type[OffPolicyAgent]]
    settings: ClassVar[dict[str, Any]] = {
        "net_arch": (8, 8),
        "batch_size": 8,
        "learning_starts": 5,
        "buffer_size": 200,
        "train_freq": 1,
    }
    flips: ClassVar[dict[str, Any]] = {}
    discrete: ClassVar[bool] = False

    def make(self, env: Any = None, **settings: Any) -> OffPolicyAgent:
        """Return an agent."""
        return self.agent_class(env or Countdown(discrete=self.discrete), **{**self.settings, **settings})

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        """Return every loss of the agent as a function of a batch."""
        raise NotImplementedError

    def trained(self, agent: OffPolicyAgent, steps: int = 20) -> OffPolicyAgent:
        """Return the agent after a little learning."""
        return agent.learn(steps)

    def batch(self, agent: OffPolicyAgent, rows: int = 8) -> Batch:
        """Return a random batch that fits the agent."""
        generator = torch.Generator().manual_seed(1)
        size = agent.observation_shape[0]
        if self.discrete:
            action = torch.randint(int(agent.action_space.n), (rows,), generator=generator)
        else:
            action = 2 * torch.rand(rows, agent.action_space.shape[0], generator=generator) - 1
        return Batch(
            torch.randn(rows, size, generator=generator),
            action,
            torch.randn(rows, generator=generator),
            torch.full((rows,), 0.9),
            torch.randn(rows, size, generator=generator),
            torch.ones(rows),
            torch.arange(rows),
        )

    # ---- seeds ------------------------------------------------------------------------------------------------------

    def test_one_seed_twice_is_one_run(self) -> None:
        one, other = (self.trained(self.make(seed=7)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))
        assert np.array_equal(self.actions(one), self.actions(other))

    def test_two_seeds_are_two_runs(self) -> None:
        one, other = (self.trained(self.make(seed=seed)) for seed in (0, 1))
        assert not all(torch.equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))

    def test_global_generators_are_left_alone(self) -> None:
        torch.manual_seed(5)
        before = torch.get_rng_state()
        self.trained(self.make())
        assert torch.equal(before, torch.get_rng_state())

    # ---- learning ---------------------------------------------------------------------------------------------------

    def test_losses_change_no_parameter(self) -> None:
        agent = self.make()
        before = [parameter.clone() for parameter in parameters(agent)]
        for loss in self.losses(agent):
            loss(self.batch(agent))
        assert all(torch.equal(a, b) for a, b in zip(before, parameters(agent), strict=True))

    def test_update_never_samples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        agent = self.trained(self.make())

        def refuse(*arguments: Any) -> None:
            pytest.fail("update drew a batch of its own")

        monkeypatch.setattr(agent.replay, "sample", refuse)
        metrics = agent.update(self.batch(agent))
        assert all(torch.isfinite(torch.as_tensor(value)).all() for value in metrics.values())

    def test_every_option_is_listed_here(self) -> None:
        assert self.flips.keys() == {field.name for field in dataclasses.fields(self.agent_class.config_class)}

    def test_every_option_flipped_alone_learns(self) -> None:
        for name, value in self.flips.items():
            changes = value if isinstance(value, dict) else {name: value}
            agent = self.trained(self.make(**changes), 12)
            assert agent.num_updates >= 2, name
            assert changes.items() <= agent.config.__dict__.items(), name
            assert all(torch.isfinite(parameter).all() for parameter in parameters(agent)), name

    def test_unknown_key_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"no key 'learning_rat'; did you mean 'learning_rate'\?"):
            self.make(learning_rat=1e-3)

    # ---- acting -----------------------------------------------------------------------------------------------------

    def actions(self, agent: OffPolicyAgent) -> np.ndarray:
        """Return deterministic actions on fixed observations."""
        observation = np.random.default_rng(0).normal(size=(5, agent.observation_shape[0]))
        return agent.predict(observation)[0]

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        """Return the deterministic actions, as stored, that torch's forward pass of the actor gives."""
        raise NotImplementedError

    def test_acting_engine_is_the_module(self) -> None:
        agent = self.trained(self.make())
        observation = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
        with torch.no_grad():
            expected = self.torch_actions(agent, torch.from_numpy(observation))
        assert np.abs(agent.act(observation, deterministic=True) - expected).max() <= 1e-5

    def test_predict_takes_one_observation_or_a_batch(self) -> None:
        agent = self.make()
        observation = np.random.default_rng(0).normal(size=(4, 3))
        batch, state = agent.predict(observation, state="kept")
        one, _ = agent.predict(observation[2])
        assert state == "kept"
        assert agent.action_space.contains(one)
        assert np.shape(batch) == (4, *agent.action_space.shape)
        np.testing.assert_allclose(one, batch[2], rtol=1e-5)

    @pytest.mark.parametrize("shape", [(2,), (4,), (5, 4), (2, 2, 3), ()])
    def test_predict_refuses_other_shapes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(SpaceError, match="expected"):
            self.make().predict(np.zeros(shape))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_predict_refuses_what_is_not_finite(self, value: float) -> None:
        with pytest.raises(NonFiniteError, match="not finite"):
            self.make().predict(np.array([0.0, value, 0.0]))

    def test_predict_charges_the_meter(self) -> None:
        agent = self.make()
        agent.predict(np.zeros((4, 3)))
        assert agent.meter.totals["act"] == 4 * agent.flops_per_action > 0


class OnlineContract(AgentContract):
    """Further guards of agents that step an environment."""

    @pytest.mark.parametrize("what", ["observation", "reward"])
    def test_nan_is_refused_and_not_stored(self, what: str) -> None:
        agent = self.make(Countdown(discrete=self.discrete, spoil={what: 9}))
        with pytest.raises(NonFiniteError, match=f"the {what} at environment step 9 is .*nan"):
            agent.learn(30)
        assert len(agent.replay) == 8
        assert torch.isfinite(agent.replay.observation[:8]).all()

    def test_wrong_kind_of_action_space_is_refused(self) -> None:
        with pytest.raises(SpaceError, match="expected a"):
            self.make(Countdown(discrete=not self.discrete))

    @pytest.mark.parametrize("mode", AutoresetMode)
    def test_replay_holds_exactly_what_happened(self, mode: AutoresetMode) -> None:
        rounds = 13
        envs = [lambda which=which: Countdown(which, self.discrete) for which in range(3)]
        agent = self.make(sync(envs, mode))
        # NEXT_STEP spends rounds on resets: environment 0 needs 4 of them for an episode of 3 steps.
        lost = int(mode is AutoresetMode.NEXT_STEP)
        expected = [
            (which, 1 + done // (length + lost), done % (length + lost) + 1, length)
            for done in range(rounds)
            for which, length in enumerate(LENGTHS)
            if done % (length + lost) < length
        ]
        agent.learn(len(expected))
        replay = agent.replay
        assert agent.num_timesteps == len(replay) == len(expected)
        for place, (which, episode, t, length) in enumerate(expected):
            assert replay.observation[place].tolist() == [which, episode, t - 1]
            assert replay.next_observation[place].tolist() == [which, episode, t]
            assert replay.reward[place] == t
            assert bool(replay.terminated[place]) == (t == length and episode % 2 == 1)
            follower = (which, episode, t + 1, length)
            followed = expected.index(follower) if t < length and follower in expected else -1
            assert replay.follower[place] == followed

    def test_single_environment_stores_exactly_what_happened(self) -> None:
        agent = self.make().learn(8)
        shown = agent.replay.observation[:8, 1:].tolist()
        assert shown == [[1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2], [3, 0], [3, 1]]
        assert agent.replay.next_observation[:8, 2].tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
        assert agent.replay.terminated[:8].tolist() == [False, False, True, *[False] * 5]


def parameters(agent: OffPolicyAgent) -> list[nn.Parameter]:
    """Return the parameters of all networks."""
    return [parameter for module in agent.modules.values() for parameter in module.parameters()]
