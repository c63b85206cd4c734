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


def only(infos: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Return ``infos`` of ``rows``, ``(n,)`` booleans: its masks are false elsewhere; what nobody has is left out."""
    kept: dict[str, Any] = {}
    for key, value in infos.items():
        if key.startswith("_"):
            continue
        mask = infos.get(f"_{key}")
        if mask is not None:
            mask = mask & rows
            if not mask.any():
                continue
            kept[f"_{key}"] = mask
        kept[key] = only(value, rows) if isinstance(value, dict) else value
    return kept


def joined(one: dict[str, Any], other: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Return two infos as one: those of ``rows``, ``(n,)`` booleans, are ``other``'s."""
    result = dict(one)
    for key, value in other.items():
        before = one.get(key)
        if before is None:
            result[key] = value
        elif isinstance(value, dict):
            result[key] = joined(before, value, rows)
        elif key.startswith("_"):
            result[key] = before | value
        else:
            result[key] = np.where(rows.reshape(-1, *[1] * (np.ndim(value) - 1)), value, before)
    return result


def reported(infos: dict[str, Any], row: int, unmasked: bool = False) -> dict[str, Any]:
    """Return the entries that environment ``row`` reported, nested ones too, by the masks.

    Args:
        infos: of all environments.
        row: the environment.
        unmasked: whether it reported what has no mask, as what stands in Gymnasium's ``infos["episode"]`` has none.
    """

    def told(key: str) -> bool:
        mask = infos.get(f"_{key}")
        return unmasked if mask is None else bool(mask[row])

    return {
        key: reported(value, row, unmasked=True) if isinstance(value, dict) else value[row]
        for key, value in infos.items()
        if not key.startswith("_") and isinstance(value, np.ndarray | dict) and told(key)
    }


CHOOSE_KEY = "Choose another place for the cost, RecordComputeStatistics(env, key='compute_cost')."


def require_free(infos: dict[str, Any], keys: tuple[str, ...], env: Any, remedy: str = CHOOSE_KEY) -> None:
    """Check that nobody inside has written ``keys``, at the top or into the infos of last steps.

    Raises:
        InfoKeyError: somebody has; it says ``remedy``.
    """
    for place in (infos, infos.get(FINAL_INFO, {})):
        if taken := [key for key in keys if key in place]:
            raise InfoKeyError(
                f"infos has {sorted(place)} and {' and '.join(map(repr, keys))} are ours; {env} writes {taken[0]!r} "
                f"inside. {remedy}"
            )


__all__ = ["FINAL_INFO", "joined", "masked", "only", "put", "reported", "require_free"]
