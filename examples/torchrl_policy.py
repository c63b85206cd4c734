"""Meter a TorchRL policy: a DQN on CartPole, the cost of acting in every tensordict, learning counted apart."""

import gymnasium as gym
import torch
from tensordict.nn import TensorDictSequential
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.modules import MLP, EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, SoftUpdate

from budget_wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, get_meter
from budget_wrappers.integrations.torchrl import learning, metered, wrap_env

torch.manual_seed(0)
limited = ComputeLimit(gym.make("CartPole-v1"), max_flops=10_000_000, on_exhausted="truncate")
env = wrap_env(RecordComputeStatistics(ComputePenaltyReward(limited, weight=1e-5)))
env.set_seed(0)

net = MLP(in_features=4, out_features=2, num_cells=[32, 32])
greedy = QValueActor(net, in_keys=["observation"], spec=env.action_spec)
exploring = EGreedyModule(spec=env.action_spec, annealing_num_steps=300)
policy = metered(TensorDictSequential(greedy, exploring))

loss_module = DQNLoss(greedy, action_space=env.action_spec, delay_value=True)
loss_module.make_value_estimator(gamma=0.99)
target, optimizer = SoftUpdate(loss_module, eps=0.95), torch.optim.Adam(loss_module.parameters(), lr=1e-3)
buffer = ReplayBuffer(storage=LazyTensorStorage(1000), batch_size=32)

for _ in range(30):
    data = env.rollout(10, policy, break_when_any_done=False)
    exploring.step(10)
    buffer.extend(data.select("observation", "action", "next"))
    if len(buffer) < 32:
        continue
    batch = buffer.sample()
    with learning(policy, key="dqn"):  # loss and backward; the key says that every update costs the same
        loss_module(batch)["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()
    target.step()

totals = get_meter("policy").totals
print(f"acting {totals['act']:,} FLOPs, learning {totals['learn']:,} FLOPs (matmul)")

# From here on an episode may spend 20 actions of 2·(4·32 + 32·32 + 32·2) = 2,432 FLOPs.
start = env.reset(options={"budget": 20 * 2_432})
with torch.no_grad():
    episode = env.rollout(500, policy, auto_reset=False, tensordict=start)
end = episode[-1]["next", "compute"]
print(f"{end['flops_per_step'].item():.0f} FLOPs a step in {len(episode)} steps")
print(f"return {end['return_raw'].item():.0f}, {end['return_penalised'].item():.2f} after the penalty")
