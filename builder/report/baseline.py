"""How much of a label can be read off the headers alone: a logistic model that never sees a pixel."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.report.people import is_measured, levels, numbers
from builder.report.power import Z, hanley_mcneil

Json = Any
Reals = NDArray[np.float64]

FOLDS = 5
PENALTY = 1.0
"""Half the square of the weights counts as much as one person's loss: the usual C = 1."""

FEWEST = 10
"""Persons of each answer below which no model is fitted."""


def metadata_baseline(
    persons: pa.Table, outcomes: Mapping[str, Sequence[bool | None]], columns: Sequence[str], *, seed: int = 0
) -> list[Json]:
    """Cross-validated AUC of predicting each outcome from acquisition facts (vendor, model, kVp, kernel, site).

    Parameters
    ----------
    persons
        One row a person with the columns; texts become one indicator a level, numbers are standardised, missing
        values are an indicator of their own.
    outcomes
        Name to yes, no or unknown of each person.
    seed
        Key of the folds.

    Returns
    -------
    list
        ``outcome``, ``persons``, ``auc`` with ``low`` and ``high`` (Hanley-McNeil), and ``columns``; ``auc`` is null
        where an answer has fewer than 10 persons. 0.5 is what chance gives; anything a model of pixels reaches should
        be read against this.
    """
    known = [c for c in columns if c in persons.column_names]
    entries = []
    for name, values in outcomes.items():
        who = np.array([v is not None for v in values], dtype=bool)
        target = np.array([v is True for v in values], dtype=bool)[who]
        entry: dict[str, Json] = {"outcome": name, "persons": int(who.sum()), "columns": known}
        positives, negatives = int(target.sum()), int((~target).sum())
        area: float | None = None
        if known and min(positives, negatives) >= FEWEST:
            keys = np.array(persons["person_key"].to_pylist(), dtype=object)[who]
            features = _features(persons.filter(pa.array(who)), known)
            area = auc(target, _out_of_fold(features, target, _folds(keys, target, seed)))
        width = Z * hanley_mcneil(area, positives, negatives) if area is not None else 0.0
        low = None if area is None else max(0.0, area - width)
        high = None if area is None else min(1.0, area + width)
        entries.append({**entry, "auc": area, "low": low, "high": high})
    return entries


def fit(features: Reals, target: NDArray[np.bool_]) -> Reals:
    """Weights of a logistic model, the intercept first and unpenalised: L2 with C = 1, by L-BFGS."""
    from scipy import optimize, special

    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    sign = np.where(target, 1.0, -1.0)

    def loss(weights: Reals) -> tuple[float, Reals]:
        # einsum, not BLAS: the same sums for any number of threads
        margin = sign * np.einsum("ij,j->i", design, weights)
        free = np.concatenate([[0.0], weights[1:]])
        slope = -(design * (sign * special.expit(-margin))[:, None]).sum(axis=0)
        return float(np.logaddexp(0, -margin).sum() + PENALTY / 2 * (free @ free)), slope + PENALTY * free

    found = optimize.minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return np.asarray(found.x)


def auc(target: NDArray[np.bool_], scores: Reals) -> float:
    """Area under the ROC curve: the share of pairs that are ordered rightly, ties counting one half."""
    from scipy import stats

    ranks = stats.rankdata(np.round(scores, 6))
    positives, negatives = int(target.sum()), int((~target).sum())
    return float((ranks[target].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _features(persons: pa.Table, columns: Sequence[str]) -> Reals:
    """Indicators of levels, standardised numbers, and an indicator of missing."""
    parts = []
    for name in columns:
        if is_measured(persons[name]):
            values = numbers(persons[name])
            missing = np.isnan(values)
            spread = float(np.nanstd(values)) or 1.0
            parts += [np.where(missing, 0.0, (values - np.nanmean(values)) / spread), missing.astype(float)]
        else:
            coded = levels(persons[name])
            parts += [(coded.codes == code).astype(float) for code in range(len(coded.names))]
    return np.stack(parts, axis=1)


def _folds(keys: NDArray[Any], target: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Stratified folds in keyed order, so that the order of rows does not matter."""
    ranks = [hashlib.sha256(f"baseline {seed} {key}".encode()).digest() for key in keys]
    fold = np.zeros(len(keys), dtype=np.int64)
    for answer in (False, True):
        members = sorted(np.flatnonzero(target == answer).tolist(), key=lambda i: ranks[i])
        fold[members] = np.arange(len(members)) % FOLDS
    return fold


def _out_of_fold(features: Reals, target: NDArray[np.bool_], fold: NDArray[np.int64]) -> Reals:
    """Log odds of each person by the model that did not see the person."""
    scores = np.zeros(len(target))
    for k in range(FOLDS):
        weights = fit(features[fold != k], target[fold != k])
        scores[fold == k] = weights[0] + np.einsum("ij,j->i", features[fold == k], weights[1:])
    return scores
