"""A pruner leaves nothing behind, is resumed to the bit, and refuses what it cannot prune."""

import copy
import math
import pickle
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from budget_wrappers.errors import ConfigError
from tests.modules.test_pruner import STEPS, equal, network, pruner_of, train, update, weights

# ---- leaving, copying, resuming -------------------------------------------------------------------------------------


def hooks(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[int]:
    """Return how many hooks there are of each kind, on the optimizer and on all parts of the module."""
    places = [vars(optimizer), *(vars(part) for part in module.modules())]
    return [
        len(value) for own in places for key, value in own.items() if "hook" in key and isinstance(value, dict | list)
    ]


def test_removing_leaves_no_hook_and_the_weights_as_they_are() -> None:
    module = network()
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    plain = hooks(module, optimizer)
    pruner = pruner_of(module, optimizer)
    assert (hooks(module, optimizer) != plain, pruner.installed) == (True, True)
    train(module, optimizer)
    before = copy.deepcopy(module)
    pruner.remove()
    pruner.remove()
    assert equal(module, before)
    assert (hooks(module, optimizer) == plain, pruner.installed) == (True, False)
    update(module, optimizer, STEPS)
    assert pruner.steps == STEPS
    assert all(bool((weight != 0).sum() > 0.4 * weight.numel()) for weight in weights(module))  # they learn again


def test_the_context_removes_the_hooks_also_after_an_error() -> None:
    module = network()
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    with pytest.raises(RuntimeError, match="stop"), pruner_of(module, optimizer) as pruner:
        assert pruner.installed
        raise RuntimeError("stop")
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_pruner_that_is_installed_again_goes_on() -> None:
    whole, paused = network(), network()
    first, second = pruner_of(whole), pruner_of(paused)
    train(whole, first.optimizer)
    train(paused, second.optimizer, 0, 20)
    second.remove()
    second.install()
    second.install()
    train(paused, second.optimizer, 20)
    assert equal(whole, paused)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_of_module_and_optimizer_have_no_pruner(duplicate: Any) -> None:
    module = network()
    pruner = pruner_of(module)
    train(module, pruner.optimizer, 0, 20)
    other, optimizer = duplicate((module, pruner.optimizer))
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert equal(other, module)
    update(other, optimizer, 20)
    assert pruner.steps == 20


@pytest.mark.parametrize("at", [1, 14, 20, 39])
def test_a_resumed_run_equals_one_that_was_not_interrupted(at: int) -> None:
    module = network()
    pruner = pruner_of(module)
    train(module, pruner.optimizer, 0, at)
    states = copy.deepcopy([one.state_dict() for one in (module, pruner.optimizer, pruner)])
    train(module, pruner.optimizer, at)
    resumed = network()
    other = pruner_of(resumed)
    for one, state in zip((resumed, other.optimizer, other), states, strict=True):
        one.load_state_dict(state)
    assert other.steps == at
    train(resumed, other.optimizer, at)
    assert equal(resumed, module)
    assert (other.sparsity, other.complete, other.steps) == (pruner.sparsity, True, STEPS)


def test_a_state_is_a_copy() -> None:
    module = network()
    pruner = pruner_of(module)
    state = pruner.state_dict()
    train(module, pruner.optimizer)
    assert all(bool((mask == 1).all()) for name, mask in state["masks"].items() if name != "complete")


def damaged(**changes: Any) -> dict[str, Any]:
    state = pruner_of(network()).state_dict()
    masks = changes.pop("masks", {})
    return {**state, **changes, "masks": {**state["masks"], **masks}}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (3, "state=3: expected what state_dict() returned, with 'steps' and 'masks'"),
        ({"steps": 3}, "expected what state_dict() returned"),
        ({"steps": 3, "masks": {"of_0": 1}}, "expected what state_dict() returned"),
        (damaged(steps=-1), "the state's steps=-1: expected at least 0"),
        (damaged(steps="3"), "the state's steps='3': expected at least 0"),
        (damaged(masks={"of_0": torch.ones(2, 3)}), "load the state of a Pruner of the same module"),
        (damaged(masks={"of_9": torch.ones(2, 3)}), "load the state of a Pruner of the same module"),
        (damaged(masks={"of_0": torch.full((16, 3), 0.5)}), "whose mask of_0 has other numbers than 0 and 1"),
        (damaged(masks={"of_0": torch.full((16, 3), math.nan)}), "whose mask of_0 has other numbers than 0 and 1"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(state: Any, message: str) -> None:
    module = network()
    pruner = pruner_of(module)
    train(module, pruner.optimizer, 0, 20)
    before = pruner.state_dict()
    with pytest.raises(ConfigError, match=re.escape(message)):
        pruner.load_state_dict(state)
    now = pruner.state_dict()
    assert now["steps"] == before["steps"]
    assert all(map(torch.equal, now["masks"].values(), before["masks"].values()))


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total_steps": 0}, "total_steps=0: expected at least 1"),
        ({"total_steps": None}, "total_steps=None: expected either total_steps or progress"),
        ({"progress": lambda: 0.5}, "total_steps=40: expected either total_steps or progress"),
        ({"progress": 0.5, "total_steps": None}, "progress=0.5: expected a function"),
        ({"every": 0}, "every=0: expected at least 1"),
        ({"schedule": 0.9}, "schedule=0.9: expected a PolynomialSchedule"),
        ({"distribution": "even"}, "distribution='even': expected one of erk, uniform, global"),
        ({"example_inputs": torch.zeros(1, 5)}, "cannot run on the example inputs"),
        ({"targets": "copy"}, "targets='copy': expected a torch.nn.Module"),
        ({"targets": [3]}, "targets=3: expected torch modules"),
        ({"targets": nn.Linear(3, 1)}, "a target Linear with layers of {'of_': (1, 3)}: expected {'of_0': (16, 3)"),
        ({"optimizer": "adam"}, "optimizer='adam': expected a torch.optim.Optimizer"),
    ],
)
def test_bad_input_is_named_with_what_was_expected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pruner_of(network(), **settings)


