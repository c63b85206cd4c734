"""A single-file SAC in CleanRL's style, metered by the lines marked with ``# +``; the rest is as it was."""

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

from budget_wrappers import ComputePenaltyReward, RecordComputeStatistics, get_meter
from budget_wrappers.integrations.cleanrl import as_sub_policy, learns

SEED, TOTAL_STEPS, LEARNING_STARTS, BATCH, GAMMA, TAU, ALPHA = 0, 400, 100, 64, 0.99, 0.005, 0.2
rng = np.random.default_rng(SEED)
torch.manual_seed(SEED)


class Actor(nn.Module):
    """A Gaussian policy, squashed into the bounds of the actions."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__()
        inputs, outputs = int(np.prod(env.observation_space.shape)), int(np.prod(env.action_space.shape))
        self.fc1, self.fc2 = nn.Linear(inputs, 64), nn.Linear(64, 64)
        self.fc_mean, self.fc_logstd = nn.Linear(64, outputs), nn.Linear(64, outputs)
        self.register_buffer("action_scale", torch.tensor((env.action_space.high - env.action_space.low) / 2))
        self.register_buffer("action_bias", torch.tensor((env.action_space.high + env.action_space.low) / 2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.fc_mean(x), self.fc_logstd(x).clamp(-5, 2)

    def get_action(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, log_std = self(x)
        normal = torch.distributions.Normal(mean, log_std.exp())
        x_t = normal.rsample()
        y_t = torch.tanh(x_t)
        log_prob = (normal.log_prob(x_t) - torch.log(self.action_scale * (1 - y_t**2) + 1e-6)).sum(1, keepdim=True)
        return (
            y_t * self.action_scale + self.action_bias,
            log_prob,
            torch.tanh(mean) * self.action_scale + self.action_bias,
        )


def critic(inputs: int) -> nn.Sequential:
    """Return a network of values of observations and actions."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


env = gym.make("Pendulum-v1", max_episode_steps=100)
env = RecordComputeStatistics(ComputePenaltyReward(env, weight=1e-5))  # +
actor = Actor(env)
qf1, qf2, qf1_target, qf2_target = (critic(4) for _ in range(4))
qf1_target.load_state_dict(qf1.state_dict())
qf2_target.load_state_dict(qf2.state_dict())
q_optimizer = optim.Adam([*qf1.parameters(), *qf2.parameters()], lr=1e-3)
actor_optimizer = optim.Adam(actor.parameters(), lr=3e-4)
buffer: list[tuple[np.ndarray, ...]] = []

meter = get_meter("policy")  # +
meter.watch(actor, "actor", static=True)  # +


@learns(meter, key=lambda batch, turn: turn)  # +
def update(batch: list[torch.Tensor], actors_turn: bool) -> None:
    """Take one step of the critics, and one of the actor where it is its turn."""
    obs, actions, rewards, next_obs, terminated = batch
    with torch.no_grad():
        next_actions, next_log_pi, _ = actor.get_action(next_obs)
        next_inputs = torch.cat([next_obs, next_actions], 1)
        next_q = torch.min(qf1_target(next_inputs), qf2_target(next_inputs)) - ALPHA * next_log_pi
        target = rewards + (1 - terminated) * GAMMA * next_q
    inputs = torch.cat([obs, actions], 1)
    q_loss = F.mse_loss(qf1(inputs), target) + F.mse_loss(qf2(inputs), target)
    q_optimizer.zero_grad()
    q_loss.backward()
    q_optimizer.step()
    if actors_turn:
        pi, log_pi, _ = actor.get_action(obs)
        inputs = torch.cat([obs, pi], 1)
        actor_loss = (ALPHA * log_pi - torch.min(qf1(inputs), qf2(inputs))).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()
    for net, net_target in ((qf1, qf1_target), (qf2, qf2_target)):
        for param, target_param in zip(net.parameters(), net_target.parameters(), strict=True):
            target_param.data.lerp_(param.data, TAU)


obs, _ = env.reset(seed=SEED)
for global_step in range(TOTAL_STEPS):
    if global_step < LEARNING_STARTS:
        action = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
    else:
        with meter.phase("act"):  # +
            action = actor.get_action(torch.Tensor(obs)[None])[0][0].detach().numpy()
    next_obs, reward, terminated, truncated, info = env.step(action)
    buffer.append((obs, action, np.float32([reward]), next_obs, np.float32([terminated])))
    obs = next_obs
    if terminated or truncated:
        account = info["compute"]
        print(
            f"step {global_step + 1}: return {account['return_raw']:.0f} ({account['return_penalised']:.0f} penalised)"
        )
        obs, _ = env.reset()
    if global_step >= LEARNING_STARTS:
        rows = [buffer[i] for i in rng.integers(len(buffer), size=BATCH)]
        update([torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)], global_step % 2 == 0)

print(f"acting {meter.totals['act']:,} FLOPs, learning {meter.totals['learn']:,} FLOPs (matmul)")
print(as_sub_policy(actor, "sac", example=obs))
