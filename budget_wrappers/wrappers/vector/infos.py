"""Infos of a batch: a key holds ``(n,)``, the key with ``_`` before it says whose entries count.

Everything is laid out as Gymnasium's vector environments lay out what their sub-environments report, so readers of
those need not know where an entry was made.
"""

from typing import Any

import numpy as np

from budget_wrappers.errors import InfoKeyError

FINAL_INFO = "final_info"
"""Where ``SAME_STEP`` has the infos of steps that ended an episode; beside it are those of the reset."""


def masked(entries: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """Return ``entries``, ``(n,)`` each or dictionaries of such, with the mask of where they count; 0 elsewhere."""
    laid_out: dict[str, Any] = {}
    for key, value in entries.items():
        laid_out[key] = masked(value, mask) if isinstance(value, dict) else np.where(mask, value, 0.0)
        laid_out[f"_{key}"] = mask.copy()
    return laid_out


def put(infos: dict[str, Any], entries: dict[str, Any], mask: np.ndarray, final: bool) -> dict[str, Any]:
    """Return a copy of ``infos`` with ``entries`` where ``mask`` is.

    Args:
        infos: of a step; some environments hand out one dict again and again.
        entries: ``(n,)`` arrays, or dictionaries of such.
        mask: ``(n,)``.
        final: put them into the infos of the episodes' last steps.
    """
    if not final:
        return {**infos, **masked(entries, mask)}
    inside = {**infos.get(FINAL_INFO, {}), **masked(entries, mask)}
    return {"_final_info": mask.copy(), **infos, FINAL_INFO: inside}


def require_free(infos: dict[str, Any], keys: tuple[str, ...], env: Any) -> None:
    """Check that nobody inside has written ``keys``, at the top or into the infos of last steps.

    Raises:
        InfoKeyError: somebody has.
    """
    for place in (infos, infos.get(FINAL_INFO, {})):
        if taken := [key for key in keys if key in place]:
            raise InfoKeyError(
                f"infos has {sorted(place)} and {' and '.join(map(repr, keys))} are ours; {env} writes {taken[0]!r} "
                "inside. Choose another place for the cost, RecordComputeStatistics(env, key='compute_cost')."
            )


__all__ = ["FINAL_INFO", "masked", "put", "require_free"]
