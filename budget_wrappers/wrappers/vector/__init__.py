"""The same wrappers for vector environments, around them in the process where the policy acts on the whole batch."""

from budget_wrappers.wrappers.vector.delay import ComputeDelayAction
from budget_wrappers.wrappers.vector.exits import EarlyExitAction
from budget_wrappers.wrappers.vector.foreign import as_vector_env
from budget_wrappers.wrappers.vector.limit import ComputeLimit
from budget_wrappers.wrappers.vector.observation import BudgetAwareObservation
from budget_wrappers.wrappers.vector.options import SubPolicyAction
from budget_wrappers.wrappers.vector.record import RecordComputeStatistics
from budget_wrappers.wrappers.vector.reward import ComputePenaltyReward
from budget_wrappers.wrappers.vector.vector_reward import ComputeVectorReward

__all__ = [
    "BudgetAwareObservation",
    "ComputeDelayAction",
    "ComputeLimit",
    "ComputePenaltyReward",
    "ComputeVectorReward",
    "EarlyExitAction",
    "RecordComputeStatistics",
    "SubPolicyAction",
    "as_vector_env",
]
