"""Weights are pruned while a loop that knows nothing of it steps its optimizer; what stays is an ordinary module."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from budget_wrappers.errors import ComputeWarning
from budget_wrappers.functional.sparsity import PolynomialSchedule, layer_sparsities
from budget_wrappers.modules.pruner import Pruner

STEPS = 40
ONE = torch.zeros(1, 3)
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, 3e-3),
    "fused Adam": lambda parameters: torch.optim.Adam(parameters, 3e-3, fused=True),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, 1e-2, momentum=0.9),
}
BY_OPTIMIZER = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=[*OPTIMIZERS])


class Nested(torch.optim.Adam):
    """An optimizer that steps by its base class's step, as torch then runs the hooks of both."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 1))


def schedule(final: float = 0.8) -> PolynomialSchedule:
    return PolynomialSchedule(0.2, 0.8, final)


def pruner_of(module: nn.Module, optimizer: Any = None, **settings: Any) -> Pruner:
    optimizer = optimizer or torch.optim.Adam(module.parameters(), 3e-3)
    plan = settings.pop("schedule", schedule())
    return Pruner(module, optimizer, plan, **{"total_steps": STEPS, "every": 5, **settings})


def loss_of(module: nn.Module, number: int) -> torch.Tensor:
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(number))
    return (module(x) - x[:, :1].tanh()).square().mean()


def update(module: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    optimizer.zero_grad()
    loss_of(module, number).backward()
    optimizer.step()


def train(module: nn.Module, optimizer: torch.optim.Optimizer, start: int = 0, stop: int = STEPS) -> None:
    for number in range(start, stop):
        update(module, optimizer, number)


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


# ---- the laws of the masks ------------------------------------------------------------------------------------------


@BY_OPTIMIZER
def test_a_final_sparsity_of_0_changes_no_bit(make: Any) -> None:
    pruned, plain = network(), network()
    optimizers = [make(module.parameters()) for module in (pruned, plain)]
    state = torch.get_rng_state()
    pruner = pruner_of(pruned, optimizers[0], schedule=schedule(0.0), example_inputs=ONE)
    assert torch.equal(torch.get_rng_state(), state)
    train(pruned, optimizers[0])
    train(plain, optimizers[1])
    assert equal(pruned, plain)
    for own, other in zip(*(optimizer.state.values() for optimizer in optimizers), strict=True):
        assert all(value is None or torch.equal(value, other[key]) for key, value in own.items())
    assert (pruner.sparsity, pruner.effective_sparsity, pruner.complete) == (0.0, 0.0, True)


@BY_OPTIMIZER
@pytest.mark.parametrize("distribution", ["erk", "uniform"])
@pytest.mark.parametrize("final", [0.5, 0.8])
def test_each_layer_ends_within_one_weight_of_its_share(make: Any, distribution: Any, final: float) -> None:
    module = network()
    optimizer = make(module.parameters())
    pruner = pruner_of(module, optimizer, schedule=schedule(final), distribution=distribution)
    train(module, optimizer)
    shares = layer_sparsities([tuple(weight.shape) for weight in weights(module)], final, distribution)
    for weight, share in zip(weights(module), shares, strict=True):
        assert abs(int((weight == 0).sum()) - share * weight.numel()) <= 1
    assert pruner.complete
    assert pruner.steps == STEPS


def test_the_least_magnitudes_of_all_layers_go_with_global_shares() -> None:
    module = network()
    pruner = pruner_of(module, distribution="global", schedule=PolynomialSchedule(0.0, 0.5, 0.5), total_steps=2)
    every = torch.cat([weight.detach().abs().flatten() for weight in weights(module)])
    least = every.sort().values[len(every) // 2 - 1]
    update(module, pruner.optimizer, 0)
    gone = torch.cat([(weight == 0).flatten() for weight in weights(module)])
    assert torch.equal(gone, every <= least)  # ranked before the step, applied after it


def test_pruned_weights_are_0_after_each_step_and_never_come_back() -> None:
    module = network()
    pruner = pruner_of(module, schedule=PolynomialSchedule(0.2, 0.8, 0.8, power=1))
    gone = [torch.zeros_like(weight, dtype=torch.bool) for weight in weights(module)]
    grown = []
    for number in range(STEPS):
        before = int(sum(own.sum() for own in gone))
        update(module, pruner.optimizer, number)
        masked = [mask == 0 for name, mask in pruner.masks.state_dict().items() if name != "complete"]
        for weight, mask, earlier in zip(weights(module), masked, gone, strict=True):
            assert not weight[mask].any()
            assert bool((mask | ~earlier).all())
        gone = masked
        if int(sum(own.sum() for own in gone)) > before:
            grown.append(number + 1)
    assert grown == [10, 15, 20, 25, 30, 32]  # every 5 steps from .2 of the run on, and at its .8 in any case


def test_biases_are_kept() -> None:
    module = network()
    pruner = pruner_of(module)
    train(module, pruner.optimizer)
    assert all(bool((layer.bias != 0).all()) for layer in module if isinstance(layer, nn.Linear))


def test_masks_grow_at_the_end_whatever_every_says() -> None:
    module = network()
    pruner = pruner_of(module, every=1000)
    train(module, pruner.optimizer, 0, 31)
    assert (pruner.sparsity, pruner.complete) == (0.0, False)
    update(module, pruner.optimizer, 31)
    assert pruner.complete
    assert pruner.sparsity == pytest.approx(0.8, abs=0.01)


def test_progress_of_the_loop_takes_the_place_of_counted_steps() -> None:
    counted, told = network(), network()
    first = pruner_of(counted)
    second = pruner_of(told, total_steps=None, progress=lambda: (second.steps + 1) / STEPS)
    train(counted, first.optimizer)
    train(told, second.optimizer)
    assert equal(counted, told)
    assert second.complete


def test_finish_completes_a_run_that_was_stopped() -> None:
    module = network()
    pruner = pruner_of(module)
    train(module, pruner.optimizer, 0, 12)
    assert not pruner.complete
    pruner.finish()
    assert pruner.complete
    assert sum(int((weight == 0).sum()) for weight in weights(module)) / 252 == pruner.sparsity > 0.79


def test_convolutions_are_pruned_too() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.ReLU(), nn.Linear(72, 1))
    pruner = pruner_of(module, example_inputs=torch.zeros(1, 1, 5, 5))
    for _ in range(STEPS):
        pruner.optimizer.zero_grad()
        module(torch.randn(4, 1, 5, 5)).square().mean().backward()
        pruner.optimizer.step()
    assert all(bool((weight == 0).any()) for weight in weights(module))
    assert pruner.effective_sparsity >= pruner.sparsity == pytest.approx(0.8, abs=0.01)


def test_effective_sparsity_is_that_of_the_paths_and_unknown_without_inputs() -> None:
    module = network()
    assert pruner_of(copy.deepcopy(module)).effective_sparsity is None
    pruner = pruner_of(module, schedule=schedule(0.9), example_inputs=(ONE,))
    train(module, pruner.optimizer)
    assert pruner.sparsity < pruner.effective_sparsity < 1
    x = torch.randn(5, 3)
    living = pruner.masks._known_paths().living(pruner.masks._masks())
    alone = copy.deepcopy(module)
    for weight, mask in zip(weights(alone), living.values(), strict=True):
        weight.data *= mask
    # Units that are cut off from every input are constants, so that only what depends on the input has to agree.
    torch.testing.assert_close(alone(x) - alone(-x), module(x) - module(-x))


def test_masks_that_would_leave_no_path_stay_and_training_goes_on() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    pruner = pruner_of(module, schedule=schedule(0.9), distribution="uniform", example_inputs=torch.zeros(1, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[2.0, 1.0], [0.1, 0.1]]))
        module[2].weight.copy_(torch.tensor([[0.1, 5.0]]))
    with pytest.warns(ComputeWarning, match="training goes on"):
        pruner.finish()
    assert pruner.sparsity == 0.0


