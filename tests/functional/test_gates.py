"""Gates and mixtures of exits are each other's inverse; what is never asked gives neither a number nor a gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.budget_lp import problems
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.budget_lp import solve_batch_lp, solve_exit_lp
from budget_wrappers.functional.gates import (
    choice_information,
    first_good_enough,
    gate_loss,
    gate_probabilities,
    mixture_weights,
    reach_of,
    softmax_mixture,
)

shares = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(0, 1)).map(
    lambda raw: torch.tensor((raw + 1e-9) / (raw + 1e-9).sum(1, keepdims=True))
)


def test_a_mixture_is_made_of_what_each_gate_lets_through() -> None:
    # .5 leave at once; of the other half a fifth at the second: .1; the rest, .4, at the last
    assert mixture_weights(torch.tensor([[0.5, 0.2, 1.0]])).tolist() == [[0.5, pytest.approx(0.1), pytest.approx(0.4)]]


@settings(max_examples=200, deadline=None)
@given(alpha=shares, precision=st.sampled_from([torch.float32, torch.float64]))
def test_gates_make_the_mixture_that_they_were_made_for(alpha: torch.Tensor, precision: torch.dtype) -> None:
    p, reachable = gate_probabilities(alpha.to(precision))
    assert ((p >= 0) & (p <= 1 + 1e-6)).all()
    assert reachable[:, 0].all()
    assert torch.allclose(mixture_weights(p), alpha.to(precision), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gates_make_the_program_s_mixtures(dtype: torch.dtype) -> None:
    for values, costs, budget in problems(2, 400, 6):
        for alpha in (
            solve_exit_lp(values.to(dtype), costs.to(dtype), budget),
            solve_batch_lp(values.to(dtype), costs.to(dtype), budget)[0],
        ):
            p, _ = gate_probabilities(alpha)
            assert torch.isfinite(p).all()
            assert (mixture_weights(p) - alpha).abs().max() <= 1e-6


def test_a_gate_behind_one_that_always_opens_is_never_asked() -> None:
    p, reachable = gate_probabilities(torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    assert reachable.tolist() == [[True, True, False, False]]
    assert p.tolist() == [[0.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize("kind", ["per_gate", "mixture"])
def test_a_gate_that_is_never_asked_gets_no_gradient(kind: str) -> None:
    logits = torch.tensor([[0.3, 50.0, -200.0]], requires_grad=True)
    loss = gate_loss(logits, torch.tensor([[1.0, 0.0, 0.0, 0.0]]), kind)
    (gradient,) = torch.autograd.grad(loss, logits)
    # the first gate should open: d/dx softplus(−x) = σ(x) − 1
    assert gradient[0, 0] == pytest.approx(torch.sigmoid(torch.tensor(0.3)).item() - 1)
    assert gradient[0, 1:].tolist() == [0.0, 0.0]
    assert torch.isfinite(loss)


@settings(max_examples=100, deadline=None)
@given(alpha=shares, seed=st.integers(0, 1000))
def test_the_mixture_loss_is_the_cross_entropy_of_the_mixture(alpha: torch.Tensor, seed: int) -> None:
    logits = torch.randn(len(alpha), alpha.shape[1] - 1, generator=torch.Generator().manual_seed(seed)).double()
    made = mixture_weights(torch.cat([torch.sigmoid(logits), torch.ones(len(alpha), 1)], 1))
    assert gate_loss(logits, alpha, "mixture") == pytest.approx(float(-(alpha * made.log()).sum(1).mean()), abs=1e-9)


def test_plain_entropies_count_every_asked_gate_alike() -> None:
    # targets (.5, 0 of the half that is left): BCE(0, .5) + BCE(0, 0) = 2·log 2; in the mixture the second counts half
    logits, alpha = torch.zeros(1, 2), torch.tensor([[0.5, 0.0, 0.5]])
    assert gate_loss(logits, alpha, "per_gate") == pytest.approx(2 * np.log(2))
    assert gate_loss(logits, alpha, "mixture") == pytest.approx(1.5 * np.log(2))


def test_the_best_gates_under_the_mixture_loss_meet_the_budget_and_plain_ones_do_not() -> None:
    # Two states that the gates cannot tell apart; costs 0, .5, 1 and targets of mean cost .5·(.1·.5) + .5·.9 = .475.
    alpha = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.0, 0.9]], dtype=torch.float64)
    best = {
        # plain: each gate's mean target, (.9 + .1)/2 and (1 + 0)/2; share of the last exit .5·.5
        "per_gate": (torch.tensor([0.5, 0.5], dtype=torch.float64), 0.25 * 0.5 + 0.25),
        # mixture: mean α_i over mean reach, .5 and .05/.5; shares .5, .05, .45
        "mixture": (torch.tensor([0.5, 0.1], dtype=torch.float64), 0.475),
    }
    for kind, (p, spent) in best.items():
        logits = torch.logit(p).requires_grad_()
        (gradient,) = torch.autograd.grad(gate_loss(logits.expand(2, -1), alpha, kind), logits)
        assert gradient.abs().max() < 1e-12
        made = mixture_weights(torch.cat([p, torch.ones(1)]))
        assert made @ torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64) == pytest.approx(spent)


def test_the_earliest_exit_that_is_good_enough_acts_and_else_the_last() -> None:
    values = torch.tensor([[1.0, 5.0, 4.0], [9.0, 0.0, 4.0], [0.0, 1.0, 2.0], [3.0, 3.0, 3.0]])
    assert first_good_enough(values, values[:, -1:]).argmax(1).tolist() == [1, 0, 2, 0]
    assert first_good_enough(values, torch.tensor(100.0)).argmax(1).tolist() == [2, 2, 2, 2]


def test_softmax_mixture_sharpens_as_it_cools() -> None:
    values = torch.tensor([[1.0, 2.0]])
    # σ(1) and σ(10)
    assert softmax_mixture(values, 1.0)[0, 1] == pytest.approx(0.7310586)
    assert softmax_mixture(values, 0.1)[0, 1] == pytest.approx(0.9999546)
    with pytest.raises(ConfigError, match="gate_temperature=0: expected a number above 0"):
        softmax_mixture(values, 0)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="gate_loss='sum': expected 'per_gate' or 'mixture'"):
        gate_loss(torch.zeros(1, 1), torch.tensor([[0.5, 0.5]]), "sum")


def test_reach_is_what_has_not_left_yet() -> None:
    assert reach_of(torch.tensor([[0.5, 0.25, 0.25]])).tolist() == [[1.0, 0.5, 0.25]]


# ---- how much a choice looks at the state ---------------------------------------------------------------------------


def test_a_coin_that_does_not_look_at_the_state_has_no_information() -> None:
    assert choice_information(torch.tensor([[0.2, 0.3, 0.5]]).repeat(7, 1)).item() == pytest.approx(0.0, abs=1e-6)
    assert choice_information(torch.tensor([[0.2, 0.8]])).item() == pytest.approx(0.0, abs=1e-6)  # one state


@pytest.mark.parametrize("exits", [2, 3, 5])
def test_states_that_each_have_one_exit_and_use_all_alike_have_log_k(exits: int) -> None:
    alpha = torch.eye(exits, dtype=torch.float64).repeat(4, 1)
    assert choice_information(alpha).item() == pytest.approx(np.log(exits), rel=1e-12)


def test_one_exit_for_all_states_tells_nothing() -> None:
    assert choice_information(torch.tensor([[0.0, 1.0]]).repeat(3, 1)).item() == 0.0


def test_information_by_hand() -> None:
    # mixtures (1, 0) and (½, ½): their mean is (¾, ¼), of entropy −¾ log ¾ − ¼ log ¼ = .562335; theirs are 0 and log 2,
    # .346574 on average
    alpha = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    assert choice_information(alpha).item() == pytest.approx(0.562335 - 0.346574, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(alpha=shares)
def test_information_matches_oracle(alpha: torch.Tensor) -> None:
    # mutual information as the mean divergence of each state's mixture from that of all
    rows, whole = alpha.numpy(), alpha.numpy().mean(0)
    divergence = np.where(rows > 0, rows * np.log(np.where(rows > 0, rows / whole, 1.0)), 0.0).sum(1).mean()
    found = choice_information(alpha).item()
    assert found == pytest.approx(divergence, abs=1e-9)
    assert 0.0 <= found <= np.log(alpha.shape[1]) + 1e-9


@pytest.mark.parametrize("alpha", [torch.ones(3), torch.ones(0, 2), torch.ones(2, 3, 1)], ids=["row", "empty", "deep"])
def test_information_of_what_is_no_batch_of_mixtures_is_refused(alpha: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"alpha has shape .*expected \(B, K\)"):
        choice_information(alpha)
