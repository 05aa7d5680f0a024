"""Order, coherence, usage and dead atoms of dictionaries, and the matching of two."""

import itertools

import numpy as np
import pytest

from lecture4.features import atoms


def test_order_by_usage_and_by_similarity():
    rng = np.random.default_rng(8)
    D = rng.standard_normal((30, 9))
    D[:, 4] = 0
    usage = np.array([0.1, 0.5, 0.1, 0, 0.9, 0.2, 0.3, 0.4, 0.6])
    assert atoms.display_order(D, usage).tolist() == [8, 1, 7, 6, 5, 0, 2, 3, 4]
    twins = np.concatenate([D, -D + 0.05 * rng.standard_normal(D.shape)], 1)[:, rng.permutation(18)]
    twins[:, np.linalg.norm(twins, axis=0) < 1] = 0
    order = atoms.display_order(twins)
    assert sorted(order) == list(range(18))
    assert (twins[:, order[-2:]] == 0).all()
    pairs = twins[:, order[:-2]].T.reshape(8, 2, 30)
    cosine = (pairs[:, 0] * pairs[:, 1]).sum(1) / np.linalg.norm(pairs, axis=2).prod(1)
    assert (cosine < -0.95).all()
    for k in range(4):
        assert sorted(atoms.display_order(D[:, :k])) == list(range(k))


def test_coherence_is_the_largest_cosine_of_two_atoms():
    rng = np.random.default_rng(9)
    D = rng.standard_normal((6, 5))
    slow = max(
        abs(D[:, i] @ D[:, j]) / np.linalg.norm(D[:, i]) / np.linalg.norm(D[:, j])
        for i in range(5)
        for j in range(i)
    )
    assert atoms.coherence(D) == pytest.approx(slow)
    assert len(atoms.cosines(D)) == 10
    assert atoms.coherence(np.eye(4)) == 0 and atoms.coherence(np.ones((4, 1))) == 0
    assert atoms.coherence(np.stack([D[:, 0], -3 * D[:, 0], 0 * D[:, 0]], 1)) == pytest.approx(1)


def test_usage_is_a_fraction_of_the_finite_signals():
    codes = np.array([[0, 1.5, -2], [0, 0, 3], [np.nan] * 3, [0, 0, 1e-30], [0, -1, np.inf]])
    np.testing.assert_allclose(atoms.usage(codes.astype(np.float32)), [0, 1 / 3, 1])
    assert atoms.usage(codes[2:3]).tolist() == [0, 0, 0]
    assert atoms.dead(atoms.usage(codes)).tolist() == [True, False, False]
    with pytest.raises(ValueError, match=r'codes of shape \(3,\); expected'):
        atoms.usage(codes[0])


def test_dead_atoms():
    assert atoms.dead(np.array([0, 9e-5, 2e-4, 0.5])).tolist() == [True, True, False, False]
    assert atoms.dead(np.array([0.1, 0.3]), threshold=0.2).tolist() == [True, False]


def test_errors_name_what_was_passed():
    D = np.ones((64, 3))
    with pytest.raises(ValueError, match='atoms in columns'):
        atoms.coherence(D[:, 0])
    with pytest.raises(ValueError, match='D has 3 atoms'):
        atoms.display_order(D, np.ones(4))


def test_a_shuffled_copy_with_other_signs_is_matched():
    rng = np.random.default_rng(5)
    D = rng.standard_normal((12, 30))
    order = rng.permutation(30)
    scale = rng.uniform(0.1, 9, 30) * rng.choice([-1, 1], 30)
    matching = atoms.match(D, (D * scale)[:, order])
    np.testing.assert_array_equal(order[matching.partner], np.arange(30))
    np.testing.assert_allclose(matching.cosine, np.sign(scale), rtol=1e-12)


@pytest.mark.parametrize(('k', 'm'), [(4, 4), (3, 5), (5, 3)])
def test_matching_is_the_best_of_all_assignments(k, m):
    rng = np.random.default_rng(k)
    D, other = rng.standard_normal((6, k)), rng.standard_normal((6, m))
    D[:, 0] = 0
    other[:, 1] = 3 * other[:, 0] + 0.1 * rng.standard_normal(6)  # nearly twins
    cosine = np.zeros((k, m))
    for i in range(k):
        for j in range(m):
            norm = np.linalg.norm(D[:, i]) * np.linalg.norm(other[:, j])
            cosine[i, j] = D[:, i] @ other[:, j] / norm if norm else 0
    table = abs(cosine) if k <= m else abs(cosine.T)
    best = max(
        sum(table[i, j] for i, j in enumerate(chosen))
        for chosen in itertools.permutations(range(max(k, m)), min(k, m))
    )
    matching = atoms.match(D, other)
    assert abs(matching.cosine).sum() == pytest.approx(best, rel=1e-12)
    matched = matching.partner >= 0
    assert matched.sum() == min(k, m) == len(set(matching.partner[matched]))
    np.testing.assert_allclose(
        matching.cosine[matched], cosine[np.flatnonzero(matched), matching.partner[matched]]
    )
    assert (matching.cosine[~matched] == 0).all()


def test_matching_errors():
    with pytest.raises(ValueError, match='atoms of 4 values cannot be matched with atoms of 5'):
        atoms.match(np.ones((4, 2)), np.ones((5, 2)))
    with pytest.raises(ValueError, match='not finite'):
        atoms.match(np.ones((2, 2)), np.array([[1, np.inf], [1, 1]]))
    with pytest.raises(ValueError, match='atoms in columns'):
        atoms.match(np.ones(3), np.ones((3, 1)))


def test_contrast_quantiles_are_rows_of_increasing_energy():
    energy = np.random.default_rng(0).permutation(100)
    signals = np.sqrt(energy)[:, None] * np.array([[0.6, -0.8]])
    assert energy[atoms.contrast_quantiles(signals)].tolist() == [40, 60, 80, 95]
