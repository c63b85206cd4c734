"""What makes a preset of an agent: its configuration has a method's keys beside the agent's own."""

import dataclasses
from typing import Any

from agents.loop.method import Method


def preset_of(kind: type[Method]) -> Any:
    """Return ``preset`` of an agent class whose configuration has the keys of the method ``kind``."""

    def preset(cls: type, config: Any) -> list[Method]:
        """Return the method, with its keys of ``config``."""
        keys = (field.name for field in dataclasses.fields(kind.config_class))
        return [kind(**{key: getattr(config, key) for key in keys if hasattr(config, key)})]

    return classmethod(preset)


__all__ = ["preset_of"]
