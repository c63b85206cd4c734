"""Networks of every kind that has hidden units, small: what gates and removals are held against."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agents.dqn import DuelingQNetwork, QNetwork
from agents.nets.mlp import MLP
from agents.nets.networks import Critic, DeterministicActor, GaussianActor
from budget_wrappers.modules.exits import EarlyExitNetwork


class Functional(nn.Module):
    """As scripts write them: layers as members, activations as functions, two heads on one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 8), nn.Linear(8, 6)
        self.mean, self.log_std = nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.fc2(torch.tanh(self.fc1(x)).relu()))
        return self.mean(x), torch.tanh(self.log_std(x))


class Joined(nn.Module):
    """Units of two layers side by side, behind two numbers that are no units."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.top = nn.Linear(3, 8), nn.Linear(3, 6), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, :2], torch.relu(self.left(x)), F.silu(self.right(x))]
        return self.top(torch.cat(parts, 1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "perceptron": lambda: MLP((3, 8, 6, 2), "tanh"),
    "gaussian": lambda: GaussianActor(3, 2, (8, 6), "relu"),
    "deterministic": lambda: DeterministicActor(3, 2, (8, 6), "tanh"),
    "critic": lambda: Critic(3, 2, (8, 6), "relu", heads=2),
    "values": lambda: QNetwork(3, 4, (8, 6), "relu"),
    "dueling": lambda: DuelingQNetwork(3, 4, (8, 6), "relu"),
    "exits": lambda: EarlyExitNetwork(3, 2, (8, 6)),
    "sparse exits": lambda: EarlyExitNetwork(3, 2, (8, 6, 5), (0, 1, 3)),
    "batch norm": lambda: nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 6, bias=False), nn.ReLU(), nn.Linear(6, 2)
    ),
    "functions": Functional,
    "joined": Joined,
}
"""Name -> a function that makes it; each takes rows of 3 numbers, a critic 2 numbers of action, too."""


def network(name: str, seed: int = 0) -> nn.Module:
    """Return the network of that name; batch norms have seen some data."""
    torch.manual_seed(seed)
    made = NETWORKS[name]()
    if name == "batch norm":
        for _ in range(3):
            made(torch.randn(32, 3) * 2 + 1)
    return made.eval()


def inputs(name: str, rows: int = 7) -> tuple[Tensor, ...]:
    """Return rows that the network takes."""
    generator = torch.Generator().manual_seed(1)
    sizes = (3, 2) if name == "critic" else (3,)
    return tuple(torch.randn(rows, size, generator=generator) for size in sizes)


def said(module: nn.Module, name: str, rows: int = 7) -> Tensor:
    """Return everything that it says, as one vector."""
    output = module(*inputs(name, rows))
    parts = output if isinstance(output, tuple) else (output,)
    return torch.cat([part.flatten() for part in parts])
