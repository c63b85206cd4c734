"""HTML and SVG from data that may be a stranger's: every text and every attribute is escaped here, and nowhere else."""

from html import escape

VOID = ("img",)
"""Elements of HTML that have neither content nor an end."""


class Markup(str):
    """Text that is markup already, and so is not escaped again."""

    __slots__ = ()


def element(name: str, *content: str, cls: str = "", **attributes: object) -> Markup:
    """Return an element; whatever is not ``Markup`` is escaped.

    Args:
        name: of the element.
        content: texts, escaped, and ``Markup``, as it is.
        cls: its classes.
        attributes: by name, underscores for hyphens; ``True`` for one without a value, ``None`` and ``False`` for none.
    """
    named = {"class": cls or None, **{key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}}
    words = "".join(_attribute(key, value) for key, value in named.items())
    if name in VOID:
        return Markup(f"<{name}{words}>")
    return Markup(f"<{name}{words}>{joined(*content)}</{name}>")


def joined(*parts: str, between: str = "") -> Markup:
    """Return ``parts`` as markup, those that are not escaped first."""
    return Markup(escape(between).join(part if isinstance(part, Markup) else escape(part) for part in parts))


def text(content: str, cls: str = "", **attributes: object) -> Markup:
    """Return a text of an SVG."""
    return element("text", content, cls=cls, **attributes)


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return f" {key}"
    shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {key}="{escape(shown, quote=True)}"'
