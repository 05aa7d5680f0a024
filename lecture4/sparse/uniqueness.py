"""Uniqueness of codes: all codes that reconstruct a signal, and how a penalty chooses one of them.

With more atoms than dimensions, k > d, the exact codes {a : D a = x} are an affine space of dimension k - rank D:
any of them plus the null space of D. A penalty chooses one of them. The smallest L2 norm (the pseudo-inverse)
uses all atoms; the smallest L1 norm is reached with at most rank D of them. The minimizer of the L1 objective is
unique for atoms in general position, from any starting point of the solver; with a repeated atom there is a set of
minimizers again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, Real, Shaped

from lecture4.sparse import solvers


def null_space(D: Shaped[ArrayLike, 'd k']) -> Float[np.ndarray, 'k m']:
    """Orthonormal basis of {a : D a = 0}, m = k - rank D, in float64 on the host."""
    import scipy.linalg

    return scipy.linalg.null_space(np.asarray(D, np.float64))


def smallest_l2(
    x: Shaped[ArrayLike, 'n d'], D: Shaped[ArrayLike, 'd k']
) -> Float[np.ndarray, 'n k']:
    """The exact codes of smallest L2 norm, x pinv(D)', in float64 on the host.

    Args:
      x: Signals.
      D: Dictionary, atoms in columns, which span the signals.
    """
    x, D = (np.asarray(part, np.float64) for part in (x, D))
    return x @ np.linalg.pinv(D).T


def smallest_l1(
    x: Shaped[ArrayLike, 'n d'], D: Shaped[ArrayLike, 'd k']
) -> Float[np.ndarray, 'n k']:
    """The exact codes of smallest L1 norm (basis pursuit), by linear programming on the host.

    A vertex of the feasible set: at most rank D coefficients are not 0.

    Args:
      x: Signals, one linear program each.
      D: Dictionary, atoms in columns, which span the signals.

    Raises:
      ValueError: The atoms do not span a signal.

    References:
      Chen, Donoho & Saunders 1998.
    """
    from scipy.optimize import linprog

    x, D = (np.asarray(part, np.float64) for part in (x, D))
    k = D.shape[1]
    codes = []
    for i, signal in enumerate(x):
        solved = linprog(np.ones(2 * k), A_eq=np.hstack([D, -D]), b_eq=signal, method='highs')
        if solved.x is None:
            raise ValueError(f'no code reconstructs signal {i} exactly: {solved.message}')
        codes.append(solved.x[:k] - solved.x[k:])
    return np.stack(codes)


def random_exact(
    key: PRNGKeyArray, a: Shaped[ArrayLike, 'n k'], D: Shaped[ArrayLike, 'd k'], length: float
) -> Float[np.ndarray, 'n k']:
    """Codes with the same reconstruction: a plus a random vector of the null space.

    Args:
      key: A random key.
      a: Codes.
      D: Atoms in columns.
      length: Norm of the random vector.
    """
    basis = null_space(D)
    shape = (len(np.asarray(a)), basis.shape[1])
    direction = np.asarray(jax.random.normal(key, shape), np.float64)
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    return np.asarray(a, np.float64) + length * direction @ basis.T


def describe(
    codes: Shaped[ArrayLike, 'n k'],
    x: Shaped[ArrayLike, 'n d'],
    D: Shaped[ArrayLike, 'd k'],
    tolerance: float = 1e-6,
) -> dict[str, float]:
    """Means over signals.

    Args:
      codes: Codes.
      x: The signals that they describe.
      D: Atoms in columns.
      tolerance: Coefficients up to this magnitude count as 0.

    Returns:
      `residual` ||x - D a|| / ||x||; `l1_norm`; `l2_norm`; `nonzeros`.
    """
    a, x, D = (np.asarray(part, np.float64) for part in (codes, x, D))
    residual = np.linalg.norm(x - a @ D.T, axis=1) / np.linalg.norm(x, axis=1)
    return {
        'residual': float(residual.mean()),
        'l1_norm': float(np.abs(a).sum(1).mean()),
        'l2_norm': float(np.linalg.norm(a, axis=1).mean()),
        'nonzeros': float((np.abs(a) > tolerance).sum(1).mean()),
    }


def disagreement(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    l1_penalty: Real[ArrayLike, ''],
    starts: Mapping[str, Float[Array | np.ndarray, 'n k']],
    iterations: Sequence[int],
) -> dict[str, Float[np.ndarray, ' t']]:
    """Distance between ISTA's codes from different starts, by the number of iterations.

    Args:
      x: Signals.
      D: Atoms in columns.
      l1_penalty: Positive.
      starts: Name -> initial codes; the others are compared with the first.
      iterations: Numbers of iterations, ascending.

    Returns:
      Name -> ||a - a_first||_F / ||a*||_F after each number of iterations, a* the first start's last codes; for
      all names but the first.
    """
    codes: dict[str, list] = {name: [] for name in starts}
    for name, init in starts.items():
        a, done = jnp.asarray(init), 0
        for n in iterations:
            if n > done:
                options = {'init': a, 'tolerance': 0.0, 'max_iterations': n - done}
                a, done = solvers.ista(x, D, l1_penalty, check_every=1, **options).codes, n
            codes[name].append(np.asarray(a, np.float64))
    first, *others = codes
    scale = np.linalg.norm(codes[first][-1])
    return {
        name: np.array(
            [np.linalg.norm(a - b) / scale for a, b in zip(codes[name], codes[first], strict=True)]
        )
        for name in others
    }


def rescaled_objective(
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    a: Float[Array | np.ndarray, 'n k'],
    l1_penalty: Real[ArrayLike, ''],
    factors: Sequence[float],
) -> Float[np.ndarray, ' t']:
    """Mean objective of the atoms c D with the codes a / c.

    The reconstruction is equal, and the penalty decreases as 1 / c. So the codes of c D at penalty weight w are those
    of D at w / c, divided by c: without a bound on the norms, the weight has no meaning.

    Args:
      x: Signals.
      D: Atoms in columns.
      a: Codes.
      l1_penalty: Positive.
      factors: The factors c.
    """
    x, D, a = (np.asarray(part, np.float64) for part in (x, D, a))
    error = 0.5 * np.mean(np.sum((x - a @ D.T) ** 2, axis=1))
    norm = np.mean(np.abs(a).sum(1))
    return np.array([error + float(np.asarray(l1_penalty)) * norm / c for c in factors])


def exact_records(
    key: PRNGKeyArray, x: Shaped[ArrayLike, 'n d'], D: Shaped[ArrayLike, 'd k']
) -> list[dict[str, Any]]:
    """`describe` of several exact codes of the same signals: smallest L2 norm, random ones, smallest L1 norm.

    Args:
      key: A random key.
      x: Signals.
      D: Dictionary, atoms in columns, which span the signals.

    Returns:
      Records, named by their entry `codes`.
    """
    shortest = smallest_l2(x, D)
    length = float(np.linalg.norm(shortest, axis=1).mean())
    codes = {
        'exact, smallest L2 norm': shortest,
        'exact, random': random_exact(key, shortest, D, length),
        'exact, another': random_exact(jax.random.fold_in(key, 1), shortest, D, 3 * length),
        'exact, smallest L1 norm': smallest_l1(x, D),
    }
    return [{'codes': name, **describe(a, x, D)} for name, a in codes.items()]


def agreement(
    key: PRNGKeyArray,
    x: Float[Array | np.ndarray, 'n d'],
    D: Float[Array | np.ndarray, 'd k'],
    l1_penalty: Real[ArrayLike, ''],
    iterations: Sequence[int],
) -> dict[str, Float[np.ndarray, ' t']]:
    """`disagreement` with the start from zeros: for two other starts, and with the most used atom repeated.

    Args:
      key: A random key.
      x: Signals.
      D: Atoms in columns.
      l1_penalty: Positive.
      iterations: Numbers of iterations, ascending.

    Returns:
      'smallest L2 norm', 'random' and 'an atom repeated' -> relative distances. The last does not vanish: that start
      puts the whole coefficient on the copy, whereas from zeros both atoms get the same.
    """
    x, D = jnp.asarray(x), jnp.asarray(D)
    zeros = jnp.zeros((len(x), D.shape[1]), x.dtype)
    starts = {
        'zeros': zeros,
        'smallest L2 norm': jnp.asarray(smallest_l2(x, D), x.dtype),
        'random': 10 * jax.random.normal(key, zeros.shape, x.dtype),
    }
    apart = disagreement(x, D, l1_penalty, starts, iterations)
    codes = solvers.fista(x, D, l1_penalty).codes
    used = int(jnp.abs(codes).sum(0).argmax())
    repeated = jnp.concatenate([D, D[:, used : used + 1]], axis=1)
    zeros = jnp.pad(zeros, ((0, 0), (0, 1)))
    copy = zeros.at[:, -1].set(10 * jnp.sign(codes[:, used]))
    starts = {'zeros': zeros, 'an atom repeated': copy}
    return apart | disagreement(x, repeated, l1_penalty, starts, iterations)
