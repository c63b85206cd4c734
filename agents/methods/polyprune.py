"""PolyPruneQN and PolyPruneSAC ("Eau De Q-Network"): the smallest weights become 0, by a polynomial schedule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from agents.config import require
from agents.loop.method import Method, MethodConfig
from budget_wrappers.functional.sparsity import Distribution, PolynomialSchedule
from budget_wrappers.modules.masks import MaskSet, ScheduledMasks
from budget_wrappers.modules.surgery import Kept


@dataclass(frozen=True)
class PolyPruneConfig(MethodConfig):
    """Configuration of PolyPrune. Defaults are the published ones.

    Attributes:
        final: sparsity of the critics, of DQN its network's, once pruning is complete; biases are kept.
        power: exponent of the schedule.
        start: share of the run after which pruning begins.
        end: share of the run at which it is complete.
        every: updates between two growths of the masks; at the end they grow in any case.
        distribution: shares of the layers, see ``budget_wrappers.functional.sparsity.Distribution``.
        actor_final: sparsity of an actor beside critics; 0 leaves it dense.
        actor_start: see ``start``.
        actor_end: see ``end``.
    """

    final: float = 0.95
    power: float = 3.0
    start: float = 0.2
    end: float = 0.8
    every: int = 1_000
    distribution: Distribution = "erk"
    actor_final: float = 0.0
    actor_start: float = 0.2
    actor_end: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.every >= 1, "every", self.every, "at least 1 update")
        self.schedules()  # raises

    def schedules(self) -> tuple[PolynomialSchedule, PolynomialSchedule]:
        """Return that of the critics or of DQN's network, and the actor's."""
        main = PolynomialSchedule(self.start, self.end, self.final, self.power)
        return main, PolynomialSchedule(self.actor_start, self.actor_end, self.actor_final, self.power, "actor_")


class PolyPrune(Method):
    """Masks on critics, on DQN's network, if asked on the actor: grown before an update, applied after each."""

    name, config_class = "polyprune", PolyPruneConfig

    def build(self, agent: Any) -> None:
        networks, (main, actor) = agent.own_modules, self.config.schedules()
        named, distribution = "critic" if "critic" in networks else "q_network", self.config.distribution
        require(named in networks, "methods", [self.name], f"agents with critics or a network of values, not {agent!r}")
        require(named == "critic" or not actor.final, "actor_final", actor.final, "0: final is of the one network")
        plans = {name: plan for name, plan in ((named, main), ("actor", actor)) if plan.final}
        masks = {name: ScheduledMasks(networks[name], plan, distribution) for name, plan in plans.items()}
        self.masks = MaskSet(masks)

    def modules(self, agent: Any) -> Mapping[str, nn.Module]:
        return self.masks

    def before_update(self, agent: Any) -> None:
        self.masks.grow(agent.progress, due=(agent.num_updates + 1) % self.config.every == 0)

    def after_update(self, agent: Any) -> None:
        self.masks.apply_()

    def structure_changed(self, agent: Any, kept: Kept | None = None) -> None:
        self.masks.follow(kept)

    def logged(self, agent: Any) -> Mapping[str, Tensor]:
        return {f"sparsity/{name}": share for name, share in self.masks.sparsity().items()}
