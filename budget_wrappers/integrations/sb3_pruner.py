"""Stable-Baselines3: prune the weights of a model's networks by magnitude while it trains them.

One callback prunes what acts, and the zip that the model writes is an ordinary one with zeros among its weights::

    model = SAC("MlpPolicy", env)
    model.learn(300_000, callback=PruneWeights(final=0.9))
    model.save("sparse")  # loads where this package is not installed

Source: PolyPrune of "Eau De Q-Network: Adaptive Distillation of Neural Networks in Deep RL"; see ``Pruner``.
"""

from typing import Any

import torch
from torch import nn

from budget_wrappers.arguments import a_count, refuse
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.sparsity import DISTRIBUTIONS, Distribution, PolynomialSchedule
from budget_wrappers.integrations.sb3_acting import require_torch
from budget_wrappers.integrations.sb3_callbacks import new_callback
from budget_wrappers.integrations.sb3_networks import TrainedNetwork, actor_of, algorithm_of, critic_of
from budget_wrappers.modules.pruner import Pruner


class PruneWeights:
    """A callback that prunes a model's weights while ``learn`` trains them: SAC, TD3, DDPG, DQN, PPO and A2C.

    A ``Pruner`` on the optimizer of each network multiplies masks into its weights after every update. Masks grow by
    magnitude from ``start`` to ``end``, shares of this run's steps; pruned weights are exactly 0 from then on, also in
    zips that are saved on the way. When ``learn`` returns, no hook is left on the model. If ``learn`` stopped before
    ``end``, the weights stay at the sparsity that they have, and ``learn`` with the same callback and
    ``reset_num_timesteps=False`` continues.

    Only this callback keeps pruned weights at 0. A model that trains on without it learns them again, and so does a zip
    that was loaded until the masks of a new callback reach them.

    ``actor`` is what ``predict`` runs behind the extractor of features: both heads of SAC's Gaussian, TD3's and DDPG's
    actor, DQN's network of values, ``policy_net`` and ``action_net`` of PPO and A2C. Extractors of features stay as
    they are, as networks may share them; a ``Pruner`` of your own prunes a whole module, such as ``model.q_net``.

    Args:
        final: sparsity of what acts at the end; biases are kept. With 0 no number of the training changes.
        critic_final: sparsity of the critics together at the end, of PPO and A2C of ``value_net``; 0 leaves them dense.
        start: share of this run after which pruning begins.
        end: share of this run at which it is complete.
        power: exponent of the schedule; the greater, the more is pruned early.
        every: updates of a network between two growths of its masks.
        distribution: shares of the layers, see ``budget_wrappers.functional.sparsity.Distribution``.
        verbose: as in every callback.

    Raises:
        ConfigError: a value out of bounds. From ``learn``: an algorithm or policy that is unknown; ``critic_final`` for
            DQN; another callback that prunes the same weights.
        MissingExtraError: Stable-Baselines3 is not installed.
    """

    model: Any
    logger: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> "PruneWeights":
        """Make an object that is one of Stable-Baselines3's callbacks, too: that class is imported only now."""
        return new_callback(cls)

    def __init__(
        self,
        final: float = 0.9,
        critic_final: float = 0.0,
        start: float = 0.2,
        end: float = 0.8,
        power: float = 3.0,
        every: int = 1_000,
        distribution: Distribution = "erk",
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)  # type: ignore[call-arg]
        self._schedules = {"actor": PolynomialSchedule(start, end, final, power)}
        critic = PolynomialSchedule(start, end, critic_final, power, "critic_")
        if critic.final:
            self._schedules["critic"] = critic
        self._every = a_count("every", every, least=1)
        if not isinstance(distribution, str) or distribution not in DISTRIBUTIONS:
            refuse("distribution", distribution, f"one of {', '.join(DISTRIBUTIONS)}")
        self._distribution = distribution
        self._pruners: dict[str, Pruner] = {}
        self._owner: Any = None
        self._begun = 0

    # ---- what there is ----------------------------------------------------------------------------------------------

    def pruner_of(self, name: str = "actor") -> Pruner:
        """Return the ``Pruner`` of a network, with its ``sparsity``, ``effective_sparsity`` and ``complete``.

        Args:
            name: ``"actor"`` for what acts, or ``"critic"`` for the critics together.

        Raises:
            ConfigError: that network is not pruned, or ``learn`` was not called.
        """
        if name not in self._pruners:
            names = ", ".join(self._pruners) or "none before learn() is called"
            raise ConfigError(f"the weights of {name!r}: expected one of {names}; set critic_final for the critics'")
        return self._pruners[name]

    def remove(self) -> None:
        """Take the hooks off the model's optimizers: for a ``learn`` that has raised, which else does so itself."""
        for pruner in self._pruners.values():
            pruner.remove()

    # ---- events of Stable-Baselines3 --------------------------------------------------------------------------------

    def _on_training_start(self) -> None:
        now = self.model.num_timesteps
        if self._owner is self.model:
            self._begun = min(self._begun, now)
            for pruner in self._pruners.values():
                pruner.install()
            return
        self.remove()  # from the model before
        kind = algorithm_of(self.model)
        require_torch(self.model)
        if kind == "DQN" and "critic" in self._schedules:
            refuse("critic_final", self._schedules["critic"].final, "0 for DQN: final is of its one network")
        makers = {"actor": actor_of, "critic": critic_of}
        networks = {name: makers[name](self.model, kind) for name in self._schedules}
        self._pruners, self._begun = {}, now
        try:
            for name, network in networks.items():
                self._pruners[name] = self._pruner(network, self._schedules[name])
        except ConfigError:
            self.remove()
            raise
        self._owner = self.model

    def _pruner(self, network: TrainedNetwork, schedule: PolynomialSchedule) -> Pruner:
        first = next(part for part in network.module.modules() if isinstance(part, nn.Linear))
        return Pruner(
            network.module,
            network.optimizer,
            schedule,
            every=self._every,
            distribution=self._distribution,
            example_inputs=torch.zeros(1, first.in_features, device=first.weight.device),
            progress=self._share,
            targets=network.targets,
        )

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        for name, pruner in self._pruners.items():
            self.logger.record(f"sparsity/{name}", pruner.sparsity)

    def _on_training_end(self) -> None:
        for pruner in self._pruners.values():
            # The last updates may come before `end`, as after a long rollout.
            if self._share() >= pruner.masks.schedule.end:
                pruner.finish()
        self.remove()

    def _share(self) -> float:
        """Return the share of this run's steps that are over."""
        steps = self.model.num_timesteps - self._begun
        return steps / max(self.model._total_timesteps - self._begun, 1)


__all__ = ["PruneWeights"]
