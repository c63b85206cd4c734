"""The contract of every wrapper for a single environment. A new wrapper inherits it and says how it is made."""

import inspect
import json
from typing import Any, ClassVar

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence

from budget_wrappers.metering import get_meter
from budget_wrappers.wrappers import check_wrapper
from budget_wrappers.wrappers.account import find_attribute
from budget_wrappers.wrappers.reading import find_chooser
from tests.wrappers.environments import KINDS, make

# check_env prefers bare environments, and casts space bounds for its own rendering; neither is about us
QUIET = pytest.mark.filterwarnings(
    "ignore:.*different from the unwrapped version.*", "ignore:.*must be a float, int, np.integer or np.floating.*"
)


def charge(env: gym.Env, flops: int = 64) -> None:
    """Play the policy: charge every meter that the stack reads; over a chooser what its selector declares."""
    chooser = find_chooser(env)
    for account in find_attribute(env, "compute_accounts", ()):
        account.meter.add(flops if chooser is None else chooser.selector_flops)


def trajectory(env: gym.Env, seed: int = 0, steps: int = 20) -> list[Any]:
    """Return everything that an agent sees in ``steps`` steps of a charged random policy."""
    env.action_space.seed(seed)
    record: list[Any] = [env.reset(seed=seed)]
    for _ in range(steps):
        charge(env)
        record.append(env.step(env.action_space.sample()))
        if record[-1][2] or record[-1][3]:
            record.append(env.reset())
    return record


class WrapperContract:
    """Laws of all wrappers. Subclasses set the three names below."""

    wrapper: ClassVar[type[gym.Wrapper]]
    variants: ClassVar[dict[str, tuple[dict[str, Any], dict[str, Any]]]]
    """Of every constructor argument: two sets of arguments that differ in it and must make a visible difference."""

    def arguments(self, kind: str) -> dict[str, Any]:
        """Return plain constructor arguments that fit an environment of ``kind``."""
        return {}

    def inside(self, env: gym.Env) -> gym.Env:
        """Return ``env`` with what the wrapper needs inside."""
        return env

    def wrap(self, env: gym.Env, kind: str = "box", **arguments: Any) -> gym.Wrapper:
        """Return ``env`` wrapped."""
        return self.wrapper(self.inside(env), **{**self.arguments(kind), **arguments})

    @QUIET
    @pytest.mark.parametrize("kind", KINDS)
    def test_gymnasium_accepts_it(self, kind: str) -> None:
        get_meter("policy").add(0)
        check_env(self.wrap(make(kind), kind))

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_keeps_the_contract(self, kind: str) -> None:
        check_wrapper(lambda: make(kind), lambda env: self.wrap(env, kind))

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_spec_survives_json(self, kind: str) -> None:
        env = self.wrap(make(kind), kind)
        remade = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
        assert type(remade) is self.wrapper
        assert json.loads(remade.spec.to_json()) == json.loads(env.spec.to_json())

    def test_the_same_seed_is_the_same_run_and_another_is_not(self) -> None:
        first, same, other = (trajectory(self.wrap(make()), seed) for seed in (0, 0, 1))
        assert data_equivalence(first, same, exact=True)
        assert not data_equivalence(first, other, exact=True)

    def test_every_argument_changes_something_visible(self) -> None:
        arguments = set(inspect.signature(self.wrapper.__init__).parameters) - {"self", "env"}
        assert set(self.variants) == arguments
        for name, (one, other) in self.variants.items():
            assert not data_equivalence(
                self.visible(self.wrap(make(), **one)), self.visible(self.wrap(make(), **other)), exact=True
            ), name

    def visible(self, env: gym.Env) -> list[Any]:
        """Return what shows a difference between two wrappers: a trajectory, charged on the meter ``"policy"`` only."""
        env.action_space.seed(0)
        record: list[Any] = [str(env.observation_space), str(env.action_space), env.reset(seed=0)]
        for _ in range(14):
            get_meter("policy").add(64)
            record.append(env.step(env.action_space.sample()))
            if record[-1][2] or record[-1][3]:
                record.append(env.reset())
        return record

    def test_what_was_pending_at_a_reset_is_nobodys_cost(self) -> None:
        clean, late = (self.wrap(make()) for _ in range(2))
        results = []
        for env, pending in ((clean, 0), (late, 7)):
            charge(env, pending)
            env.action_space.seed(0)
            env.reset(seed=0)
            charge(env, 64)
            results.append(env.step(env.action_space.sample()))
        assert data_equivalence(*results, exact=True)

    def test_its_docstring_is_a_catalogue_entry(self) -> None:
        lines = inspect.getdoc(self.wrapper).splitlines()
        assert lines[0].endswith(".") and len(lines[0]) <= 120
        text = "\n".join(lines)
        assert "vector version exists" in text.replace("\n", " ")
        assert ">>> " in text and "Change logs:" in text
