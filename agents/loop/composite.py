"""An agent made of several agents, such as two policies and a master that chooses between them."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from agents.loop.agent import OffPolicyAgent
from agents.loop.header import COUNTERS
from agents.nets.kept import Kept


class CompositeAgent(OffPolicyAgent):
    """Base of agents that consist of parts, which are agents themselves: what checkpoints and evaluations see."""

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, OffPolicyAgent]:
        """The agents by name."""

    @property
    def own_modules(self) -> Mapping[str, nn.Module]:
        return {f"{name}.{key}": part for name, agent in self.parts.items() for key, part in agent.own_modules.items()}

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Every network of the parts, and what their methods keep in tensors."""
        return {f"{name}.{key}": part for name, agent in self.parts.items() for key, part in agent.modules.items()}

    @property
    def own_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {f"{name}.{key}": part for name, agent in self.parts.items() for key, part in agent.optimizers.items()}

    @property
    def acting_counts(self) -> list[np.ndarray]:
        """What the parts' methods count of who acted, in place."""
        return [counts for agent in self.parts.values() for counts in agent.acting_counts]

    def structure_changed(self, kept: Kept | None = None) -> None:
        """Follow after layers of the parts have changed size; see ``OffPolicyAgent``."""
        for agent in self.parts.values():
            agent.structure_changed(kept)

    def plain_state(self) -> dict[str, Any]:
        return {
            name: {**{key: getattr(agent, key) for key in COUNTERS}, **agent.plain_state()}
            for name, agent in self.parts.items()
        }

    def load_plain_state(self, state: Mapping[str, Any]) -> None:
        for name, agent in self.parts.items():
            for key in COUNTERS:
                setattr(agent, key, state[name][key])
            agent.load_plain_state(state[name])
