"""A word of --methods says what it says, and a wrong one is refused with the nearest right one."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from agents.cli.tradeoff import settings_of
from agents.studies import names
from agents.studies.spec import CHOOSERS, MethodSpec
from budget_wrappers.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sac", {"kind": "agent", "agent": "sac", "name": "sac", "widths": ()}),
        ("sac:64,32", {"agent": "sac", "name": "sac:64,32", "widths": (64, 32)}),
        ("asymmetric/swimmer", {"agent": "asymmetric", "preset": "swimmer"}),
        ("sac+exits+polyprune:8", {"agent": "sac", "methods": ("exits", "polyprune"), "widths": (8,)}),
        ("asymmetric+large.exits", {"agent": "asymmetric", "methods": ("large.exits",)}),
        ("bexa-sac@gate_training=batch_budget", {"name": "bexa-sac", "settings": {"gate_training": "batch_budget"}}),
        ("batch=bexa-sac@gamma=0.9", {"name": "batch", "agent": "bexa-sac", "settings": {"gamma": 0.9}}),
        ("sac@net-arch=8,4@gamma=1", {"settings": {"net_arch": [8, 4], "gamma": 1}}),
        ("sac+exits@exits.budget=0.5", {"settings": {"exits.budget": 0.5}}),
        ("dense:16", {"kind": "dense", "widths": (16,), "control": True}),
        ("fit", {"kind": "fit", "control": True}),
        *((word, {"kind": "chooser", "agent": word, "control": True}) for word in CHOOSERS),
        ("my.module:Mine@alpha=2", {"kind": "contender", "target": "my.module:Mine", "settings": {"alpha": 2}}),
    ],
)
def test_a_word_says_what_it_says(word: str, expected: dict[str, Any]) -> None:
    spec = MethodSpec.parse(word)
    assert {key: getattr(spec, key) for key in expected} == expected


def test_a_path_is_a_trained_policy_and_may_be_given_exits(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.touch()
    taken, retrofitted = MethodSpec.parse(str(path)), MethodSpec.parse(f"retrofit:{path}@rounds=1")
    assert (taken.kind, taken.target, taken.runs_code) == ("policy", str(path), True)
    assert (retrofitted.kind, retrofitted.target, retrofitted.settings) == ("retrofit", str(path), {"rounds": 1})


def test_what_may_run_code_says_so() -> None:
    assert MethodSpec.parse("os:system").runs_code
    assert not MethodSpec.parse("sac+exits:8").runs_code


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sacc", "no method 'sacc'; did you mean 'sac'"),
        ("sac+exist", "adds 'exist'; did you mean 'exits'"),
        ("sac:64x64", "the widths '64x64': expected numbers, such as sac:64,64"),
        ("sac:0", "a layer of 0 units"),
        ("dense", "expected widths, such as dense:16"),
        ("fit:16", "expected none, as it follows each method"),
        ("coin@gamma=1", "has settings: expected a control as it is"),
        ("asymmetric/swimer", "did you mean 'swimmer'"),
        ("sac@gamma=", "sets gamma to nothing"),
        ("nowhere/model.zip", "names 'nowhere/model.zip', which does not exist"),
        ("retrofit:nowhere", "names 'nowhere', which does not exist"),
    ],
)
def test_a_wrong_word_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        MethodSpec.parse(word)
    assert said in str(raised.value)


def test_a_date_is_a_text_as_nothing_is_set_to_one() -> None:
    assert MethodSpec.parse("mine:Contender@when=1979-05-27").settings == {"when": "1979-05-27"}
    assert MethodSpec.parse("mine:Contender@when=1979-05-27,3").settings == {"when": "1979-05-27,3"}


def test_a_date_in_a_table_of_settings_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"x\.toml has \[settings\.sac\] with a date"):
        settings_of([("x.toml", {"settings": {"sac": {"when": datetime.date(1979, 5, 27)}}})])


def test_a_policy_that_comes_with_the_package_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(names, "POLICIES", tmp_path)
    (tmp_path / "half-cheetah.safetensors").touch()
    (tmp_path / "pendulum.safetensors").touch()
    # The word stays as it was given, so that a stored comparison names no place on somebody's disk.
    spec = MethodSpec.parse("sac=retrofit:bundled/half-cheetah@steps=5")
    assert (spec.kind, spec.name, spec.target) == ("retrofit", "sac", "bundled/half-cheetah")
    assert names.policy_file(spec.target) == tmp_path / "half-cheetah.safetensors"
    assert names.policy_file("runs/half-cheetah") == Path("runs/half-cheetah")
    with pytest.raises(ConfigError, match=r"no policy 'bundled/half-cheeta' comes with .* did you mean 'half-"):
        MethodSpec.parse("bundled/half-cheeta")


def test_a_file_of_the_users_own_goes_before_what_comes_with_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(names, "POLICIES", tmp_path)
    (tmp_path / "half-cheetah.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    Path("bundled").mkdir()
    Path("bundled/half-cheetah").touch()
    assert names.policy_file("bundled/half-cheetah") == Path("bundled/half-cheetah")
