"""BEXA-CQL, for continuous and for discrete actions: conservative Q-learning with early exits under a budget."""

from typing import Any

from torch import Tensor

from agents.cql import CQL, DiscreteCQL, squashed_density
from agents.methods.bexa import BexaSAC, ExitSample, critic_of_exits, gaussian_exits
from agents.methods.bexa_config import BexaCQLConfig, BexaDiscreteCQLConfig
from agents.methods.bexa_dqn import ExitValues, value_exits
from agents.replay.buffers import Batch


class BexaDiscreteCQL(ExitValues, DiscreteCQL):
    """Discrete CQL with early exits under a budget.

    Args:
        env, dataset, meter: see ``DiscreteCQL``.
        settings: keys of ``BexaDiscreteCQLConfig``.
    """

    config_class = BexaDiscreteCQLConfig
    config: BexaDiscreteCQLConfig

    def __init__(self, env: Any = None, dataset: Any = None, *, meter: Any = None, **settings: Any) -> None:
        super().__init__(env, dataset, meter=meter, q_network=value_exits, **settings)


class BexaCQL(BexaSAC, CQL):
    """Continuous CQL with early exits under a budget.

    Args:
        env, dataset, meter: see ``CQL``.
        settings: keys of ``BexaCQLConfig``.
    """

    config_class = BexaCQLConfig
    config: BexaCQLConfig

    def __init__(self, env: Any = None, dataset: Any = None, *, meter: Any = None, **settings: Any) -> None:
        CQL.__init__(self, env, dataset, meter=meter, actor=gaussian_exits, critic=critic_of_exits, **settings)

    def exit_losses(self, batch: Batch, own: ExitSample, ent_coef: Tensor) -> Tensor:
        """Return each exit's loss, its gate's included, ``(K,)``; at the beginning every exit imitates the data."""
        if not self._imitates():
            return super().exit_losses(batch, own, ent_coef)
        imitated = squashed_density(own.mean, own.log_std, batch.action)
        values = self.critic.smallest_of_own_actions(batch.observation, own.action.detach())
        return self.with_gates((ent_coef * own.log_prob - imitated).mean(1), own.logits, values, batch.observation)
