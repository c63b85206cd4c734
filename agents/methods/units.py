"""Units that learn whether they are needed (XiNet), as a method of any agent: networks get smaller while they learn.

Source: "Online Training and Pruning of Deep Reinforcement Learning Networks". ``UnitPruner`` has the mathematics; here
it meets an agent: θ step down the losses of the networks that they are of, targets follow, and what is removed leaves
optimizers, averages, meters and engines with it.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agents.config import require
from agents.loop.method import Method
from agents.loop.restoring import RESTORING
from agents.methods.units_config import UnitsConfig, schedule_of
from agents.nets.kept import Kept
from agents.nets.optim import FusedAdam
from agents.nets.td import MovingAverage
from budget_wrappers.errors import CheckpointError, ComputeWarning, ConfigError, InfeasibleBudgetError
from budget_wrappers.functional.units import RATE, rate_for
from budget_wrappers.metering.device_profile import DeviceProfile
from budget_wrappers.modules.surgery import merged
from budget_wrappers.modules.unit_pruning import (
    UnitPruner,
    flops_at_most,
    microseconds_at_most,
    parameters_at_most,
    unit_groups,
)


class ThetaAdam(FusedAdam):
    """Adam on θ, after whose steps they are in [0, 1]; the price of the size joins the gradients it is given.

    Args:
        pruner: whose θ step.
        lr: step size.
    """

    def __init__(self, pruner: UnitPruner, lr: float) -> None:
        super().__init__([{"params": pruner.gates, "bounds": (0.0, 1.0)}], lr=lr)
        self._pruner = pruner

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """Update θ from the derivatives of the loss with respect to ξ, and from the price."""
        super().apply(torch._foreach_add(list(gradients), self._pruner.slopes()))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the pruner whose θ these are."""
        return {**super().__getstate__(), "_pruner": self._pruner}


