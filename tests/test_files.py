"""Every kind of file that is saved: whole or not at all, readable as the umask says, and noticed where a bit flips."""

import json
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from agents.loop.checkpoint import read, save_agent
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.log import RunFolder, read_rows
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy, Normalisation
from budget_wrappers.errors import BudgetError, CheckpointError
from budget_wrappers.metering import Energy, Latency, Profile
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies.outputs import ActionMap
from tests.agents.small import make_agent

EPISODE = {"return": -143.25, "flops": 190_400.0, "length": 200.0}
POINT = TradeoffPoint("asymmetric", "λ = 0.03", 1, -143.25, 952.0, [EPISODE], [(500, -900.5)], {"weight": 0.03})
PROFILE = Profile(
    *("policy", 1_234, "matmul", 617, Latency(10.5, 11.5, 12.5, 10.75, 100, 10, 1, None)),
    *(Energy(0.0015, "estimated", 10, 1.5), 50.0, True, "cpu", {"processor": "one"}),
)
Saved = tuple[Callable[[Path], Path], Callable[[Path], Any]]


def exit_policy() -> BudgetedExitPolicy:
    network = EarlyExitNetwork(3, 2, (8, 4), activation="tanh")
    normalisation = Normalisation(np.array([1.0, 0.0, -1.0]), np.array([2.0, 1.0, 0.5]), 5.0)
    return BudgetedExitPolicy(network, ActionMap("squash", (-1.0, -2.0), (1.0, 2.0)), 0.25, normalisation)


def seen_in(policy: BudgetedExitPolicy) -> Any:
    weights = {name: value.tolist() for name, value in policy.network.state_dict().items()}
    means = None if policy.normalisation is None else (*policy.normalisation.mean, *policy.normalisation.std)
    return weights, means, policy.budget, policy.action_map, policy.network.depths, policy.network.activation


def read_agent(path: Path) -> Any:
    header, tensors = read(path)
    return header, {name: value.tolist() for name, value in tensors.items()}


def written(folder: Path) -> Path:
    with RunFolder(folder, {"steps": 3}, command="budget train") as run:
        run.write({"kind": "training", "step": 1, "loss": 0.125}, seconds=0.5)
        run.write({"kind": "evaluation", "step": 2, "return": -143.25}, seconds=0.25)
    return folder / "metrics.jsonl"


@pytest.fixture(scope="module")
def agent() -> Any:
    return make_agent("sac", net_arch=(2, 2)).learn(20)


@pytest.fixture
def kinds(agent: Any) -> dict[str, Saved]:
    """Return for each kind of file how one is saved below a folder, and what reading it returns."""
    return {
        "checkpoint": (lambda folder: save_agent(agent, folder / "agent.safetensors", replay=True), read_agent),
        "exit policy": (
            lambda folder: exit_policy().save(folder / "policy.safetensors"),
            lambda path: seen_in(BudgetedExitPolicy.load(path)),
        ),
        "profile": (lambda folder: (PROFILE.save(folder / "card.json"), folder / "card.json")[1], Profile.load),
        "comparison": (
            lambda folder: Comparison("Pendulum-v1", [POINT], versions={"torch": "2.13"}).write(folder),
            lambda path: Comparison.read(path.parent),
        ),
        "metrics": (lambda folder: written(folder / "run"), lambda path: list(read_rows(path.parent))),
    }


KINDS = ["checkpoint", "exit policy", "profile", "comparison", "metrics"]


def flips(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield copies of ``content`` with one bit flipped each."""
    draws = random.Random(seed)
    for _ in range(count):
        damaged = bytearray(content)
        damaged[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        yield bytes(damaged)


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bit_of_any_file_is_noticed_or_harmless(kind: str, kinds: dict[str, Saved], tmp_path: Path) -> None:
    save, load = kinds[kind]
    path = save(tmp_path)
    content, whole, refused = path.read_bytes(), load(path), 0
    for damaged in flips(content, 60, seed=1):
        path.write_bytes(damaged)
        try:
            found = load(path)
        except BudgetError:
            refused += 1
            continue
        # A half-written last line is not a row: what is lost is the end, and nothing is another number.
        assert found == whole or (kind == "metrics" and not damaged.endswith(b"\n") and found == whole[:-1])
    assert refused >= 30


@pytest.mark.parametrize("part", ["network/", "normalisation/"])
def test_every_bit_of_a_deployed_weight_is_guarded(part: str, tmp_path: Path) -> None:
    path = exit_policy().save(tmp_path / "policy")
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    entries = {name: entry for name, entry in json.loads(content[8:start]).items() if name.startswith(part)}
    for place in (start + entry["data_offsets"][0] for entry in entries.values()):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="checksum"):
            BudgetedExitPolicy.load(path)


def test_a_policy_of_the_format_without_checksums_acts_and_says_so(tmp_path: Path) -> None:
    path = exit_policy().save(tmp_path / "policy")
    whole = seen_in(BudgetedExitPolicy.load(path))
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["budget_wrappers_exit_policy"])
    header |= {"format": "budget_wrappers exit policy 1"}
    header.pop("crc32", None)
    save_file(load_file(path), path, metadata={"budget_wrappers_exit_policy": json.dumps(header)})
    with pytest.warns(UserWarning, match="has no checksums"):
        assert seen_in(BudgetedExitPolicy.load(path)) == whole


# ---- whole or not at all --------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="modes of files are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
@pytest.mark.parametrize("kind", KINDS)
def test_the_umask_says_who_may_read_a_file(kind: str, umask: int, kinds: dict[str, Saved], tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        mode = stat.S_IMODE(kinds[kind][0](tmp_path).stat().st_mode)
    finally:
        os.umask(before)
    assert oct(mode) == oct(0o666 & ~umask)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "metrics"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    kind: str, kinds: dict[str, Saved], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, load = kinds[kind]
    path = save(tmp_path)
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises((OSError, CheckpointError), match="No space left"):
            save(tmp_path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    load(path)


@pytest.mark.parametrize("kind", ["exit policy", "profile"])
def test_two_writers_of_one_file_never_share_what_they_write_to(
    kind: str, kinds: dict[str, Saved], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, load = kinds[kind]
    path, replace, unfinished = save(tmp_path), os.replace, []

    def meanwhile(source: Any, target: Any) -> None:
        unfinished.append(Path(source).name)
        if len(unfinished) == 1:
            save(tmp_path)  # another writer saves, while this one is about to
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    save(tmp_path)
    assert len(unfinished) == len(set(unfinished)) == 2
    load(path)
