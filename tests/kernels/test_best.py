"""The best owners of each column are those that sorting all scores gives."""

import numpy as np
import pytest

from builder.kernels.best import Best


@pytest.mark.parametrize("most", [1, 3, 40])
@pytest.mark.parametrize("lowest", [-(2.0**24), 5.0])
def test_the_best_owners_are_kept_in_whatever_portions_scores_come(most, lowest):
    rng = np.random.default_rng(most)
    owners, groups, own = rng.integers(0, 20, 300), rng.integers(0, 6, 20), rng.integers(0, 6, 7)
    scores = rng.integers(-9, 10, (300, 7)).astype(np.float32)  # ties are frequent
    expected = []
    for column in range(7):
        best = {}
        for owner, score in zip(owners.tolist(), scores[:, column].tolist(), strict=True):
            if score >= lowest and groups[owner] != own[column]:
                best[owner] = max(score, best.get(owner, score))
        expected += [(owner, column) for owner in sorted(best, key=lambda o: (-best[o], o))[:most]]
    for rows in ([np.arange(300)], np.array_split(rng.permutation(300), 9)):
        kept = Best.of(7, most, owners=20, lowest=lowest)
        for some in rows:
            for columns in (np.array([4, 0, 6]), np.array([1, 2, 3, 5])):
                kept.add(scores[some][:, columns], owners[some], columns, (groups, own))
        assert list(map(tuple, kept.pairs().tolist())) == expected


def test_scores_as_high_and_as_low_as_products_of_spectra_are_told_apart():
    kept = Best.of(1, 3, owners=4, lowest=-(2.0**25))
    scores = np.array([[-(2**25)], [2**24 - 1], [2**24 - 2], [-(2**24)]], np.float32)
    kept.add(scores, np.arange(4), np.arange(1), (np.arange(4), np.array([9])))
    assert kept.pairs()[:, 0].tolist() == [1, 2, 3]
