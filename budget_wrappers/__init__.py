"""Meter, limit and learn to spend the compute of reinforcement-learning policies.

Every public name can be imported from here. It is loaded when it is first used (PEP 562), so ``import budget_wrappers``
itself loads nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors read; a test holds it equal to _HOMES
    from budget_wrappers.core import Choice, Chooser, Cost, Meter, Selector, Spend, SubPolicy
    from budget_wrappers.errors import (
        BudgetError,
        CheckpointError,
        ConfigError,
        ContractError,
        CostError,
        DatasetError,
        InfeasibleBudgetError,
        InfoKeyError,
        MeterError,
        MissingExtraError,
        NonFiniteError,
        SolverError,
        SpaceError,
        UncountableError,
        UntrustedFileError,
        WrapperOrderError,
    )
    from budget_wrappers.metering import ComputeMeter, Profile, count_flops, get_meter, profile
    from budget_wrappers.policies import AgentPolicy, ExitPolicy, FunctionPolicy, ModulePolicy, SubPolicies
    from budget_wrappers.wrappers import (
        BudgetAwareObservation,
        ComputeDelayAction,
        ComputeLimit,
        ComputePenaltyReward,
        ComputeVectorReward,
        EarlyExitAction,
        RecordComputeStatistics,
        SubPolicyAction,
        check_wrapper,
    )

__version__ = "0.1.0"

_HOMES = {
    "core": ("Choice", "Chooser", "Cost", "Meter", "Selector", "Spend", "SubPolicy"),
    "errors": (
        "BudgetError",
        "CheckpointError",
        "ConfigError",
        "ContractError",
        "CostError",
        "DatasetError",
        "InfeasibleBudgetError",
        "InfoKeyError",
        "MeterError",
        "MissingExtraError",
        "NonFiniteError",
        "SolverError",
        "SpaceError",
        "UncountableError",
        "UntrustedFileError",
        "WrapperOrderError",
    ),
    "metering": ("ComputeMeter", "Profile", "count_flops", "get_meter", "profile"),
    "policies": ("AgentPolicy", "ExitPolicy", "FunctionPolicy", "ModulePolicy", "SubPolicies"),
    "wrappers": (
        "BudgetAwareObservation",
        "ComputeDelayAction",
        "ComputeLimit",
        "ComputePenaltyReward",
        "ComputeVectorReward",
        "EarlyExitAction",
        "RecordComputeStatistics",
        "SubPolicyAction",
        "check_wrapper",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME_OF), "__version__"]


def __getattr__(name: str) -> Any:
    """Load the public name ``name``, once: the next look-up finds it as an ordinary global."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
