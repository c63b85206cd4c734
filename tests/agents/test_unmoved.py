"""Every number of small trainings equals the stored one; ``benchmarks/unmoved.py`` compares two commits."""

import json
from pathlib import Path

import pytest

from benchmarks.unmoved import RECORDED, case_digests, platform_key
from benchmarks.unmoved_cases import all_cases

STORED = json.loads(RECORDED.read_text())
NAMES = [name for name, case in all_cases().items() if case.recorded]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for data sets."""
    return tmp_path_factory.mktemp("unmoved")


@pytest.mark.parametrize("hashes", STORED.values(), ids=STORED)
def test_every_recorded_case_has_a_hash(hashes: dict[str, str]) -> None:
    assert sorted(hashes) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_that_were_stored(name: str, folder: Path) -> None:
    if platform_key() not in STORED:
        pytest.skip(f"no hashes for {platform_key()!r}: write them with python -m benchmarks.unmoved COMMIT --record")
    assert case_digests([name], folder) == {name: STORED[platform_key()][name]}
