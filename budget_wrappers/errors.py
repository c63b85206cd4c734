"""Every exception this package raises on purpose.

Each message holds three things: the value that was received, what was expected, and what to do about it.
"""


class BudgetError(Exception):
    """Base class: ``except BudgetError`` catches whatever this package raises on purpose."""


class ConfigError(BudgetError, ValueError):
    """A configuration value or key that does not exist or lies outside its bounds."""


class NoPathError(ConfigError):
    """Masks that leave no path from an input of a network to an output; the message names the layer."""


class SpaceError(BudgetError, TypeError):
    """An observation or action space (or a shape or dtype of one of its elements) that cannot be used."""


class NonFiniteError(BudgetError, ValueError):
    """NaN or infinity in an observation, an action or a reward."""


class CostError(BudgetError, ValueError):
    """A cost that is negative, NaN or infinite."""


class InfeasibleBudgetError(BudgetError, ValueError):
    """A budget below what the cheapest sub-policy costs."""


class SolverError(BudgetError, ArithmeticError):
    """A program that has a solution which no general solver at hand has found."""


class UncountableError(BudgetError, TypeError):
    """A module or operator whose FLOPs cannot be counted; the message names it."""


class MeterError(BudgetError, RuntimeError):
    """A meter that is used against its contract: nothing watched, a name in use, a worker process."""


class WrapperOrderError(BudgetError, RuntimeError):
    """Wrappers that are nested in an order which would lose or double a cost."""


class ContractError(BudgetError, AssertionError):
    """A wrapper that breaks a rule which ``check_wrapper`` checks; the message names the rule."""


class InfoKeyError(BudgetError, ValueError):
    """An ``info`` key that another wrapper owns already."""


class CheckpointError(BudgetError, RuntimeError):
    """A checkpoint that is truncated, damaged, foreign or made for another configuration."""


class UntrustedFileError(CheckpointError):
    """A file format that can run code when it is loaded, without ``trust=True``."""


class ComputeWarning(UserWarning):
    """A number that is likely not what was meant: an episode in which nothing was charged. Once for each meter."""


class MissingExtraError(BudgetError, ImportError):
    """An optional dependency that is not installed; the message holds the ``pip install`` line."""


class DatasetError(BudgetError, ValueError):
    """An offline data set that does not fit the environment or the agent."""


class WorkerLostError(BudgetError, RuntimeError):
    """Trainings without a result, as their worker processes were killed each time they were tried."""
