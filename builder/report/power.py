"""Compute what a test split of this size can show and how large it would have to be, by closed formulas only."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from builder.model.canonical import Json
from builder.report.bias import wilson
from builder.report.people import Levels, is_measured, levels

Z = NormalDist().inv_cdf(0.975)
SENSITIVITIES = (0.80, 0.90, 0.95)
AREAS = (0.75, 0.85, 0.95)
POWER = 0.80

WIDEST = 0.10
"""Largest half-width of the interval around a sensitivity of 0.9 at which a group is large enough to judge."""


def power(
    persons: pa.Table,
    outcomes: Mapping[str, Sequence[bool | None]],
    *,
    split: str,
    groups: Sequence[str],
    mask_below: int = 0,
) -> Json:
    """Return what the test split can show for every outcome, overall and in every group.

    Parameters
    ----------
    persons
        One row per person with ``split`` and the groups.
    outcomes
        Maps each name to yes, no or unknown for every person, in the order of ``persons``.

    Returns
    -------
    dict
        ``outcomes``, each with positives and negatives in the split, half-widths of 95 % intervals at assumed
        sensitivities and AUCs, the positives needed for a half-width of 0.05, and ``needed``; and one row per group
        level with its half-width at sensitivity 0.9, the smallest difference from all other persons that would show
        with 80 % power, and ``speaks``, which is true if the half-width is at most 0.10.
    """
    tested = np.array(persons["split"].to_pylist(), dtype=object) == split
    coded = {g: levels(persons[g]) for g in groups if g in persons.column_names and not is_measured(persons[g])}
    entries = []
    for name, values in outcomes.items():
        yes = np.array([v is True for v in values], dtype=bool) & tested
        no = np.array([v is False for v in values], dtype=bool) & tested
        positives, negatives = int(yes.sum()), int(no.sum())
        entries.append(
            {
                "outcome": name,
                "positives": positives,
                "negatives": negatives,
                "sensitivity": [{"assumed": s, "half_width": half_width(s, positives)} for s in SENSITIVITIES],
                "specificity": [{"assumed": s, "half_width": half_width(s, negatives)} for s in SENSITIVITIES],
                "auc": [{"assumed": a, "half_width": _auc_half_width(a, positives, negatives)} for a in AREAS],
                "positives_needed": {f"{s:g}": needed_for_proportion(s, 0.05) for s in SENSITIVITIES},
                "needed": needed(sum(v is True for v in values), sum(v is False for v in values)),
                "groups": [row for g, c in coded.items() for row in _group_rows(g, c, yes, mask_below)],
            }
        )
    return {"split": split, "persons": int(tested.sum()), "outcomes": entries}


ASSUMED = 0.9
WIDTH = 0.05
PARAMETERS = 10
NAGELKERKE = 0.15
"""Assumptions about a planned study: sensitivity and specificity of 0.9 to within 0.05, and a model with ten parameters
that explains 15 % of what can be explained (the value that Riley et al. propose if nothing is known)."""


def needed(positives: int, negatives: int) -> Json:
    """Return the persons needed at this prevalence to measure a test (Buderer) and to develop a model (Riley)."""
    if not positives or not negatives:
        return None
    share = positives / (positives + negatives)
    sensitivity, specificity = buderer(sensitivity=ASSUMED, specificity=ASSUMED, prevalence=share, width=WIDTH)
    ceiling = 1 - math.exp(2 * (share * math.log(share) + (1 - share) * math.log(1 - share)))
    riley = riley_binary(parameters=PARAMETERS, r2_cox_snell=NAGELKERKE * ceiling, prevalence=share)
    return {"prevalence": share, "for_sensitivity": sensitivity, "for_specificity": specificity,
            "to_develop": max(riley.values()), "to_develop_by": riley}  # fmt: skip


def half_width(assumed: float, number: int) -> float | None:
    """Return half the length of the 95 % Wilson interval for the share ``assumed`` among ``number`` persons."""
    interval = wilson(assumed * number, number)
    return None if interval is None else (interval[1] - interval[0]) / 2


def needed_for_proportion(assumed: float, width: float) -> int:
    """Return the persons needed for the 95 % Wald interval at ``assumed`` to be within plus or minus ``width``."""
    return math.ceil(Z**2 * assumed * (1 - assumed) / width**2 - 1e-9)


def buderer(*, sensitivity: float, specificity: float, prevalence: float, width: float) -> tuple[int, int]:
    """Return the persons needed for sensitivity and specificity to ``width`` (Buderer 1996, Acad Emerg Med 3:895)."""
    diseased = Z**2 * sensitivity * (1 - sensitivity) / width**2
    healthy = Z**2 * specificity * (1 - specificity) / width**2
    return math.ceil(diseased / prevalence - 1e-9), math.ceil(healthy / (1 - prevalence) - 1e-9)


def hanley_mcneil(area: float, positives: int, negatives: int) -> float:
    """Return the standard error of an AUC (Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return math.sqrt(variance / (positives * negatives))


def detectable_difference(base: float, first: int, second: int) -> float | None:
    """Return the smallest drop from ``base`` that a two-sided 5 % test of two proportions shows with 80 % power.

    None means that not even a drop to zero would show.
    """
    if not first or not second:
        return None
    alpha, beta = Z, NormalDist().inv_cdf(POWER)

    def shows(drop: float) -> bool:
        other = base - drop
        pooled = (base * second + other * first) / (first + second)
        null = math.sqrt(pooled * (1 - pooled) * (1 / first + 1 / second))
        alternative = math.sqrt(other * (1 - other) / first + base * (1 - base) / second)
        return drop >= alpha * null + beta * alternative

    low, high = 0.0, base
    if not shows(high):
        return None
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def riley_binary(*, parameters: int, r2_cox_snell: float, prevalence: float, shrinkage: float = 0.9) -> dict[str, int]:
    """Return the persons needed to develop a model of a binary outcome (Riley 2020, doi:10.1136/bmj.m441).

    ``overall_risk`` estimates the outcome proportion to within 0.05; ``shrinkage`` limits overfitting to
    ``1 - shrinkage``; ``optimism`` limits the optimism in Nagelkerke's R2 to 0.05; ``error`` limits the mean absolute
    error of predictions to 0.05 by the formula of van Smeden 2019 (doi:10.1177/0962280218784726), which takes the
    proportion of the rarer outcome.
    """
    p = prevalence
    ceiling = 1 - math.exp(2 * (p * math.log(p) + (1 - p) * math.log(1 - p)))
    strict = r2_cox_snell / (r2_cox_snell + 0.05 * ceiling)
    rarer = min(p, 1 - p)
    error = math.exp((-0.508 + 0.259 * math.log(rarer) + 0.504 * math.log(parameters) - math.log(0.05)) / 0.544)
    return {
        "overall_risk": math.ceil((1.96 / 0.05) ** 2 * p * (1 - p) - 1e-9),
        "shrinkage": math.ceil(parameters / ((shrinkage - 1) * math.log(1 - r2_cox_snell / shrinkage))),
        "optimism": math.ceil(parameters / ((strict - 1) * math.log(1 - r2_cox_snell / strict))),
        "error": math.ceil(error),
    }


def too_few(outcomes: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Return the levels of groups that the split cannot speak for, each once, with the ``outcomes`` concerned."""
    found: dict[tuple[str, str], list[Json]] = {}
    for entry in outcomes:
        for row in entry["groups"]:
            if not row["speaks"]:
                found.setdefault((row["column"], row["level"]), []).append({**row, "outcome": entry["outcome"]})
    return [{"column": column, "level": level, "outcomes": rows} for (column, level), rows in found.items()]


def _auc_half_width(area: float, positives: int, negatives: int) -> float | None:
    if not positives or not negatives:
        return None
    return Z * hanley_mcneil(area, positives, negatives)


def _group_rows(column: str, coded: Levels, yes: Any, mask_below: int) -> list[Json]:
    rows, total = [], int(yes.sum())
    for code, level in enumerate(coded.names):
        inside = int((yes & (coded.codes == code)).sum())
        width, hidden = half_width(0.9, inside), 0 < inside < mask_below
        rows.append(
            {
                "column": column,
                "level": level,
                "positives": None if hidden else inside,
                "half_width": None if hidden else width,
                "detectable_difference": None if hidden else detectable_difference(0.9, inside, total - inside),
                "speaks": width is not None and width <= WIDEST,
            }
        )
    return rows
