"""Whether an agent is being made from a file now."""

from contextvars import ContextVar

RESTORING: ContextVar[bool] = ContextVar("restoring", default=False)
"""Whether agents are made or filled from a file now: what only further training needs may be missing then."""

__all__ = ["RESTORING"]
