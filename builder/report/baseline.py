"""Measure how well a label can be predicted from the headers alone, with a logistic model that sees no pixels."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.model.canonical import Json
from builder.report.people import is_measured, levels, numbers
from builder.report.power import Z, hanley_mcneil

Reals = NDArray[np.float64]

FOLDS = 5
PENALTY = 1.0
"""Weight of half the squared norm of the weights, relative to one person's loss; 1 is the usual C = 1."""

FEWEST = 10
"""Fewest persons with each answer for a model to be fitted."""


def metadata_baseline(
    persons: pa.Table, outcomes: Mapping[str, Sequence[bool | None]], columns: Sequence[str], *, seed: int = 0
) -> list[Json]:
    """Return the cross-validated AUC of predicting each outcome from acquisition facts (vendor, model, kVp, site).

    Parameters
    ----------
    persons
        One row per person with the columns. Texts become one indicator per level, numbers are standardised, and
        missing values get an indicator of their own.
    outcomes
        Maps each name to yes, no or unknown for every person.
    seed
        Seed of the folds.

    Returns
    -------
    list
        ``outcome``, ``persons``, ``auc`` with ``low`` and ``high`` (Hanley-McNeil), and ``columns``; ``auc`` is null
        if either answer has fewer than 10 persons. Chance gives 0.5; the AUC of any model of pixels should be compared
        with this one.
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
    """Fit a logistic model with L2 penalty (C = 1) by L-BFGS; the unpenalised intercept comes first in the weights."""
    from scipy import optimize, special

    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    sign = np.where(target, 1.0, -1.0)

    def loss(weights: Reals) -> tuple[float, Reals]:
        # einsum instead of BLAS, whose sums depend on the number of threads
        margin = sign * np.einsum("ij,j->i", design, weights)
        free = np.concatenate([[0.0], weights[1:]])
        slope = -(design * (sign * special.expit(-margin))[:, None]).sum(axis=0)
        return float(np.logaddexp(0, -margin).sum() + PENALTY / 2 * (free @ free)), slope + PENALTY * free

    found = optimize.minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return np.asarray(found.x)


def auc(target: NDArray[np.bool_], scores: Reals) -> float:
    """Return the area under the ROC curve: the share of pairs in the right order, with ties counted as one half."""
    from scipy import stats

    # Rounded so that scores that differ only in their last digits are ties on every machine.
    ranks = stats.rankdata(np.round(scores, 6))
    positives, negatives = int(target.sum()), int((~target).sum())
    return float((ranks[target].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _features(persons: pa.Table, columns: Sequence[str]) -> Reals:
    """Return the feature matrix: indicators of levels, standardised numbers, and an indicator of missing values."""
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
    """Assign stratified folds in the order of keyed hashes, so that the order of rows does not matter."""
    ranks = [hashlib.sha256(f"baseline {seed} {key}".encode()).digest() for key in keys]
    fold = np.zeros(len(keys), dtype=np.int64)
    for answer in (False, True):
        members = sorted(np.flatnonzero(target == answer).tolist(), key=lambda i: ranks[i])
        fold[members] = np.arange(len(members)) % FOLDS
    return fold


def _out_of_fold(features: Reals, target: NDArray[np.bool_], fold: NDArray[np.int64]) -> Reals:
    """Return the log odds of each person under the model that was fitted without that person's fold."""
    scores = np.zeros(len(target))
    for k in range(FOLDS):
        weights = fit(features[fold != k], target[fold != k])
        scores[fold == k] = weights[0] + np.einsum("ij,j->i", features[fold == k], weights[1:])
    return scores
