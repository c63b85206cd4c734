"""Meters by name, found from anywhere in the process as ``logging.getLogger`` finds loggers."""

from budget_wrappers.core import Convention
from budget_wrappers.errors import MeterError
from budget_wrappers.metering.checks import check_convention
from budget_wrappers.metering.meter import ComputeMeter

_METERS: dict[str, ComputeMeter] = {}


def get_meter(name: str = "policy", convention: Convention | None = None) -> ComputeMeter:
    """Return the meter called ``name``, made on the first call; it lives as long as the process.

    Args:
        name: any string that is not empty.
        convention: of a new meter, ``"matmul"`` by default.

    Raises:
        MeterError: the name is empty or no string, or the meter exists with another convention.

    Example:
        >>> get_meter("docs.registry") is get_meter("docs.registry")
        True
    """
    meter = _METERS.get(name) if isinstance(name, str) else None
    if meter is None:
        meter = _METERS[name] = ComputeMeter(name, "matmul" if convention is None else convention)
    elif convention is not None and meter.convention != check_convention(convention):
        raise MeterError(
            f"get_meter({name!r}, convention={convention!r}): that meter exists and counts {meter.convention!r}. "
            "Use another name, or leave the convention out."
        )
    return meter
