"""sb3-contrib's ARS, which learns without gradients: copies of its policy act, and their returns move its weights."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from budget_wrappers.errors import ConfigError, MeterError
from budget_wrappers.integrations.sb3_acting import sides_of, watch_all
from budget_wrappers.metering import ComputeMeter, Watch, count_flops


def searching_members(base: type, metering: Any) -> dict[str, Any]:
    """Return what the class of a metered model gets that has no rounds of gradient updates.

    Args:
        base: the class of the model.
        metering: with the ``meter`` that is charged, and ``holds(model)``.

    Raises:
        ConfigError: it learns in a way that is unknown.
    """
    if not hasattr(base, "evaluate_candidates"):
        raise ConfigError(
            f"{base.__name__} has neither train() nor evaluate_candidates(): expected a model of Stable-Baselines3 or "
            'sb3-contrib; watch what acts by hand, get_meter("policy").watch(module), and put meter.phase("learn") '
            "around its updates"
        )

    def evaluate_candidates(self: Any, weights: Any, callback: Any, async_eval: Any) -> Any:
        if not metering.holds(self):
            return base.evaluate_candidates(self, weights, callback, async_eval)
        if async_eval is not None:
            raise MeterError(
                f"{type(self).__name__}.learn(async_eval=…) acts in other processes, where no meter is charged: "
                "expected async_eval=None; call unmeter(model) to learn there without one"
            )
        with _copies_watched(self, metering.meter):
            return base.evaluate_candidates(self, weights, callback, async_eval)

    def one_update(self: Any, callback: Any, async_eval: Any) -> None:
        base._do_one_update(self, callback, async_eval)
        if metering.holds(self):
            returns, deltas = torch.zeros(self.n_top), torch.zeros(self.n_top, self.n_params)
            flops = count_flops(
                lambda: self.weights + 1.0 * ((returns - returns) @ deltas), convention=metering.meter.convention
            )
            with metering.meter.phase("learn"):
                metering.meter.add(flops)

    return {"evaluate_candidates": evaluate_candidates, "_do_one_update": one_update}


@contextmanager
def _copies_watched(model: Any, meter: ComputeMeter) -> Iterator[None]:
    """Watch each copy that is made of the model's policy meanwhile; otherwise copies charge nothing."""
    policy, watches = model.policy, list[Watch]()

    def copied(memo: dict[int, Any]) -> Any:
        del policy.__deepcopy__
        try:
            twin = copy.deepcopy(policy, memo)
        finally:
            policy.__deepcopy__ = copied
        watches.extend(watch_all(meter, sides_of(_Holding(twin))[0], meter))
        return twin

    policy.__deepcopy__ = copied
    try:
        yield
    finally:
        del policy.__deepcopy__
        for watch in watches:
            watch.remove()


class _Holding:
    """A policy, where a model is expected."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy


__all__ = ["searching_members"]