# ---- any optimizer, any loop ----------------------------------------------------------------------------------------


def test_a_step_with_a_closure_counts_once() -> None:
    module = network()
    optimizer = torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=3)
    pruner = pruner_of(module, optimizer, total_steps=10)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(module, 0)
        loss.backward()
        return loss

    for _ in range(10):
        optimizer.step(closure)
    assert (pruner.steps, pruner.complete) == (10, True)
    assert pruner.sparsity == pytest.approx(0.8, abs=0.01)
    assert sum(int((weight == 0).sum()) for weight in weights(module)) / 252 == pruner.sparsity


def test_a_closure_that_raises_is_no_step() -> None:
    module = network()
    pruner = pruner_of(module)

    def closure() -> torch.Tensor:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        pruner.optimizer.step(closure)
    assert pruner.steps == 0
    train(module, pruner.optimizer)
    assert pruner.steps == STEPS


def test_an_optimizer_that_calls_its_base_class_steps_once() -> None:
    once, nested = network(), network()
    torch.optim.Adam(network().parameters())  # torch hooks the step of a class when the first one is made
    first, second = (
        pruner_of(once),
        pruner_of(nested, Nested(nested.parameters(), 3e-3)),
    )
    train(once, first.optimizer)
    train(nested, second.optimizer)
    assert second.steps == STEPS
    assert equal(once, nested)


def test_other_parameters_of_the_optimizer_are_left_alone() -> None:
    module, other = network(), nn.Linear(3, 3)
    optimizer = torch.optim.SGD([*module.parameters(), *other.parameters()], 0.1)
    pruner = pruner_of(module, optimizer)
    for number in range(STEPS):
        optimizer.zero_grad()
        (loss_of(module, number) + other(torch.ones(1, 3)).square().sum()).backward()
        optimizer.step()
    assert pruner.complete
    assert bool((other.weight != 0).all())


def test_two_modules_of_one_optimizer_have_a_pruner_each() -> None:
    one, other = network(), network()
    optimizer = torch.optim.Adam([*one.parameters(), *other.parameters()])
    pruners = [pruner_of(one, optimizer, schedule=schedule(0.5)), pruner_of(other, optimizer, schedule=schedule(0.8))]
    for number in range(STEPS):
        optimizer.zero_grad()
        (loss_of(one, number) + loss_of(other, number)).backward()
        optimizer.step()
    assert [round(pruner.sparsity, 1) for pruner in pruners] == [0.5, 0.8]


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_targets_are_0_where_the_module_is_pruned(tau: float) -> None:
    module, target, alone = network(), network(), network()
    pruner = pruner_of(module, targets=target)
    for number in range(STEPS):
        update(module, pruner.optimizer, number)
        with torch.no_grad():
            for follower in (target, alone):
                for own, other in zip(module.parameters(), follower.parameters(), strict=True):
                    other.lerp_(own, tau)
        for weight, mask in zip(weights(target), pruner.masks._masks().values(), strict=True):
            assert not weight[mask == 0].any()
    kept = [mask != 0 for mask in pruner.masks._masks().values()]
    for weight, other, mask in zip(weights(target), weights(alone), kept, strict=True):
        assert torch.equal(weight[mask], other[mask])