class ThetaDescent(torch.optim.SGD):
    """Plain projected gradient steps on θ; see ``ThetaAdam``."""

    def __init__(self, pruner: UnitPruner, lr: float) -> None:
        super().__init__(pruner.gates.parameters(), lr=lr)
        self._pruner = pruner

    @property
    def parameters(self) -> list[Tensor]:
        """The θ."""
        return self.param_groups[0]["params"]

    @torch.no_grad()
    def apply(self, gradients: Sequence[Tensor]) -> None:
        """Update θ from the derivatives of the loss with respect to ξ, and from the price."""
        rate = self.param_groups[0]["lr"]
        for theta, gradient, slope in zip(self.parameters, gradients, self._pruner.slopes(), strict=True):
            theta.sub_(rate * (gradient + slope)).clamp_(0.0, 1.0)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the pruner whose θ these are."""
        return {**super().__getstate__(), "_pruner": self._pruner}


@dataclass
class _Pruned:
    """One network of the agent whose units learn.

    Attributes:
        name: of the network, in ``agent.own_modules`` and ``agent.own_optimizers``.
        pruner: of its units.
        optimizer: of its θ.
        every: updates of the agent for one step of the network.
    """

    name: str
    pruner: UnitPruner
    optimizer: ThetaAdam | ThetaDescent
    every: int


class Units(Method):
    """Hidden units that learn whether they are needed, in what acts and, if asked, in the critics.

    Args:
        settings: keys of ``UnitsConfig``.

    Raises:
        ConfigError: an unknown key or a value out of bounds.

    Example:
        >>> import gymnasium as gym
        >>> from agents import SAC
        >>> agent = SAC(gym.make("Pendulum-v1"), methods=[Units(max_parameters=2000)])
        >>> agent.units_of("actor")
        [256, 256]
    """

    name = "units"
    config_class = UnitsConfig
    config: UnitsConfig
    offers = ("units_of", "parameters_of")

    def build(self, agent: Any) -> None:
        config, networks = self.config, agent.own_modules
        self._pruned: list[_Pruned] = []
        self._in_the_way: Exception | None = None
        acting = next((name for name in ("actor", "q_network") if name in networks), None)
        require(acting is not None, "methods", [self.name], f"an agent with an actor or values, not {agent!r}")
        critics = bool(config.critic_unit_penalty or config.max_critic_parameters)
        require(
            not critics or "critic" in networks,
            "max_critic_parameters" if config.max_critic_parameters else "critic_unit_penalty",
            config.max_critic_parameters or config.critic_unit_penalty,
            "0 for an agent without critics: max_parameters is of its one network",
        )
        every = getattr(agent.config, "policy_delay", 1)
        self._add(agent, acting, self._limit(), config.unit_penalty, every)
        if critics:
            most = config.max_critic_parameters
            limit = parameters_at_most(most) if most else None
            self._add(agent, "critic", limit, config.critic_unit_penalty or config.unit_penalty, 1)

    def _limit(self) -> Any:
        """Return what acts may cost in the end, ``None`` without a limit."""
        config = self.config
        if config.max_parameters:
            return parameters_at_most(config.max_parameters)
        if config.max_latency_us:
            try:
                device = DeviceProfile.load(config.device_profile)
            except CheckpointError as error:
                self._postpone(error)
                return None
            return microseconds_at_most(config.max_latency_us, device)
        return flops_at_most(config.max_flops) if config.max_flops else None

    def _postpone(self, error: Exception) -> None:
        """Raise what stands in the way of training; of an agent that a file holds only when it trains on.

        It may act on a machine that has not the profile of another, or is slower.
        """
        if not RESTORING.get():
            raise error
        self._in_the_way = error

    def before_update(self, agent: Any) -> None:
        """Raise what was in the way of keeping the size, unless all is decided."""
        if self._in_the_way is not None and self._pruned[0].pruner.stage != "fixed":
            raise self._in_the_way

    def _add(self, agent: Any, name: str, limit: Any, penalty: float, every: int) -> None:
        module = agent.own_modules[name]
        given = agent.example_inputs(name)
        groups = unit_groups(module, *given)
        require(bool(groups), "net_arch", agent.config.net_arch, f"a hidden layer in the {name}, whose units can learn")
        targets = [unit_groups(average.target, *given) for average in self._averages(agent, module)]
        schedule = schedule_of(self.config)
        made = functools.partial(UnitPruner, module, groups, targets, penalty=penalty, schedule=schedule)
        try:
            pruner = made(limit=limit, generator=agent.generator)
        except InfeasibleBudgetError as error:
            self._postpone(error)
            pruner = made(generator=agent.generator)
        rate = RATE if self.config.unit_learning_rate == "auto" else self.config.unit_learning_rate
        kind = ThetaAdam if self.config.unit_optimizer == "adam" else ThetaDescent
        self._pruned.append(_Pruned(name, pruner, kind(pruner, rate), every))

    @staticmethod
    def _averages(agent: Any, module: nn.Module) -> list[MovingAverage]:
        """Return the averages that follow ``module``."""
        return [average for average in agent.averages if average.online is module]

    def start_metering(self, agent: Any) -> None:
        """Check that each network is stepped by one optimizer, now that every method has made its own."""
        for one in self._pruned:
            if one.name not in agent.optimizers:
                raise ConfigError(
                    f"units of the {one.name}, which {', '.join(agent.optimizers)} step apart: expected one optimizer; "
                    "with exits, set scheme='jointly'"
                )

    def optimizers(self, agent: Any, own: Mapping[str, torch.optim.Optimizer]) -> Mapping[str, torch.optim.Optimizer]:
        return {**own, **{f"units of {one.name}": one.optimizer for one in self._pruned}}

    def modules(self, agent: Any) -> Mapping[str, nn.Module]:
        found: dict[str, nn.Module] = {}
        for one in self._pruned:
            found[one.name] = one.pruner.gates
            found |= {f"{one.name}_target{n or ''}": gates for n, gates in enumerate(one.pruner.target_gates)}
        return found

    # ---- learning ---------------------------------------------------------------------------------------------------

    def after_target(self, agent: Any) -> None:
        for one in self._pruned:
            for average in self._averages(agent, agent.own_modules[one.name]):
                one.pruner.follow_targets(average.tau)

    def after_update(self, agent: Any) -> None:
        """Begin, go on or end, as the run's progress says; what was removed leaves the agent."""
        found: list[Kept] = []
        for one in self._pruned:
            kept = one.pruner.advance(agent.progress, agent.num_updates)
            if kept is not None:
                found.append(kept)
                self._join(agent, one)
        if found:
            agent.structure_changed(merged(*found))

    def after_learning(self, agent: Any) -> None:
        """Keep the size in runs that ended with no update in their last part, and say so; without any, say so alone."""
        found: list[Kept] = []
        for one in self._pruned:
            if one.pruner.stage == "fixed":
                continue
            kept = "so the size was kept by what θ were" if agent.num_updates else "so the network has all its units"
            warnings.warn(
                f"The units of the {one.name} were {one.pruner.stage} when training ended: its updates were too few or "
                f"too late for them to learn, {kept}. Train longer, or begin to learn earlier.",
                ComputeWarning,
                stacklevel=3,
            )
            if agent.num_updates:
                found.append(one.pruner.fix())
                self._join(agent, one)
        if found:
            agent.structure_changed(merged(*found))

    def _join(self, agent: Any, one: _Pruned) -> None:
        """Let θ step beside the network's weights while they learn, and only then."""
        beside = agent.own_optimizers[one.name].beside
        learning = one.pruner.stage == "learning"
        if learning and one.optimizer not in beside:
            beside.append(one.optimizer)
            if self.config.unit_learning_rate == "auto":
                one.optimizer.param_groups[0]["lr"] = rate_for(self._steps_to_come(agent, one.every))
        elif not learning and one.optimizer in beside:
            beside.remove(one.optimizer)

    def _steps_to_come(self, agent: Any, every: int) -> float:
        """Return how often θ will step while they learn."""
        config, envs = agent.config, getattr(agent.env, "num_envs", 1)
        a_step = 1.0 if agent.offline else config.updates_of_round(envs) / (config.train_freq * envs)
        share = self.config.fix_from - max(self.config.learn_from, agent.progress)
        return max(agent.total_timesteps * a_step * share / every, 1.0)

    def update_kind(self, agent: Any) -> str:
        return self._pruned[0].pruner.stage

    # ---- accounts and state -----------------------------------------------------------------------------------------

    def structure_changed(self, agent: Any, kept: Kept | None = None) -> None:
        for gates in self.modules(agent).values():
            gates.follow()

    def units_of(self, name: str = "actor") -> list[int]:
        """Return how many units each hidden layer of a network has now.

        Args:
            name: ``"actor"`` for what acts, or ``"critic"``.

        Raises:
            ConfigError: that network's units do not learn.
        """
        return self._named(name).pruner.gates.counts()

    def parameters_of(self, name: str = "actor") -> int:
        """Return how many parameters a network has now; see ``units_of``."""
        pruner = self._named(name).pruner
        return int(pruner.size.parameters(pruner.gates.counts()))

    def _named(self, name: str) -> _Pruned:
        for place, one in enumerate(self._pruned):
            if name == one.name or (name == "actor" and place == 0):
                return one
        names = ", ".join(one.name for one in self._pruned)
        raise ConfigError(
            f"the units of {name!r}: expected one of {names}; set critic_unit_penalty to let critics' learn"
        )

    def logged(self, agent: Any) -> Mapping[str, Tensor]:
        found: dict[str, Tensor] = {}
        for one in self._pruned:
            pruner, prefix = one.pruner, f"units/{one.name}"
            theta = torch.cat([own.detach() for own in pruner.gates.theta])
            expected = [float(own.detach().sum()) for own in pruner.gates.theta]
            found[f"{prefix}/expected"] = torch.tensor(float(pruner.size.parameters(expected)))
            found[f"{prefix}/parameters"] = torch.tensor(float(self.parameters_of(one.name)))
            found[f"{prefix}/undecided"] = ((theta > 0.05) & (theta < 0.95)).float().mean()
            found[f"{prefix}/penalty"] = torch.tensor(pruner.penalty_weight)
            for layer, units in enumerate(pruner.gates.counts()):
                found[f"{prefix}/layer{layer + 1}"] = torch.tensor(float(units))
        return found

    def plain_state(self, agent: Any) -> Mapping[str, Any]:
        return {"units": {one.name: one.pruner.state_dict() for one in self._pruned}}

    def load_plain_state(self, agent: Any, state: Mapping[str, Any]) -> None:
        for one in self._pruned:
            try:
                one.pruner.load_state_dict(state["units"][one.name])
            except ConfigError as error:
                raise CheckpointError(f"the units of the {one.name}: {error}") from error
            rate = one.optimizer.param_groups[0]["lr"]
            self._join(agent, one)
            one.optimizer.param_groups[0]["lr"] = rate
        if agent.numpy_forward is not None:
            agent.numpy_forward.follow()


__all__ = ["ThetaAdam", "ThetaDescent", "Units"]
