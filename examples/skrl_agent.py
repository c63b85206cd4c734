"""Plug in somebody else's agent: meter skrl's SAC in one line, then let its DQN choose between two policies."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from skrl.agents.torch import Agent
from skrl.agents.torch.dqn import DQN
from skrl.agents.torch.sac import SAC
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer
from torch import nn

from budget_wrappers import RecordComputeStatistics, SubPolicyAction, get_meter
from budget_wrappers.integrations.skrl import as_sub_policy, metered, unmeter
from budget_wrappers.policies import FunctionPolicy

CFG = {
    "learning_starts": 50,
    "random_timesteps": 50,
    "experiment": {"write_interval": 0, "checkpoint_interval": 0},
}


class Policy(GaussianMixin, Model):
    """A Gaussian policy with a spread of its own."""

    def __init__(self, **spaces: Any) -> None:
        Model.__init__(self, **spaces, device="cpu")
        GaussianMixin.__init__(self, clip_actions=True)
        self.net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.zeros(1))

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        """Return mean actions and their spread."""
        mean = 2 * torch.tanh(self.net(inputs["observations"]))
        return mean, {"log_std": self.log_std.expand_as(mean)}


class Values(DeterministicMixin, Model):
    """Values of an observation and action together, or of each discrete action."""

    def __init__(self, inputs: int, outputs: int, **spaces: Any) -> None:
        Model.__init__(self, **spaces, device="cpu")
        DeterministicMixin.__init__(self)
        self.net = nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        """Return values."""
        given = [inputs[key] for key in ("observations", "taken_actions") if key in inputs]
        return self.net(torch.cat(given, 1)), {}


def train(agent: Agent, env: gym.Env, steps: int) -> None:
    """Train ``agent`` for some steps."""
    cfg = {"timesteps": steps, "headless": True, "disable_progressbar": True, "close_environment_at_exit": False}
    SequentialTrainer(env=wrap_env(env, verbose=False), agents=agent, cfg=cfg).train()


def parts(env: gym.Env) -> dict[str, Any]:
    """Return what every agent of skrl is given."""
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    return {**spaces, "memory": RandomMemory(memory_size=1_000, device="cpu"), "device": "cpu"}


torch.manual_seed(0)
env = RecordComputeStatistics(gym.make("Pendulum-v1"))
spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
critics = ("critic_1", "critic_2", "target_critic_1", "target_critic_2")
models = {"policy": Policy(**spaces), **{name: Values(4, 1, **spaces) for name in critics}}
sac = metered(SAC(models=models, cfg=CFG, **parts(env)))
train(sac, env, 300)
totals = get_meter("policy").totals
print(f"acting {totals['act']:,} FLOPs, learning {totals['learn']:,} FLOPs (matmul)")
unmeter(sac)  # nothing is left on the agent

# Two policies become the actions of a third agent, which is unmodified: it learns when the dear one is worth its FLOPs.
rest = FunctionPolicy(lambda observation: np.zeros(1, np.float32), flops=100, name="rest")
options = RecordComputeStatistics(
    SubPolicyAction(gym.make("Pendulum-v1"), [rest, as_sub_policy(sac, "sac")], hold=5, weight=0.001)
)
spaces = {"observation_space": options.observation_space, "action_space": options.action_space}
networks = {name: Values(3, 2, **spaces) for name in ("q_network", "target_q_network")}
train(metered(DQN(models=networks, cfg=CFG, **parts(options))), options, 150)
print({name: f"{flops:,}" for name, flops in get_meter("policy").totals.by_name.items()})
