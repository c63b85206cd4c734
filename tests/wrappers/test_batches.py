"""What a batch is, and what each of its rows cost."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from torch import Tensor, nn

from budget_wrappers.errors import MeterError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import vector as vectors
from tests.wrappers.acting import LAYER, acts, recorded, step
from tests.wrappers.environments import SpacesEnv


def test_candidates_of_a_planner_are_one_observation(meter: ComputeMeter) -> None:
    net = nn.Linear(3, 2)
    meter.watch(net, rows=1)
    env = recorded(meter)
    acts(net, rows=64)
    assert step(env)["cost"] == 64 * LAYER


def test_time_first_batches_have_their_rows_in_the_second_dimension(meter: ComputeMeter) -> None:
    net = nn.Linear(3, 2)
    meter.watch(net, rows=lambda x: x.shape[1])
    envs = vectors.RecordComputeStatistics(SyncVectorEnv([SpacesEnv] * 2), meter)
    envs.reset(seed=0)
    with torch.no_grad():
        net(torch.zeros(5, 2, 3))
    assert step(envs)["cost"].tolist() == [5 * LAYER] * 2


@pytest.mark.parametrize("shape", [(7, 3), (5, 2, 3)], ids=["graph", "sequence"])
def test_a_batch_that_may_be_one_observation_is_refused_with_the_way_to_say_it(
    meter: ComputeMeter, shape: tuple[int, ...]
) -> None:
    net = nn.Linear(3, 2)
    meter.watch(net)
    env = recorded(meter)
    with torch.no_grad():
        net(torch.zeros(shape))
    with pytest.raises(MeterError, match=r"watch\(module, rows=1\)"):
        step(env)


@pytest.mark.parametrize(("numbers", "rows"), [([1, 2, 3], 1), ([[1, 2, 3], [0, 0, 0]], 2)], ids=["one", "two"])
def test_numbers_for_an_embedding_are_one_observation_unless_each_has_a_row_of_its_own(
    meter: ComputeMeter, numbers: list[Any], rows: int
) -> None:
    net = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(0 if rows == 1 else 1), nn.Linear(12, 2))
    meter.watch(net)
    with torch.no_grad():
        net(torch.tensor(numbers))
    meter.take()
    assert meter.last_rows == rows


def test_a_batch_of_single_numbers_for_an_embedding_has_a_row_for_each(meter: ComputeMeter) -> None:
    net = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))
    meter.watch(net)
    with torch.no_grad():
        net(torch.tensor([1, 2, 3]))
    meter.take()
    assert meter.last_rows == 3


# ---- rows that cost differently --------------------------------------------------------------------------------------


class Exiting(nn.Module):
    """2·3·4 = 24 for every row, 2·4·8 + 2·8·4 = 128 more for those that stay, 2·4·2 = 16 for the head."""

    def __init__(self, pick: str) -> None:
        super().__init__()
        self.pick, self.first, self.head = pick, nn.Linear(3, 4), nn.Linear(4, 2)
        self.deep = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        hidden, stay = self.first(x), x[:, 0] > 0
        if self.pick == "mask":
            hidden[stay] = self.deep(hidden[stay])
        elif self.pick == "nonzero":
            where = stay.nonzero()[:, 0]
            hidden = hidden.index_copy(0, where, self.deep(hidden.index_select(0, where)))
        elif self.pick == "numpy":
            where = torch.from_numpy(np.flatnonzero(x[:, 0].numpy() > 0))
            hidden[where] = self.deep(hidden[where])
        elif self.pick == "item":
            hidden = torch.cat([self.deep(row[None]) if keep.item() else row[None]
                                for row, keep in zip(hidden, stay, strict=True)])  # fmt: skip
        else:
            hidden = torch.stack(
                [self.deep(row) if keep else row for row, keep in zip(hidden, stay.tolist(), strict=True)]
            )
        return self.head(hidden)


@pytest.mark.parametrize("pick", ["mask", "nonzero", "numpy", "item", "list"])
@pytest.mark.parametrize("first", [(1, -1), (-1, 1, 1), (1, 1), (-1, -1, -1), (1, -1, 1, -1)], ids=str)
def test_each_environment_pays_for_what_its_row_ran(meter: ComputeMeter, pick: str, first: tuple[int, ...]) -> None:
    net = Exiting(pick)
    meter.watch(net)
    envs = vectors.RecordComputeStatistics(SyncVectorEnv([SpacesEnv] * len(first)), meter)
    envs.reset(seed=0)
    with torch.no_grad():
        net(torch.tensor([[float(value), 0.0, 0.0] for value in first]))
    assert step(envs)["cost"].tolist() == [24 + 16 + 128 * (value > 0) for value in first]


class Routed(nn.Module):
    """2·3·3 = 18 for every row, and 2·3·9 + 2·9·3 = 108 for each that is picked."""

    def __init__(self, pick: str) -> None:
        super().__init__()
        self.pick, self.first = pick, nn.Linear(3, 3)
        self.deep = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 3))

    def forward(self, x: Tensor) -> Tensor:
        hidden, rows = self.first(x), len(x)
        if self.pick == "capacity":
            where = torch.randperm(rows)[: rows // 2]
        elif self.pick == "experts":
            where = x[:, 0].topk(rows // 2).indices
        else:  # two candidates for each row that is unsure
            where = torch.from_numpy(np.flatnonzero(x[:, 0].numpy() > 0).repeat(2))
        return hidden.index_add(0, where, self.deep(hidden[where]))


@pytest.mark.parametrize("pick", ["capacity", "experts"])
@pytest.mark.parametrize("rows", [2, 4])
def test_what_a_row_runs_by_itself_is_no_share_where_the_batch_ran_more(
    meter: ComputeMeter, pick: str, rows: int
) -> None:
    net = Routed(pick)
    meter.watch(net)
    envs = vectors.RecordComputeStatistics(SyncVectorEnv([SpacesEnv] * rows), meter)
    envs.reset(seed=0)
    acts(net, rows=rows)
    with pytest.raises(MeterError, match="by_row"):
        step(envs)


def test_candidates_that_happen_to_be_as_many_as_rows_are_paid_by_the_row_that_had_them(meter: ComputeMeter) -> None:
    net = Routed("candidates")
    meter.watch(net)
    envs = vectors.RecordComputeStatistics(SyncVectorEnv([SpacesEnv] * 2), meter)
    envs.reset(seed=0)
    costs = []
    for first in (-1.0, 1.0, 1.0):
        with torch.no_grad():
            net(torch.tensor([[first, 0, 0], [-1.0, 0, 0]]))
        costs.append(step(envs)["cost"].tolist())
    assert costs == [[18.0, 18.0], [18.0 + 216.0, 18.0], [18.0 + 216.0, 18.0]]


class ByFirst(nn.Module):
    """All rows go the way of the first: nobody's share follows from the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.one(x)
        return out + self.two(x[:1]) if x[0, 0] > 0 else out


def test_shares_that_nobody_knows_are_refused_where_they_divide_evenly_too(meter: ComputeMeter) -> None:
    net = ByFirst()
    meter.watch(net)
    envs = vectors.RecordComputeStatistics(SyncVectorEnv([SpacesEnv] * 3), meter)
    envs.reset(seed=0)
    with torch.no_grad():
        net(torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]]))  # 4 products of 12 FLOPs for 3 rows: 16 each
    with pytest.raises(MeterError, match="by_row"):
        step(envs)


def test_a_product_that_is_shared_by_all_rows_is_shared_evenly(meter: ComputeMeter) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(2, 1)), nn.Parameter(torch.ones(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.a @ self.b).T  # 12 FLOPs once, 12 a row

    net = Shared()
    meter.watch(net)
    envs = vectors.RecordComputeStatistics(SyncVectorEnv([SpacesEnv] * 3), meter)
    envs.reset(seed=0)
    acts(net, rows=3)
    assert step(envs)["cost"].tolist() == [16.0] * 3
