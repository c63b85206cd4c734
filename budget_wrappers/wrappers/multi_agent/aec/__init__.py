"""Wrappers for PettingZoo's ``AECEnv``, under the names of those for single environments."""

from budget_wrappers.wrappers.multi_agent.aec.limit import ComputeLimit
from budget_wrappers.wrappers.multi_agent.aec.observation import BudgetAwareObservation
from budget_wrappers.wrappers.multi_agent.aec.options import SubPolicyAction
from budget_wrappers.wrappers.multi_agent.aec.record import RecordComputeStatistics
from budget_wrappers.wrappers.multi_agent.aec.reward import ComputePenaltyReward

__all__ = [
    "BudgetAwareObservation",
    "ComputeLimit",
    "ComputePenaltyReward",
    "RecordComputeStatistics",
    "SubPolicyAction",
]
