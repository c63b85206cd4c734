"""Wrappers for single environments: they turn what a policy spends into information, penalties and limits."""

from budget_wrappers.wrappers.checker import check_wrapper
from budget_wrappers.wrappers.delay import ComputeDelayAction
from budget_wrappers.wrappers.exits import EarlyExitAction
from budget_wrappers.wrappers.limit import ComputeLimit
from budget_wrappers.wrappers.observation import BudgetAwareObservation
from budget_wrappers.wrappers.options import HELD, PrimitiveTransition, SubPolicyAction
from budget_wrappers.wrappers.record import RecordComputeStatistics
from budget_wrappers.wrappers.reward import ComputePenaltyReward
from budget_wrappers.wrappers.vector_reward import ComputeVectorReward

__all__ = [
    "HELD",
    "BudgetAwareObservation",
    "ComputeDelayAction",
    "ComputeLimit",
    "ComputePenaltyReward",
    "ComputeVectorReward",
    "EarlyExitAction",
    "PrimitiveTransition",
    "RecordComputeStatistics",
    "SubPolicyAction",
    "check_wrapper",
]
