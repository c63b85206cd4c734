"""The fuzz of constructors: its targets are right, and it lists what it finds."""

from typing import Any

import pytest

from benchmarks import constructor_fuzz, constructor_targets


def test_each_target_of_the_fuzz_accepts_its_own_arguments() -> None:
    for targets in (constructor_targets.metering, constructor_targets.policies, constructor_targets.functions):
        for name, (call, arguments) in targets():
            if name != "load_sub_policy":  # there is no sub-policy that is always registered
                call(**arguments())


def test_fuzz_lists_others_errors_and_what_is_accepted_without_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(number: Any) -> Any:
        return number.missing if number is None else number

    monkeypatch.setattr(constructor_fuzz, "targets", lambda: {"careless": (careless, lambda: {"number": 1})})
    result = constructor_fuzz.run(200, seed=0, only=[], seconds=5)
    assert {fault["error"].split(":")[0] for fault in result["faults"]} == {"AttributeError"}
    assert "nan" in result["accepted_without_reason"]["careless(number=)"]


@pytest.mark.filterwarnings("ignore")
def test_a_few_hundred_calls_of_the_fuzz_find_no_fault() -> None:
    quick = [
        "FunctionPolicy",
        "ComputeMeter.add",
        "ExitPolicy",
        "ReplayBuffer",
        "GateTeacher",
        "solve_exit_lp",
        "Every",
    ]
    result = constructor_fuzz.run(420, seed=7, only=quick, seconds=5)
    assert (result["faults"], result["accepted_without_reason"]) == ([], {})
