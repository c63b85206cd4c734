"""A single-file DQN in CleanRL's style that is pruned while it learns, by the lines marked with ``# +``."""

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

from budget_wrappers.modules.unit_loop import UnitPruning
from budget_wrappers.modules.unit_pruning import UnitSchedule

SEED, TOTAL_STEPS, LEARNING_STARTS, BATCH, GAMMA, TARGET_EVERY = 0, 1000, 100, 32, 0.99, 50
rng = np.random.default_rng(SEED)
torch.manual_seed(SEED)


class QNetwork(nn.Module):
    """Values of all actions; its activations are functions and not modules."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(int(np.prod(env.observation_space.shape)), 120), nn.Linear(120, 84)
        self.head = nn.Linear(84, int(env.action_space.n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.fc2(F.relu(self.fc1(x)))))


env = gym.make("CartPole-v1")
env.action_space.seed(SEED)
q_network, target_network = QNetwork(env), QNetwork(env)
target_network.load_state_dict(q_network.state_dict())
optimizer = optim.Adam(q_network.parameters(), lr=1e-3)
pruning = UnitPruning(  # +
    q_network,
    optimizer,
    torch.zeros(1, 4),
    total_updates=TOTAL_STEPS - LEARNING_STARTS,
    max_parameters=1000,
    targets=target_network,
    schedule=UnitSchedule(prune_every=50),
)
print(f"at first {sum(parameter.numel() for parameter in q_network.parameters())} parameters")
buffer: list[tuple[np.ndarray, ...]] = []

obs, _ = env.reset(seed=SEED)
for global_step in range(TOTAL_STEPS):
    epsilon = max(0.05, 1 - global_step / (0.5 * TOTAL_STEPS))
    if rng.random() < epsilon:
        action = env.action_space.sample()
    else:
        with torch.no_grad():  # what acts without gradients is multiplied by θ and draws nothing
            action = int(q_network(torch.Tensor(obs)[None]).argmax())
    next_obs, reward, terminated, truncated, _ = env.step(action)
    buffer.append((obs, np.int64([action]), np.float32([reward]), next_obs, np.float32([terminated])))
    obs = next_obs
    if terminated or truncated:
        obs, _ = env.reset()
    if global_step < LEARNING_STARTS:
        continue
    rows = [buffer[i] for i in rng.integers(len(buffer), size=BATCH)]
    observations, actions, rewards, next_observations, dones = (
        torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)
    )
    with torch.no_grad():
        best = target_network(next_observations).amax(1, keepdim=True)
    loss = F.mse_loss(q_network(observations).gather(1, actions), rewards + GAMMA * best * (1 - dones))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    pruning.step()  # +
    if global_step % TARGET_EVERY == 0:
        target_network.load_state_dict(q_network.state_dict())
        pruning.follow_targets()  # +
    if global_step % 200 == 0:
        print(f"step {global_step}: {pruning.units} hidden units, {pruning.stage}")

print(f"at last {pruning.parameters} parameters: {q_network}")
