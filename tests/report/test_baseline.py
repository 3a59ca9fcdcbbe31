"""The model that sees only headers agrees with scikit-learn, and finds a label that follows the scanner."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from builder.report.baseline import auc, fit, metadata_baseline


def test_weights_and_area_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 4))
    target = rng.random(200) < 1 / (1 + np.exp(-features @ [1.0, -2.0, 0.0, 0.5]))
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(features, target)
    weights = fit(features, target)
    assert weights[0] == pytest.approx(model.intercept_[0], abs=1e-3)
    assert weights[1:] == pytest.approx(model.coef_[0], abs=1e-3)
    scores = np.round(features @ weights[1:], 1)
    assert auc(target, scores) == pytest.approx(roc_auc_score(target, scores))


def persons(n=200):
    rng = np.random.default_rng(1)
    vendor = rng.choice(["GE", "Siemens", "Philips"], n)
    return pa.table(
        {
            "person_key": [f"p{i}" for i in range(n)],
            "vendor": vendor,
            "kvp": [None if i % 9 == 0 else float(80 + i % 50) for i in range(n)],
        }
    )


def test_headers_predict_a_label_that_follows_the_vendor():
    table = persons()
    follows = [v == "GE" for v in table["vendor"].to_pylist()]
    noise = [bool(x) for x in np.random.default_rng(2).integers(0, 2, 200)]
    few = [i < 5 for i in range(200)]
    rows = metadata_baseline(
        table, {"follows": follows, "noise": noise, "few": few}, ["vendor", "kvp", "absent"], seed=3
    )
    found = {r["outcome"]: r for r in rows}
    assert found["follows"]["auc"] > 0.99
    assert found["noise"]["low"] < 0.5 < found["noise"]["high"] + 0.1
    assert found["few"]["auc"] is None
    assert found["follows"]["columns"] == ["vendor", "kvp"]


def test_the_order_of_persons_does_not_matter():
    table = persons()
    label = [(i * 7) % 3 == 0 for i in range(200)]
    order = np.random.default_rng(4).permutation(200)
    first = metadata_baseline(table, {"x": label}, ["vendor", "kvp"])
    second = metadata_baseline(table.take(pa.array(order)), {"x": [label[i] for i in order]}, ["vendor", "kvp"])
    assert first[0]["auc"] == pytest.approx(second[0]["auc"], abs=1e-3)
