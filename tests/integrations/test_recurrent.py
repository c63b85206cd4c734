"""Recurrent policies of Tianshou and TorchRL remember, as sub-policies, what they observed in the episode."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import SubPolicyAction

SEEN = [np.random.default_rng(seed).normal(size=4).astype(np.float32) for seed in range(12)]


class Played(gym.Env):
    """Shows the same observations in every episode."""

    observation_space, action_space = gym.spaces.Box(-9, 9, (4,)), gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.taken: list[int] = []
        return SEEN[0], {}

    def step(self, action: Any) -> Any:
        self.taken.append(int(action))
        return SEEN[min(len(self.taken), len(SEEN) - 1)], 0.0, False, len(self.taken) == len(SEEN), {}


def episodes(policy: Any) -> list[list[int]]:
    """Return the actions of two episodes."""
    env, taken = SubPolicyAction(Played(), [policy], hold=1, meter=ComputeMeter()), []
    for _ in range(2):
        env.reset()
        for _ in SEEN:
            env.step(0)
        taken.append(env.unwrapped.taken)
    return taken


def test_a_policy_of_tianshou_remembers() -> None:
    pytest.importorskip("tianshou")
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.data import Batch
    from tianshou.utils.net.common import Recurrent

    from budget_wrappers.integrations.tianshou import as_sub_policy

    for seed in range(20):
        torch.manual_seed(seed)
        net = Recurrent(layer_num=1, state_shape=4, action_shape=2, hidden_layer_size=8)
        for parameter in net.parameters():
            parameter.data *= 5
        spaces = {"action_space": Played.action_space, "observation_space": Played.observation_space}
        policy = DiscreteQLearningPolicy(model=net, **spaces).eval()
        state, expected = None, []
        with torch.no_grad():
            for obs in SEEN:
                acted = policy(Batch(obs=obs[None], info=Batch()), state)
                state = acted.state
                expected.append(int(acted.act[0]))
            alone = [int(policy(Batch(obs=obs[None], info=Batch())).act[0]) for obs in SEEN]
        if alone != expected:
            break
    assert alone != expected
    assert episodes(as_sub_policy(policy)) == [expected] * 2


def test_a_policy_of_torchrl_remembers() -> None:
    pytest.importorskip("torchrl")
    from tensordict.nn import TensorDictModule, TensorDictSequential
    from torchrl.envs import GymWrapper, InitTracker, TransformedEnv
    from torchrl.modules import LSTMModule, QValueModule

    from budget_wrappers.integrations.torchrl import as_sub_policy

    torch.manual_seed(0)
    lstm = LSTMModule(input_size=4, hidden_size=8, in_key="observation", out_key="embed")
    for parameter in lstm.parameters():
        parameter.data *= 4
    env = TransformedEnv(GymWrapper(gym.make("CartPole-v1")), InitTracker())
    env.append_transform(lstm.make_tensordict_primer())
    head = nn.Linear(8, 2)
    parts = TensorDictModule(head, in_keys=["embed"], out_keys=["action_value"]), QValueModule(spec=env.action_spec)
    policy = as_sub_policy(TensorDictSequential(lstm, *parts), env)
    with torch.no_grad():
        remembered, _ = lstm.lstm(torch.as_tensor(np.stack(SEEN))[None])  # (1, 12, 8): one sequence
        expected = head(remembered[0]).argmax(-1).tolist()
        alone = head(lstm.lstm(torch.as_tensor(np.stack(SEEN))[:, None])[0][:, 0]).argmax(-1).tolist()
    assert alone != expected
    assert episodes(policy) == [expected] * 2
