"""Statistics of a learned dictionary: order, coherence, dead atoms, similarity to another dictionary.

Runs on the host with numpy and scipy, in float64 for any input dtype: nothing here is jitted or differentiated. Atoms
are the columns of D [d, k]. Gabor fits are in `features.gabor`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num
from scipy import optimize
from scipy.cluster import hierarchy
from scipy.spatial import distance


class Matching(NamedTuple):
    """The matching of each of k atoms with an atom of another dictionary.

    Attributes:
      partner: [k] index of the other dictionary's atom; -1 for atoms left without one.
      cosine: [k] cosine of the angle to it, in [-1, 1]; negative if of opposite sign, 0 without a partner.
    """

    partner: Int[np.ndarray, ' k']
    cosine: Float[np.ndarray, ' k']


def display_order(
    D: Num[Array | np.ndarray, '...'], usage: Num[Array | np.ndarray, '...'] | None = None
) -> Int[np.ndarray, ' k']:
    """An order of the atoms for figures: a permutation of range(k).

    With `usage`, the most used first. Without, sorted by similarity: the leaves of a hierarchical
    clustering by |cosine| (so an atom and its negative are neighbors), arranged so that neighbors
    are as similar as the tree allows. Zero atoms come last in both cases; ties keep their order.

    Args:
      D: [d, k].
      usage: [k], or None.

    Raises:
      ValueError: D is not a matrix or usage does not have one entry per atom.
    """
    D = _matrix(D)
    k = D.shape[1]
    norms = np.linalg.norm(D, axis=0)
    if usage is not None:
        usage = np.asarray(usage, float)
        if usage.shape != (k,):
            raise ValueError(f'usage of shape {usage.shape}, but D has {k} atoms; expected ({k},)')
        return np.lexsort((-usage, norms == 0))
    nonzero = np.flatnonzero(norms > 0)
    if len(nonzero) < 3:
        return np.lexsort((norms == 0,))
    dissimilarity = 1 - np.minimum(_abs_cosines(D[:, nonzero]), 1)
    condensed = distance.squareform(dissimilarity, checks=False)
    tree = hierarchy.linkage(condensed, 'average', optimal_ordering=True)
    return np.concatenate([nonzero[hierarchy.leaves_list(tree)], np.flatnonzero(norms == 0)])


def contrast_quantiles(signals: Num[Array | np.ndarray, 'n d']) -> Int[np.ndarray, '4']:
    """Rows of four signals of increasing contrast as examples for a figure, none of them flat.

    They are at the quantiles 0.4, 0.6, 0.8 and 0.95 of the energy.
    """
    order = np.argsort(np.sum(np.asarray(signals) ** 2, axis=1))
    return order[(len(order) * np.array([0.4, 0.6, 0.8, 0.95])).astype(int)]


def coherence(D: Num[Array | np.ndarray, '...']) -> float:
    """Largest |cosine| between two different atoms: 0 for an orthogonal basis, 1 for a duplicate.

    Zero atoms count as orthogonal to all. A single atom has coherence 0.

    Args:
      D: [d, k].

    Raises:
      ValueError: D is not a matrix.
    """
    return float(cosines(D).max(initial=0.0))


def cosines(D: Num[Array | np.ndarray, '...']) -> Float[np.ndarray, ' pairs']:
    """|cosine| of every pair of different atoms, for a histogram: [d, k] -> [k (k - 1) / 2]."""
    D = _matrix(D)
    return _abs_cosines(D)[np.triu_indices(D.shape[1], 1)]


def usage(codes: Num[Array | np.ndarray, '...']) -> Float[np.ndarray, ' k']:
    """Fraction of the signals that use each atom; signals with codes that are not finite do not count.

    Learners keep a running average in their state; this function counts for given codes.

    Args:
      codes: [n, k].

    Returns:
      Fractions in [0, 1]; zeros where no signal is finite.

    Raises:
      ValueError: codes is not a matrix.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2:
        raise ValueError(f'codes of shape {codes.shape}; expected [n, k], a row for each signal')
    codes = codes[np.isfinite(codes).all(1)]
    return np.count_nonzero(codes, axis=0) / max(len(codes), 1)


def dead(usage: Num[Array | np.ndarray, ' k'], threshold: float = 1e-4) -> Bool[np.ndarray, ' k']:
    """Mask of the atoms that fewer than a fraction `threshold` of the signals use."""
    return np.asarray(usage) < threshold


def match(D: Num[Array | np.ndarray, '...'], other: Num[Array | np.ndarray, '...']) -> Matching:
    """The one-to-one matching of two dictionaries' atoms with the largest sum of |cosine|.

    Signs and norms of atoms are ignored. The fraction of atoms with |cosine| > 0.99 is what papers
    report as recovered where the true dictionary is known. A greedy choice, atom by atom, could match one atom twice,
    or leave the next with a dissimilar one.

    Args:
      D: [d, k].
      other: [d, m]; where k > m, k - m atoms are left without a partner.

    Raises:
      ValueError: A dictionary is not a matrix or not finite, or the atoms' dimensions differ.

    References:
      Aharon, Elad & Bruckstein 2006, section V (the 0.99); scipy's linear_sum_assignment.
    """
    D, other = _matrix(D), _matrix(other)
    if len(D) != len(other):
        raise ValueError(
            f'atoms of {len(D)} values cannot be matched with atoms of {len(other)}; '
            'map both dictionaries to one signal space'
        )
    if not (np.isfinite(D).all() and np.isfinite(other).all()):
        raise ValueError('an atom is not finite; remove or fix it')
    cosine = _unit(D).T @ _unit(other)
    rows, columns = optimize.linear_sum_assignment(abs(cosine), maximize=True)
    partner = np.full(D.shape[1], -1)
    partner[rows] = columns
    matched = np.zeros(D.shape[1])
    matched[rows] = cosine[rows, columns]
    return Matching(partner, matched)


def _matrix(D):
    D = np.asarray(D, float)
    if D.ndim != 2:
        raise ValueError(f'D of shape {D.shape}; expected [d, k] with atoms in columns')
    return D


def _unit(D):
    norms = np.linalg.norm(D, axis=0)
    return D / np.where(norms > 0, norms, 1)


def _abs_cosines(D):
    unit = _unit(D)
    return abs(unit.T @ unit)
