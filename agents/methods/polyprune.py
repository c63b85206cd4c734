"""PolyPruneQN and PolyPruneSAC ("Eau De Q-Network"): the smallest weights become 0, by a polynomial schedule."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agents.config import require
from agents.loop.method import Method
from agents.methods.polyprune_config import PolyPruneConfig, schedules_of
from budget_wrappers.modules.masks import MaskSet, ScheduledMasks
from budget_wrappers.modules.surgery import Kept


class PolyPrune(Method):
    """Masks on critics, on DQN's network, if asked on the actor: grown before an update, applied after each."""

    name, config_class = "polyprune", PolyPruneConfig
    config: PolyPruneConfig

    def build(self, agent: Any) -> None:
        networks, (main, actor) = agent.own_modules, schedules_of(self.config)
        named, distribution = "critic" if "critic" in networks else "q_network", self.config.distribution
        require(named in networks, "methods", [self.name], f"agents with critics or a network of values, not {agent!r}")
        require(named == "critic" or not actor.final, "actor_final", actor.final, "0: final is of the one network")
        require(
            named == "q_network" or not self.config.at_targets,
            "at_targets",
            self.config.at_targets,
            "False for an agent with critics, whose targets move a little at every update",
        )
        plans = {name: plan for name, plan in ((named, main), ("actor", actor)) if plan.final}
        masks = {
            name: ScheduledMasks(networks[name], plan, distribution, agent.example_inputs(name))
            for name, plan in plans.items()
        }
        self.masks = MaskSet(masks)

    def modules(self, agent: Any) -> Mapping[str, nn.Module]:
        return self.masks

    def before_update(self, agent: Any) -> None:
        due = not self.config.at_targets and (agent.num_updates + 1) % self.config.every == 0
        self.masks.grow(agent.progress, due)

    def after_target(self, agent: Any) -> None:
        if self.config.at_targets:
            self.masks.grow(agent.progress, due=True)
            self.masks.apply_()

    def after_update(self, agent: Any) -> None:
        self.masks.apply_()

    def structure_changed(self, agent: Any, kept: Kept | None = None) -> None:
        self.masks.follow(kept)

    def logged(self, agent: Any) -> Mapping[str, Tensor]:
        found = {f"sparsity/{name}": share for name, share in self.masks.sparsity().items()}
        for name, share in self.masks.effective_sparsity().items():
            found[f"sparsity/{name}/effective"] = torch.tensor(share)
        return found
