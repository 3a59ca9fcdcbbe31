"""Show levels that have an order by their names in that order: low, intermediate, high."""

from collections.abc import Mapping, Sequence
from typing import Any

from builder.model.canonical import Json

_LISTS = (("table_one", "column"), ("attrition", "column"), ("labels", "label"), ("representativeness", "column"))
"""Parts of a report with ``levels``, and the key that says of which column they are."""


def in_stated_order(document: Mapping[str, Any], orders: Mapping[str, Sequence[str]]) -> dict[str, Json]:
    """Return a report whose levels stand in the order that their column states; others come after them, as they were.

    Parameters
    ----------
    orders
        Column to its levels, lowest first.
    """
    changed = dict(document)
    for part, key in _LISTS:
        changed[part] = [_with_levels(entry, orders.get(entry[key], ())) for entry in document[part]]
    changed["intersections"] = [_crossed(entry, orders) for entry in document["intersections"]]
    return changed


def _with_levels(entry: Mapping[str, Any], order: Sequence[str]) -> Mapping[str, Any]:
    if not order or "levels" not in entry:
        return entry
    place = _places([row["level"] for row in entry["levels"]], order)
    return {**entry, "levels": [entry["levels"][n] for n in place]}


def _crossed(entry: Mapping[str, Any], orders: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
    """Return two crossed groups with the levels of both in order; cells stand row by row."""
    columns, levels = entry["columns"], entry["levels"]
    down, across = (_places(names, orders.get(c, ())) for c, names in zip(columns, levels, strict=True))
    cells = [entry["cells"][row * len(across) + column] for row in down for column in across]
    return {**entry, "levels": [[levels[0][n] for n in down], [levels[1][n] for n in across]], "cells": cells}


def _places(names: Sequence[str], order: Sequence[str]) -> list[int]:
    """Return the places of names in their new order."""
    rank = {name: place for place, name in enumerate(order)}
    return sorted(range(len(names)), key=lambda n: (rank.get(names[n], len(rank)), n))
