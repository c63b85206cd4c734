"""Stable-Baselines3: prune the hidden units of a model's networks while it trains them.

One callback makes the networks as small as you ask for, and the zip that the model writes is an ordinary one::

    model = SAC("MlpPolicy", env)
    model.learn(300_000, callback=PruneUnits(max_parameters=5_000))
    model.save("small")  # loads where this package is not installed

Source: "Online Training and Pruning of Deep Reinforcement Learning Networks" (XiNet); see ``UnitPruner``.
"""

import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from budget_wrappers.arguments import a_count, a_number, refuse
from budget_wrappers.errors import ComputeWarning, ConfigError
from budget_wrappers.integrations.sb3_callbacks import new_callback
from budget_wrappers.integrations.sb3_networks import TrainedNetwork, actor_of, critic_of, kind_of, write_widths
from budget_wrappers.modules.unit_loop import UnitPruning
from budget_wrappers.modules.unit_pruning import UnitSchedule
from budget_wrappers.modules.units import UnitGates


class PruneUnits:
    """A callback that prunes a model's networks while ``learn`` trains them: SAC, TD3, DDPG, DQN, PPO and A2C.

    Each hidden unit learns whether it is needed, from the model's own losses and from the price of the network's size.
    Units that are not are removed while training goes on, with their optimizer's moments and in the targets; from
    ``fix_from`` on the size is the one asked for and nothing of this callback is left on the model.
    ``model.policy_kwargs["net_arch"]`` has the widths, so that ``model.save`` writes a zip of plain Stable-Baselines3.
    Twin critics keep as many units as each other, each its own best, as Stable-Baselines3 makes them of one list.

    While units learn, a zip that is saved (``CheckpointCallback``, ``EvalCallback``) acts as the model does at that
    moment: what multiplies the units is folded into the weights. It trains on as a plain model; how far each unit had
    learnt is not in it. PPO and A2C collect with the mean of the units and update with draws of them, so that PPO's
    clipping and ``target_kl`` see some change of the policy in the first epoch already.

    Args:
        max_parameters: that what ``predict`` runs may have in the end, biases included, of SAC both heads of its actor,
            of DQN the network of values. 0 for no limit.
        max_flops: of one action in the end, ``matmul`` convention, instead of ``max_parameters``; 0 for no limit.
        max_critic_parameters: that the critics may have together in the end, of PPO and A2C the network of the value; 0
            for no limit.
        unit_penalty: ν, what one parameter (FLOP) of what acts costs in the unit of its loss;
            with a limit, where ν begins.
        critic_unit_penalty: the same for the critics; 0 leaves them as they are, unless they have a limit.
        learn_from: share of this run before which all units are there.
        fix_from: share of this run from which units are there or gone, and the size is the one asked for.
        drop_below: θ below which a unit is removed while the others learn on.
        prune_every: updates of a network between two removals.
        unit_learning_rate: of θ; ``"auto"`` for 3e-4, or up to .05 in a short run, so that θ can travel from 1 to 0 ten
            times.
        seed: of the draws, which have a generator of their own; by default the model's seed.
        verbose: as in every callback.

    Raises:
        ConfigError: a value out of bounds. From ``learn``: a model or network that is unknown, such as one with an
            extractor of images; another callback that prunes it.
        InfeasibleBudgetError: from ``learn``: the smallest network is larger than the limit.
        MissingExtraError: Stable-Baselines3 is not installed.
    """

    model: Any
    logger: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> "PruneUnits":
        """Make an object that is one of Stable-Baselines3's callbacks, too: that class is imported only now."""
        return new_callback(cls)

    def __init__(
        self,
        max_parameters: int = 0,
        max_flops: int = 0,
        max_critic_parameters: int = 0,
        unit_penalty: float = 1e-7,
        critic_unit_penalty: float = 0.0,
        learn_from: float = 0.2,
        fix_from: float = 0.8,
        drop_below: float = 0.1,
        prune_every: int = 1_000,
        unit_learning_rate: float | Literal["auto"] = "auto",
        seed: int | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)  # type: ignore[call-arg]
        limits = {"max_parameters": max_parameters, "max_flops": max_flops}
        for name, most in (*limits.items(), ("max_critic_parameters", max_critic_parameters)):
            a_count(name, most)
        if max_parameters and max_flops:
            refuse("max_flops", max_flops, f"0 beside max_parameters={max_parameters}: one limit")
        a_number("unit_penalty", unit_penalty, "a price above 0", lambda number: number > 0)
        a_number("critic_unit_penalty", critic_unit_penalty, "a price of 0 or more", lambda number: number >= 0)
        if unit_learning_rate != "auto":
            a_number("unit_learning_rate", unit_learning_rate, "'auto' or a number above 0", lambda number: number > 0)
        if not 0 <= learn_from < fix_from <= 1:
            refuse("learn_from", learn_from, f"a share of the run in [0, 1], below fix_from={fix_from}")
        a_number("drop_below", drop_below, "a probability in (0, 0.5]", lambda number: 0 < number <= 0.5)
        a_count("prune_every", prune_every, least=1)
        self._schedule = UnitSchedule(learn_from, fix_from, drop_below, prune_every)
        self._limits = {"actor": {name: most or None for name, most in limits.items()} | {"penalty": unit_penalty}}
        if max_critic_parameters or critic_unit_penalty:
            most = max_critic_parameters or None
            self._limits["critic"] = {"max_parameters": most, "penalty": critic_unit_penalty or unit_penalty}
        self._rate = unit_learning_rate
        self._seed = None if seed is None else a_count("seed", seed, most=2**63 - 1)
        self._networks: list[_Pruned] = []
        self._owner: Any = None
        self._hooks: list[Any] = []
        self._folding: list[Any] = []

    # ---- what there is ----------------------------------------------------------------------------------------------

    def units_of(self, name: str = "actor") -> list[int]:
        """Return how many units each hidden layer of a network has now.

        Args:
            name: ``"actor"`` for what acts, or ``"critic"``: the layers of each critic, one critic after another.

        Raises:
            ConfigError: that network is not pruned, or ``learn`` was not called.
        """
        return self._named(name).units

    def parameters_of(self, name: str = "actor") -> int:
        """Return how many parameters a network has now; see ``units_of``."""
        return self._named(name).parameters

    def _named(self, name: str) -> UnitPruning:
        for one in self._networks:
            if one.network.name == name:
                return one.pruning
        names = ", ".join(one.network.name for one in self._networks) or "none before learn() is called"
        raise ConfigError(f"the units of {name!r}: expected one of {names}; set max_critic_parameters for the critics'")

    def finish(self) -> None:
        """Decide now which units stay, as ``fix_from`` does: for a training that was stopped before."""
        for one in self._networks:
            one.pruning.finish()
        if self._networks:
            write_widths(self._owner, self._kind)
        self._release()

    # ---- events of Stable-Baselines3 --------------------------------------------------------------------------------

    def _init_callback(self) -> None:
        if self._owner is self.model:
            return
        kind = kind_of(self.model)
        generator = torch.Generator(device=self.model.device)
        seed = self.model.seed if self._seed is None else self._seed
        generator.seed() if seed is None else generator.manual_seed(seed)
        makers = {"actor": actor_of, "critic": critic_of}
        networks = [(makers[name](self.model, kind), limits) for name, limits in self._limits.items()]
        self._networks = [_Pruned(self._pruning(*one, generator), one[0]) for one in networks]
        self._owner, self._kind = self.model, kind
        self._begun = self._before = self._now = self.model.num_timesteps

    def _pruning(self, network: TrainedNetwork, limits: Mapping[str, Any], generator: torch.Generator) -> UnitPruning:
        return UnitPruning(
            network.module,
            network.optimizer,
            total_updates=1,  # until a rollout has told
            targets=network.targets,
            groups=network.groups(self.model),
            alike=network.alike,
            schedule=self._schedule,
            learning_rate=self._rate,
            generator=generator,
            **limits,
        )

    def _on_training_start(self) -> None:
        self._release()
        self._before = self._now = self.model.num_timesteps
        self._begun = min(self._begun, self._now)
        if all(one.pruning.stage == "fixed" for one in self._networks):
            return
        if any(isinstance(hook, _Folded) for hook in self.model.policy._state_dict_hooks.values()):
            raise ConfigError(
                f"{type(self.model).__name__} is pruned by another PruneUnits: expected one; go on with that callback, "
                "or call its finish() first"
            )
        every = [gates for one in self._networks for gates in one.gates]
        self._folding.append(self.model.policy.register_state_dict_post_hook(_Folded(every)))
        self._folding.append(self.model.policy.register_load_state_dict_pre_hook(_Refused(every)))
        for one in self._networks:
            one.pruning.gates.learn(one.pruning.stage == "learning")
            stepped = functools.partial(self._stepped, one)
            self._hooks.append(one.network.optimizer.register_step_post_hook(stepped))
            valued = _Valued(one.pruning.gates)
            self._hooks += [network.register_forward_pre_hook(valued) for network in one.network.valued]

    def _on_rollout_start(self) -> None:
        """Remove what is due: between rounds of updates, so that each of them has the same networks throughout."""
        kept = [one.pruning.remove_due(self._share(1.0)) for one in self._networks]
        if any(kept):
            write_widths(self._owner, self._kind)

    def _on_rollout_end(self) -> None:
        model, before = self.model, self._now
        self._before, self._now = before, model.num_timesteps
        rate = self._updates_of_round() / max(self._now - before, 1)
        for one in self._networks:
            one.steps = 0
            updates = rate * (model._total_timesteps - self._begun) / self._every(one)
            one.pruning.total_updates = max(round(updates), 1)
            name, pruner = one.network.name, one.pruning.pruner
            self.logger.record(f"units/{name}_parameters", one.pruning.parameters)
            expected = pruner.size.parameters([float(theta.detach().sum()) for theta in pruner.gates.theta])
            self.logger.record(f"units/{name}_expected", expected)

    def _on_step(self) -> bool:
        model = self.model
        if self._kind == "DQN":  # it moves its target right after this
            every = max(model.target_update_interval // model.n_envs, 1)
            if (model._n_calls + 1) % every == 0:
                self._follow()
        return True

    def _on_training_end(self) -> None:
        self._before = self._now = self.model.num_timesteps
        if self._share(1.0) < self._schedule.end:  # stopped before: the gates stay as they are
            for one in self._networks:
                one.pruning.gates.learn(False)
            self._unhook()
            return
        if self._hooks and not all(one.learned for one in self._networks):
            warnings.warn(
                f"{type(self.model).__name__} was not updated between learn_from and fix_from: expected updates, from "
                "which units learn whether they are needed; which of them were removed is arbitrary. Train for longer "
                "than learning_starts",
                ComputeWarning,
                stacklevel=2,
            )
        self.finish()

    # ---- updates ----------------------------------------------------------------------------------------------------

    def _stepped(self, one: "_Pruned", optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Step θ of a network after its optimizer has stepped the weights."""
        one.steps += 1
        one.learned = one.learned or one.pruning.stage == "learning"
        done = min(one.steps / max(self._updates_of_round() / self._every(one), 1.0), 1.0)
        one.pruning.step(self._share(done), remove=False)
        if one.network.name == "actor" and (
            self._kind == "TD3" or (self._kind == "SAC" and (one.steps - 1) % self.model.target_update_interval == 0)
        ):
            self._follow()  # the weights of targets do so right after the actor's step

    def _follow(self) -> None:
        for one in self._networks:
            one.pruning.follow_targets(self.model.tau)

    def _share(self, done: float) -> float:
        """Return the share of the run that is over where a share of the updates after a rollout is."""
        now = self._before + (self._now - self._before) * done
        return (now - self._begun) / max(self.model._total_timesteps - self._begun, 1)

    def _updates_of_round(self) -> float:
        """Return how many updates follow a rollout."""
        model = self.model
        if self._kind == "A2C":
            return 1
        if self._kind == "PPO":
            return model.n_epochs * math.ceil(model.n_steps * model.n_envs / model.batch_size)
        return model.gradient_steps if model.gradient_steps >= 0 else self._now - self._before

    def _every(self, one: "_Pruned") -> int:
        return self.model.policy_delay if self._kind == "TD3" and one.network.name == "actor" else 1

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _release(self) -> None:
        """Leave nothing but gates on the model."""
        self._unhook()
        for hook in self._folding:
            hook.remove()
        self._folding.clear()


class _Pruned:
    """One network that is pruned.

    Attributes:
        pruning: of its units.
        network: as given.
        steps: of its optimizer since the last rollout.
        learned: whether any step was one of its θ, too.
    """

    def __init__(self, pruning: UnitPruning, network: TrainedNetwork) -> None:
        self.pruning, self.network = pruning, network
        self.steps, self.learned = 0, False

    @property
    def gates(self) -> Sequence[UnitGates]:
        """Those of the network and of its targets."""
        return (self.pruning.gates, *self.pruning.pruner.target_gates)


# ---- hooks on the model, which a copy of it takes along ------------------------------------------------------------


class _Valued:
    """Forward pre-hook of a critic: its units draw in its own loss only, and multiply by θ in the actor's.

    The actor's loss is differentiated through the action that it is given, the critic's is not.
    """

    def __init__(self, gates: UnitGates) -> None:
        self._gates = gates

    def __call__(self, network: nn.Module, given: tuple[Any, ...]) -> None:
        if self._gates.attached:
            self._gates.learn(not given[0].requires_grad)


class _Folded:
    """State dict hook of a policy: what multiplies units is folded into the weights that read them."""

    def __init__(self, every: Sequence[UnitGates]) -> None:
        self._every = every

    @torch.no_grad()
    def __call__(self, policy: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
        names = {part: name for name, part in policy.named_modules()}
        for gates in self._every:
            for group, theta in zip(gates.groups, gates.theta, strict=True) if gates.attached else ():
                for reader in group.readers:
                    key = f"{prefix}{names[reader.layer]}.weight"
                    state[key] = folded = state[key].clone()
                    folded[:, reader.start : reader.start + group.units] *= theta


class _Refused:
    """Hook of a policy that refuses weights from elsewhere while its units are multiplied."""

    def __init__(self, every: Sequence[UnitGates]) -> None:
        self._every = every

    def __call__(self, policy: nn.Module, *args: Any) -> None:
        if any(gates.attached for gates in self._every):
            raise ConfigError(
                f"weights that are loaded into a {type(policy).__name__} whose units learn: expected them to be loaded "
                "before learn(), or after PruneUnits.finish(), as what multiplies the units is not part of them"
            )


__all__ = ["PruneUnits"]
