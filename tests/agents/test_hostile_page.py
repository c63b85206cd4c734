"""A stranger's comparison is data: on the page it is shown, and never becomes markup, an attribute or a script."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.report.axes import log_ticks, round_ticks
from agents.report.markup import Markup, element, joined
from agents.report.reading import NUMBERS, TEXTS
from agents.report.report import write_report
from agents.report.tradeoff import FILE_NAME, Comparison, TradeoffPoint
from budget_wrappers.errors import CheckpointError
from tests.agents.pages import Page, undrawn  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("undrawn")

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onfocus='alert(1)' autofocus='",
    "</title></style></svg><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "<!--",
    "]]>&lt;b&gt;&#60;",
    "\u202e\n\t\0 {{7*7}} ${1}",
]


def comparison(text: str) -> Comparison:
    """Return a comparison with ``text`` everywhere that a text may stand."""
    extras = dict.fromkeys(TEXTS, text)
    extras |= {"shares": {text: 1.0}, "timeline": {"choices": [text], "names": [text], "rewards": [1.0]}}
    points = [
        TradeoffPoint(text, text, 0, 1.0, 10.0, extras=extras),
        TradeoffPoint("b", f"{text} too", 0, 2.0, 20.0, extras={**extras, "baseline": True, "of": text}),
    ]
    return Comparison(text, points, command=text, versions={text: text}, settings={text: [text], "random_return": 0.0})


def page_of(text: str, folder: Path) -> Page:
    comparison(text).write(folder)
    return Page(write_report([folder]).page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_change_nothing_but_texts(text: str, tmp_path: Path) -> None:
    found, plain = page_of(text, tmp_path / "hostile"), page_of("harmless", tmp_path / "plain")
    assert found.tags == plain.tags
    assert found.open == []
    assert {name for name, _ in found.attributes} == {name for name, _ in plain.attributes}
    assert not any(name.startswith("on") or name == "style" for name, _ in found.attributes)
    assert not any(value.startswith("javascript") for name, value in found.attributes if name in ("src", "href"))
    assert found.policy == plain.policy
    assert any(text.replace("\0", "") in one.replace("\0", "") for one in found.text)


WRONG = [
    *((key, value) for key in NUMBERS for value in ("text", [1.0], True)),
    *((key, value) for key in TEXTS for value in (1, ["text"], {"a": "b"})),
    *(("shares", value) for value in ([0.5], {"a": "b"}, "a")),
    *(("timeline", value) for value in ([], {"choices": []}, "a")),
    ("timeline", {"choices": [1], "names": [], "rewards": [1.0]}),
    ("timeline", {"choices": ["a"], "names": ["a"], "rewards": ["b"]}),
    ("timeline", {"choices": ["a", "b"], "names": ["a"], "rewards": [1.0]}),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=str)
def test_extras_of_another_type_are_refused_with_their_name(key: str, value: Any, tmp_path: Path) -> None:
    path = Comparison("Car-v0", [TradeoffPoint("m", "m", 0, 1.0, 2.0)]).write(tmp_path)
    record = json.loads(path.read_text())
    record.pop("crc32")
    record["points"][0]["extras"] = {key: value}
    (tmp_path / FILE_NAME).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=key):
        Comparison.read(tmp_path)


def test_markup_is_not_escaped_twice_and_text_is_always() -> None:
    inner = element("b", "1 < 2", cls='"', data_k="&")
    assert inner == '<b class="&quot;" data-k="&amp;">1 &lt; 2</b>'
    assert joined(inner, "<", between=" & ") == f"{inner} &amp; &lt;"
    assert element("p", inner, hidden=True, lang=None) == f"<p hidden>{inner}</p>"
    assert isinstance(inner, Markup)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-1200.0, -140.0), (499.99, 500.01), (-1e100, 1e100), (3.0, 3.0)]
)
def test_ticks_lie_inside_and_are_few(low: float, high: float) -> None:
    ticks = round_ticks(low, high, 5)
    assert 1 <= len(ticks) <= 9
    assert all(low - 1e-6 * abs(low) <= tick <= high + 1e-6 * abs(high) for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (150.0, 9000.0), (1.0, 1e12), (0.9, 1.1)])
def test_log_ticks_lie_inside(low: float, high: float) -> None:
    assert all(low <= tick <= high for tick in log_ticks(low, high, 5))
