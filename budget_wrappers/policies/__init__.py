"""Adapters around acting: what makes a policy a sub-policy with a cost."""

from budget_wrappers.policies.exits import ExitPolicy
from budget_wrappers.policies.options import (
    AgentPolicy,
    FunctionPolicy,
    ModulePolicy,
    SubPolicies,
    load_sub_policy,
    register_loader,
    register_sub_policy,
)

__all__ = [
    "AgentPolicy",
    "ExitPolicy",
    "FunctionPolicy",
    "ModulePolicy",
    "SubPolicies",
    "load_sub_policy",
    "register_loader",
    "register_sub_policy",
]
