"""Common settings, a preset, widths and settings of a word come together in this order, each key where it belongs."""

import pytest

from agents.studies.resolving import Recipe
from agents.studies.spec import MethodSpec
from budget_wrappers.errors import ConfigError


def recipe(word: str, steps: int = 10_000, own: dict | None = None, **common: object) -> Recipe:
    return Recipe.of(MethodSpec.parse(word), common, own or {}, steps)


def test_later_settings_override_earlier_ones() -> None:
    assert recipe("sac", gamma=0.5).get("gamma") == 0.5
    assert recipe("asymmetric/swimmer", net_arch=(8, 8)).get("net_arch") == (256, 256)  # the preset's
    assert recipe("asymmetric/swimmer:16,16").get("net_arch") == (16, 16)
    assert recipe("sac", own={"gamma": 0.6}, gamma=0.5).get("gamma") == 0.6
    assert recipe("sac@gamma=0.7", own={"gamma": 0.6}, gamma=0.5).get("gamma") == 0.7


def test_a_common_setting_goes_to_those_who_have_it() -> None:
    assert "ent_coef" not in recipe("dqn", ent_coef=0.1).settings
    assert recipe("sac", ent_coef=0.1).get("ent_coef") == 0.1


def test_a_key_of_a_method_is_given_plainly_or_with_its_owner() -> None:
    assert recipe("sac+exits@budget=0.5").records == recipe("sac+exits@exits.budget=0.5").records
    assert recipe("sac+exits@budget=0.5").get("budget") == 0.5
    of_large = recipe("asymmetric+large.exits@large.exits.budget=0.25")
    assert of_large.records["large_methods"][0]["settings"]["budget"] == 0.25


def test_one_value_stands_for_a_list_of_one() -> None:
    assert recipe("asymmetric@small_net_arch=4").get("small_net_arch") == (4,)


@pytest.mark.parametrize(
    ("word", "priced", "plain", "conditioned"),
    [
        ("sac", [], "sac", False),
        ("bexa-sac", ["budget"], "sac", False),
        ("bexa-dqn", ["budget"], "dqn", False),
        ("td3+exits", ["budget"], "td3", False),
        ("asymmetric", ["weight"], "sac", False),
        ("asymmetric+large.exits", ["budget", "weight"], "sac", False),
        ("bexa-sac@budget_from_observation=true", [], "sac", True),
        ("sac+polyprune", [], "sac", False),
    ],
)
def test_what_a_study_goes_through_follows_from_the_keys(
    word: str, priced: list[str], plain: str, conditioned: bool
) -> None:
    found = recipe(word)
    assert (found.priced, found.plain, found.conditioned) == (priced, plain, conditioned)


def test_no_replay_holds_more_than_the_steps_and_a_master_begins_within_a_tenth_of_them() -> None:
    found = recipe("asymmetric", steps=500)
    assert (found.get("buffer_size"), found.get("master_learning_starts")) == (500, 50)
    assert recipe("asymmetric", steps=10**7).get("master_learning_starts") == 1_000  # its own
    assert recipe("asymmetric@master_learning_starts=300", steps=500).get("master_learning_starts") == 300


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sac@gama=1", "did you mean 'gamma'"),
        ("sac@seed=5", "pass --seeds"),
        ("sac@gamma=2", "a discount in [0, 1]"),
        ("sac+exits@budgt=1", "did you mean 'budget'"),
        ("cql", "learns from a data set"),
        ("asymmetric+exits", "expected small.exits or large.exits"),
        ("bexa-sac@net_arch=0", "widths of at least 1"),
    ],
)
def test_what_cannot_be_trained_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        recipe(word)
    assert said in str(raised.value)
