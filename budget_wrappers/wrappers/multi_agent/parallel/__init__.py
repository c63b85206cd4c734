"""Wrappers for PettingZoo's ``ParallelEnv``, under the names of those for single environments."""

from budget_wrappers.wrappers.multi_agent.parallel.limit import ComputeLimit
from budget_wrappers.wrappers.multi_agent.parallel.observation import BudgetAwareObservation
from budget_wrappers.wrappers.multi_agent.parallel.options import SubPolicyAction
from budget_wrappers.wrappers.multi_agent.parallel.record import RecordComputeStatistics
from budget_wrappers.wrappers.multi_agent.parallel.reward import ComputePenaltyReward

__all__ = [
    "BudgetAwareObservation",
    "ComputeLimit",
    "ComputePenaltyReward",
    "RecordComputeStatistics",
    "SubPolicyAction",
]
