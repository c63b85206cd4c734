"""The policy that comes with the package is what was stored about it, and every verb that takes a policy takes it."""

import json

import pytest

from agents.cli import main
from agents.studies.names import policy_file
from tests.stored import stored

STORED = "bundled/half-cheetah.json"


def test_it_earns_and_spends_what_was_stored(capsys: pytest.CaptureFixture[str]) -> None:
    record = stored(STORED)
    assert main(["eval", "bundled/half-cheetah", "--env", "HalfCheetah-v5", "--episodes", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["flops_per_step"] == record["flops_per_step"] == 2 * (17 * 256 + 256 * 256 + 256 * 12)
    # Another processor rounds otherwise, and 1,000 steps of MuJoCo drift apart: the least of 20 episodes is near.
    assert found["raw_return"] > 0.9 * min(record["returns"])


def test_it_holds_what_acting_and_valuing_need_and_nothing_that_only_training_needs() -> None:
    path = policy_file("bundled/half-cheetah")
    assert path.stat().st_size == stored(STORED)["bytes"]
    # float32 of the actor, two critics and their two targets, each with its biases.
    actor = 18 * 256 + 257 * 256 + 257 * 12
    critic = 24 * 256 + 257 * 256 + 257
    assert 4 * (actor + 4 * critic) < path.stat().st_size < 1.02 * 4 * (actor + 4 * critic)
