"""The same wrappers for vector environments, around them in the process where the policy acts on the whole batch."""

from typing import NoReturn

from budget_wrappers.errors import ConfigError
from budget_wrappers.wrappers.vector.foreign import as_vector_env
from budget_wrappers.wrappers.vector.limit import ComputeLimit
from budget_wrappers.wrappers.vector.observation import BudgetAwareObservation
from budget_wrappers.wrappers.vector.record import RecordComputeStatistics
from budget_wrappers.wrappers.vector.reward import ComputePenaltyReward
from budget_wrappers.wrappers.vector.vector_reward import ComputeVectorReward

__all__ = [
    "BudgetAwareObservation",
    "ComputeLimit",
    "ComputePenaltyReward",
    "ComputeVectorReward",
    "RecordComputeStatistics",
    "as_vector_env",
]


def __getattr__(name: str) -> NoReturn:
    """Say why a wrapper has no vector version."""
    if name in ("SubPolicyAction", "EarlyExitAction"):
        raise ConfigError(
            f"{name} has no vector version: what was chosen runs inside step(), for as long as it lasts. Put it around "
            f"each environment, with recorders and limits around it: SyncVectorEnv([lambda: {name}(...)])."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
