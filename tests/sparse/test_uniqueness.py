"""Exact codes compared with brute force over all bases, and scale against an exact identity."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.sparse import solvers, uniqueness

RNG = np.random.default_rng(0)
D = RNG.normal(size=(3, 6))
D /= np.linalg.norm(D, axis=0)
X = RNG.normal(size=(4, 3))


def test_smallest_l1_is_the_best_of_all_bases():
    bases = [list(basis) for basis in itertools.combinations(range(6), 3)]
    codes = np.array([np.linalg.solve(D[:, basis], X.T).T for basis in bases])
    expected = np.abs(codes).sum(2).min(0)
    result = uniqueness.smallest_l1(X, D)
    np.testing.assert_allclose(np.abs(result).sum(1), expected, rtol=1e-7)
    np.testing.assert_allclose(result @ D.T, X, atol=1e-9)
    assert ((np.abs(result) > 1e-9).sum(1) <= 3).all()


def test_exact_codes_differ_by_the_null_space_alone():
    shortest = uniqueness.smallest_l2(X, D)
    other = uniqueness.random_exact(jax.random.key(0), shortest, D, 2.0)
    basis = uniqueness.null_space(D)
    assert basis.shape == (6, 3)
    np.testing.assert_allclose(other @ D.T, X, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(other - shortest, axis=1), 2.0)
    np.testing.assert_allclose(shortest @ basis, 0, atol=1e-9)
    described = uniqueness.describe(other, X, D)
    assert described['nonzeros'] == 6 and described['residual'] < 1e-9


def test_signals_that_atoms_do_not_span_are_refused():
    with pytest.raises(ValueError, match='no code reconstructs signal 0'):
        uniqueness.smallest_l1(np.ones((1, 3)), np.eye(3)[:, :2])


def test_codes_of_larger_atoms_are_those_of_a_smaller_penalty():
    x, atoms = jnp.float32(X), jnp.float32(D)
    large = solvers.fista(x, 4 * atoms, 0.8, tolerance=1e-6, max_iterations=5000).codes
    small = solvers.fista(x, atoms, 0.2, tolerance=1e-6, max_iterations=5000).codes
    np.testing.assert_allclose(4 * large, small, atol=1e-3)
    objectives = uniqueness.rescaled_objective(x, atoms, small, 0.2, (1.0, 2.0, 1e9))
    error = 0.5 * np.sum((X - np.asarray(small) @ D.T) ** 2, 1).mean()
    np.testing.assert_allclose(objectives[2], error, rtol=1e-4)
    np.testing.assert_allclose(objectives[0] - error, 2 * (objectives[1] - error), rtol=1e-4)


def test_starts_agree_unless_an_atom_is_repeated():
    x, atoms = jnp.float32(X), jnp.float32(D)
    starts = {
        'zeros': jnp.zeros((4, 6)),
        'random': 5 * jax.random.normal(jax.random.key(1), (4, 6)),
    }
    apart = uniqueness.disagreement(x, atoms, 0.2, starts, (1, 2000))
    assert apart.keys() == {'random'}
    assert apart['random'][0] > 0.1 and apart['random'][1] < 1e-4
    codes = solvers.ista(x, atoms, 0.2).codes
    used = int(jnp.abs(codes).sum(0).argmax())
    twice = jnp.concatenate([atoms, atoms[:, used : used + 1]], 1)
    starts = {name: jnp.pad(a, ((0, 0), (0, 1))) for name, a in starts.items()}
    starts['random'] = starts['random'].at[:, -1].set(5.0 * jnp.sign(codes[:, used]))
    assert uniqueness.disagreement(x, twice, 0.2, starts, (2000,))['random'][0] > 0.1


def test_random_codes_where_float64_is_the_default(x64):
    """NumPy reads arrays of that type in place, where they must not be written to."""
    D = np.random.default_rng(0).normal(size=(3, 5))
    a = np.ones((2, 5))
    other = uniqueness.random_exact(jax.random.key(0), a, D, 2.0)
    np.testing.assert_allclose(other @ D.T, a @ D.T, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(other - a, axis=1), 2)
