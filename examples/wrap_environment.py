"""Make what acting costs visible, part of the reward, and limited: three wrappers and one line beside the policy."""

import gymnasium as gym
import torch

from budget_wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, get_meter

policy = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2))

# Any torch policy: the meter counts each forward of the module that acts.
get_meter("policy").watch(policy)

env = gym.make("CartPole-v1")
env = ComputePenaltyReward(env, weight=1e-4)  # reward − 0.0001 · FLOPs
env = ComputeLimit(env, max_flops=10_000, on_exhausted="truncate")  # FLOPs of one episode
env = RecordComputeStatistics(env)  # info["cost"], info["compute"]

observation, info = env.reset(seed=0)
ended = False
while not ended:
    with torch.no_grad():
        action = int(policy(torch.as_tensor(observation).unsqueeze(0)).argmax())
    observation, reward, terminated, truncated, info = env.step(action)
    ended = terminated or truncated

# 2·(4·32 + 32·2) = 384 FLOPs a step: products only, the "matmul" convention.
print(f"last step: reward {reward:.4f}, cost {info['cost']:.0f} FLOPs")
for key, value in info["compute"].items():
    print(f"  {key}: {value}")