@pytest.mark.parametrize("value", [math.nan, "0.5", None])
def test_a_progress_that_is_no_number_is_named_at_the_step(value: Any) -> None:
    module = network()
    pruner = pruner_of(module, total_steps=None, progress=lambda: value)
    with pytest.raises(ConfigError, match=re.escape("progress()=")):
        update(module, pruner.optimizer, 0)


def lazy() -> tuple[nn.Module, nn.Module]:
    module = nn.Sequential(nn.LazyLinear(4))
    return module, module


def compiled() -> tuple[nn.Module, nn.Module]:
    module = network()
    return torch.compile(module, backend="eager"), module


def parametrised() -> tuple[nn.Module, nn.Module]:
    module = network()
    parametrizations.weight_norm(module[0])
    return module, module


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (network(), network()), "expected weights of the Sequential among them; pass the optimizer"),
        (lambda: (nn.Tanh(), network()), "expected linear layers; it has none to prune"),
        (lambda: (3, network()), "module=3: expected a torch.nn.Module"),
        (compiled, "expected the module before it is compiled; pass the original"),
        (parametrised, "is computed from other tensors: expected a plain parameter"),
        (lazy, "has no shape yet: expected a module that has run"),
    ],
)
def test_modules_that_cannot_be_pruned_are_refused_and_get_no_hook(make: Any, message: str) -> None:
    module, stepped = make()
    optimizer = torch.optim.Adam(stepped.parameters())
    with pytest.raises(ConfigError, match=re.escape(message)):
        pruner_of(module, optimizer)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_second_pruner_of_the_same_weights_is_refused_until_the_first_is_removed() -> None:
    module = network()
    first = pruner_of(module)
    with pytest.raises(ConfigError, match=r"another Pruner prunes.*call its remove\(\) first"):
        pruner_of(module[0], first.optimizer)
    first.remove()
    pruner_of(module[0], first.optimizer)
