"""Populations of critics or of Q-networks that become sparse at their own pace (EauDeQN), as a method of any agent.

Source: "Eau De Q-Network: Adaptive Distillation of Neural Networks in Deep RL". K networks learn side by side from one
target; now and then the best ones go on, and duplicates of them lose weights. The agent sees one network at a time,
through a window (``agents.nets.members``), so its own code trains, acts and judges with whichever member is shown.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import require
from agents.loop.method import ActorPass, Method
from agents.loop.restoring import RESTORING
from agents.methods.population_config import EVERY_TARGETS, EVERY_UPDATES, PopulationConfig, exploration_of
from agents.nets.kept import Kept
from agents.nets.members import Members
from agents.nets.optim import FusedAdam
from agents.nets.q_networks import QNetwork
from agents.nets.together import MeanDescent, StepTogether, batches_as_one_by_one
from agents.replay.buffers import Batch
from budget_wrappers.errors import CheckpointError, ConfigError
from budget_wrappers.selection import population as selection


class Population(Method):
    """K networks of values, or K critics of each of the twins, of which the best ones go on, ever sparser.

    Args:
        settings: keys of ``PopulationConfig``.

    Attributes:
        populations: one of the Q-networks, or one for each of the twins: losses, sparsities, who is crowned.

    Raises:
        ConfigError: an unknown key or a value out of bounds.

    Example:
        >>> import gymnasium as gym
        >>> from agents import DQN
        >>> agent = DQN(gym.make("CartPole-v1"), methods=[Population(members=5, max_growth="ambitious")])
        >>> agent.sparsity
        0.0
    """

    name = "population"
    config_class = PopulationConfig
    config: PopulationConfig
    one_target = True
    offers = ("populations", "sparsity", "sparsities")

    # ---- making an agent --------------------------------------------------------------------------------------------

    def require(self, agent: Any, env: Any) -> None:
        """Raise for an agent whose networks a population cannot be of."""
        says = getattr(agent, "says", None)
        require(says is not None, "methods", [self.name], f"an agent with critics or values, not {agent!r}")
        others = [held.name for held in agent.methods if held.name == "polyprune"]
        require(not others, "methods", [self.name, *others], "one of them: both prune the same networks")
        config, self._of_values = agent.config, says == "values"
        if self._of_values:
            require(config.tau == 1, "tau", config.tau, "1: the target is the crowned member, not a mean of several")
            require(not config.prioritized, "prioritized", config.prioritized, "False: each member has its own errors")
            unused, default = "generation_every", EVERY_UPDATES
        else:
            unused, default = "generation_targets", EVERY_TARGETS
        given = getattr(self.config, unused)
        require(given == default, unused, given, f"{default}: it is not of an agent that says {says}")

    def build(self, agent: Any) -> None:
        """Make the other members, each with weights of its own; the first one has the agent's."""
        config, rules = self.config, exploration_of(self.config)
        self._network = "q_network" if self._of_values else "critic"
        role = "actor" if self._of_values else "critic"
        others = [agent.another(role) for _ in range(config.members - 1)]
        windows = _seats(agent.own_modules[self._network])
        targets = [None] if self._of_values else _seats(agent.own_modules["target_critic"])
        seats = zip(windows, targets, *map(_seats, others), strict=True)
        self.members = [Members(window, own, target) for window, target, *own in seats]
        example = agent.example_inputs(self._network)
        for one in self.members:
            one.find_paths(*(example if self._of_values or len(self.members) == 1 else [torch.cat(example, 1)]))
        self.populations = [selection.Population(rules) for _ in self.members]
        self._moves = 0
        self._recorded: list[float] = []
        self._together: StepTogether | None = None

    def start_metering(self, agent: Any) -> None:
        """Bind the optimizer, now that every method has made its own, and let each target follow its member."""
        if self._network not in agent.optimizers:
            raise ConfigError(
                f"a population of the {self._network}, which {', '.join(agent.optimizers)} step apart: expected one "
                "optimizer; with exits, set scheme='jointly'"
            )
        if self._of_values:
            self.members[0].bind(agent.own_optimizers[self._network], 0)
            return
        settings = agent.own_optimizers["critic"].param_groups[0]
        # A group each, as members of the twins begin anew at times of their own.
        groups = [{"params": one.window} for one in self.members]
        agent.critic_optimizer = FusedAdam(groups, lr=settings["lr"], eps=settings["eps"])
        for group, one in enumerate(self.members):
            one.bind(agent.critic_optimizer, group)
        self._move_all_targets(agent)

    def _move_all_targets(self, agent: Any) -> None:
        """Let the critics' moving average move the target of every member, whichever is shown."""
        average = next(average for average in agent.averages if average.online is agent.own_modules["critic"])
        pairs = [one.averaged() for one in self.members]
        average.move(*([tensor for pair in pairs for tensor in pair[side]] for side in (0, 1)))

    def modules(self, agent: Any) -> Mapping[str, nn.Module]:
        return {f"members{seat or ''}": one for seat, one in enumerate(self.members)}

    # ---- learning ---------------------------------------------------------------------------------------------------

    def descend(self, agent: Any, losses: Callable[[], Tensor], max_norm: float | None) -> Tensor | None:
        """Take the gradient step of every Q-network, each down its own loss towards the one target."""
        if not self._of_values:
            return None
        self._together = self._all_at_once(agent)
        if self._together is None:
            return self._descend(agent, losses, max_norm)
        agent.learner = self._together
        try:
            loss = losses()
        finally:
            agent.learner = agent.q_network
        self._together.descend(loss.sum(), agent.optimizer, max_norm)
        for member, noted in enumerate(self._recorded):
            self._record(agent, self.populations[0], member, noted)
        self._after_steps()
        return _mean_of_finite(list(loss.detach()))

    def _all_at_once(self, agent: Any) -> StepTogether | None:
        """Return what asks all Q-networks at once: of plain perceptrons of one head, which nothing else alters."""
        network, one = agent.q_network, self.members[0]
        if self.config.members == 1 or len(agent.methods) > 1 or type(network) is not QNetwork or network.heads > 1:
            return None
        if not network.net.plain() or agent.optimizer.beside or len(agent.optimizer.param_groups) > 1:
            return None
        if not batches_as_one_by_one(network.net, agent.config.batch_size):
            return None
        one.keep_up()
        if self._together is None or self._together.version != one.version:
            return StepTogether(one, network.net)
        return self._together

    def actor_losses(self, agent: Any, made_of: ActorPass) -> Tensor:
        """Note the selection loss of the Q-network that is shown."""
        if self._of_values:
            noted = made_of.error.detach().square().mean(1) if self.config.selection_loss == "td" else made_of.losses
            # Of all members at once, or of all heads of the one that is shown.
            self._recorded = noted.tolist() if self._together else [float(noted.detach().sum())]
        return made_of.losses

    def descend_critics(self, agent: Any, losses: Callable[[], Tensor]) -> Tensor | None:
        """Take the gradient step of every critic, each down its own loss towards the one target."""
        return self._descend(agent, losses, None)

    def critic_losses(self, agent: Any, batch: Batch, losses: Tensor) -> Tensor:
        """Note the selection losses of the critics that are shown, ``mean_B (Q − y)²`` of each of the twins."""
        noted = 2.0 * losses.detach().sum(1)
        self._recorded = noted.tolist() if len(self.members) > 1 else [float(noted.sum())]
        return losses

    def _descend(self, agent: Any, losses: Callable[[], Tensor], max_norm: float | None) -> Tensor:
        optimizer, found = agent.own_optimizers[self._network], []
        beside, optimizer.beside = optimizer.beside, [MeanDescent(one, self.config.members) for one in optimizer.beside]
        try:
            for member in range(self.config.members):
                for one in self.members:
                    one.show(member)
                loss = losses().sum()
                optimizer.descend(loss, max_norm)
                found.append(loss.detach())
                for population, noted in zip(self.populations, self._recorded, strict=True):
                    self._record(agent, population, member, noted)
        finally:
            optimizer.beside = beside
        self._after_steps()
        self._show_crowned()
        return _mean_of_finite(found)

    def _after_steps(self) -> None:
        """Set masked weights to 0 again, and let no member that has diverged act, judge or go on."""
        for one, population in zip(self.members, self.populations, strict=True):
            one.apply_masks()
            population.losses[~one.finite()] = math.nan

    def _record(self, agent: Any, population: selection.Population, member: int, loss: float) -> None:
        if self._of_values:  # towards one target: summed
            population.losses[member] += loss
        else:  # towards a target that moves at every update: averaged as it moves
            tau = agent.config.tau
            population.losses[member] = (1.0 - tau) * population.losses[member] + tau * loss

    def before_actor_update(self, agent: Any) -> None:
        """Let critics that are drawn judge what the actor does."""
        if not self._of_values:
            for one, population in zip(self.members, self.populations, strict=True):
                one.show(population.draw(agent.rng))

    def after_update(self, agent: Any) -> None:
        """Let the critics of the least loss say the next target, and select them when it is time."""
        if self._of_values:
            return
        if agent.num_updates % self.config.generation_every == 0:
            self._select(agent, self._steps_of(agent, self.config.generation_every))
        for one, population in zip(self.members, self.populations, strict=True):
            if np.any(population.losses):  # right after a selection the crown stays with the best one before it
                population.crowned = population.best
            one.show_target(population.best)
        self._show_crowned()

    @staticmethod
    def _steps_of(agent: Any, updates: int) -> float:
        """Return how many steps of ``learn`` lie between so many updates."""
        config, envs = agent.config, getattr(agent.env, "num_envs", 1)
        return updates if agent.offline else updates * config.train_freq * envs / config.updates_of_round(envs)

    def before_target(self, agent: Any) -> None:
        """Crown the Q-network of the least loss, which the target becomes; select when it is time."""
        population = self.populations[0]
        if not np.any(population.losses):  # nothing has been learned since members were selected last
            return
        self._moves += 1
        if self._moves % self.config.generation_targets:
            population.crown()
        else:
            envs = getattr(agent.env, "num_envs", 1)
            between = max(agent.config.target_update_interval // envs, 1) * envs
            self._select(agent, float(between * self.config.generation_targets))
        self._show_crowned()

    def _select(self, agent: Any, steps: float) -> None:
        """Select members, and overwrite and prune those whose places are given away."""
        now, end = agent.num_timesteps, self.config.growth_end * agent.total_timesteps
        for one, population in zip(self.members, self.populations, strict=True):
            for duplicate in population.advance(now, now + steps, end, agent.rng):
                one.overwrite(duplicate.place, duplicate.source)
                grows = duplicate.sparsity > population.sparsities[duplicate.source]
                if grows and not one.prune(duplicate.place, duplicate.sparsity, self.config.mask_distribution):
                    population.refuse_growth(duplicate)
            population.losses[~one.finite()] = math.nan

    # ---- acting -----------------------------------------------------------------------------------------------------

    def before_acting(self, agent: Any, observation: np.ndarray) -> None:
        """Let a Q-network that is drawn act in this training step."""
        if self._of_values and agent.num_timesteps >= agent.config.learning_starts:
            self.members[0].show(self.populations[0].draw(agent.rng))

    def after_acting(self, agent: Any, action: np.ndarray) -> None:
        """Show the crowned member again: evaluations and files are of that member."""
        if self._of_values:
            self._show_crowned()

    def _show_crowned(self) -> None:
        for one, population in zip(self.members, self.populations, strict=True):
            one.show(population.crowned)

    # ---- accounts and state -----------------------------------------------------------------------------------------

    def structure_changed(self, agent: Any, kept: Kept | None = None) -> None:
        """Let every member lose what the window has lost."""
        for one in self.members:
            one.follow(kept, RESTORING.get())
        if not self._of_values:
            self._move_all_targets(agent)

    @property
    def sparsity(self) -> float:
        """Share of the crowned member's weights that are 0, of twins the mean."""
        shares = [one.sparsity(own.crowned) for one, own in zip(self.members, self.populations, strict=True)]
        return sum(shares) / len(shares)

    def sparsities(self) -> dict[str, float]:
        """Return the sparsities of the crowned member and of all on average, of twins the mean.

        ``nominal`` is what was drawn, ``realised`` the share of weights that are 0, ``effective`` the share of weights
        that lie on no path from an input to an output.
        """
        found: dict[str, list[float]] = {}
        for one, population in zip(self.members, self.populations, strict=True):
            for member in range(self.config.members):
                shares = {
                    "nominal": float(population.sparsities[member]),
                    "realised": one.sparsity(member),
                    "effective": one.effective_sparsity(member),
                }
                for kind, share in shares.items():
                    found.setdefault(f"all/{kind}", []).append(share)
                    if member == population.crowned:
                        found.setdefault(f"crowned/{kind}", []).append(share)
        return {name: sum(shares) / len(shares) for name, shares in found.items()}

    def logged(self, agent: Any) -> Mapping[str, Tensor]:
        found = {f"sparsity/{name}": share for name, share in self.sparsities().items()}
        every = np.concatenate([own.sparsities for own in self.populations])
        found |= {"sparsity/least": float(every.min()), "sparsity/most": float(every.max())}
        found["population/generation"] = float(self.populations[0].generation)
        found["population/duplicates"] = float(np.mean([own.duplicates for own in self.populations]))
        return {name: torch.tensor(value) for name, value in found.items()}

    def plain_state(self, agent: Any) -> Mapping[str, Any]:
        return {"population": {"moves": self._moves, "seats": [own.state_dict() for own in self.populations]}}

    def load_plain_state(self, agent: Any, state: Mapping[str, Any]) -> None:
        stored = state["population"]
        try:
            for population, own in zip(self.populations, stored["seats"], strict=True):
                population.load_state_dict(own)
        except ConfigError as error:
            raise CheckpointError(f"the population of the {self._network}: {error}") from error
        self._moves = int(stored["moves"])
        for one, population in zip(self.members, self.populations, strict=True):
            one.shown, one.target_shown = population.crowned, population.best
            one.look_up()


def _seats(network: nn.Module) -> list[nn.Module]:
    """Return the parts of a network that members replace one by one: the twins of a critic, or all of it."""
    twins = getattr(network, "members", None)
    return list(twins) if isinstance(twins, nn.ModuleList) else [network]


def _mean_of_finite(losses: Sequence[Tensor]) -> Tensor:
    """Return the mean of the losses that are finite: a member that has diverged is overwritten, and the run goes on."""
    finite = [loss for loss in losses if math.isfinite(float(loss))]
    return torch.stack(finite or list(losses)).mean()


__all__ = ["Population"]
