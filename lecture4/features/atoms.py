"""What a learned dictionary looks like in numbers: order, coherence, dead atoms, likeness to another.

Host side, numpy and scipy, float64 inside whatever comes in: nothing here is jitted or
differentiated. Atoms are the columns of D [d, k]. Gabor fits are in `sparse.gabor`, and handed on.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize
from scipy.cluster import hierarchy
from scipy.spatial import distance


class Matching(NamedTuple):
    """Which atom of another dictionary stands for each of k atoms."""

    partner: np.ndarray  # [k] index of the other dictionary's atom; -1 where there is none left
    cosine: np.ndarray  # [k] of the angle to it, in [-1, 1]; negative: of the other sign; 0: none


def display_order(D, usage=None):
    """An order of the atoms for looking at them: a permutation of range(k).

    Given `usage`, most used first. Without it, like beside like: leaves of a hierarchical
    clustering by |cosine| (so an atom and its negative are neighbours), turned so that neighbours
    are as close as the tree allows. Zero atoms come last either way; ties keep their order.

    Shapes  D [d, k]; usage [k] or None. Returns [k] int.
    Errors  ValueError where D is not a matrix or usage does not have one entry per atom.
    """
    D = _matrix(D)
    k = D.shape[1]
    norms = np.linalg.norm(D, axis=0)
    if usage is not None:
        usage = np.asarray(usage, float)
        if usage.shape != (k,):
            raise ValueError(f'usage has shape {usage.shape}; D has {k} atoms: give ({k},)')
        return np.lexsort((-usage, norms == 0))
    alive = np.flatnonzero(norms > 0)
    if len(alive) < 3:
        return np.lexsort((norms == 0,))
    gaps = distance.squareform(1 - np.minimum(_abs_cosines(D[:, alive]), 1), checks=False)
    tree = hierarchy.linkage(gaps, 'average', optimal_ordering=True)
    return np.concatenate([alive[hierarchy.leaves_list(tree)], np.flatnonzero(norms == 0)])


def coherence(D):
    """Largest |cosine| between two different atoms: 0 for an orthogonal basis, 1 for a twin.

    Zero atoms count as orthogonal to all. One atom alone has coherence 0.
    Shapes  D [d, k]. Returns a float.
    """
    return float(cosines(D).max(initial=0.0))


def cosines(D):
    """|cosine| of every pair of different atoms, for a histogram. D [d, k] -> [k (k - 1) / 2]."""
    D = _matrix(D)
    return _abs_cosines(D)[np.triu_indices(D.shape[1], 1)]


def usage(codes):
    """Share of the signals that use each atom; signals that are marked, not finite, don't count.

    Learners keep a running one in their state; this is that of codes at hand.
    Shapes  codes [n, k]. Returns [k] in [0, 1]; zeros where no signal is finite.
    Errors  ValueError where codes is not a matrix.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2:
        raise ValueError(f'codes are [n, k], a row for each signal; got shape {codes.shape}')
    codes = codes[np.isfinite(codes).all(1)]
    return np.count_nonzero(codes, axis=0) / max(len(codes), 1)


def dead(usage, threshold=1e-4):
    """Atoms that fewer than `threshold` of the signals use. usage [k] shares -> [k] bool."""
    return np.asarray(usage) < threshold


def match(D, other):
    """The one-to-one matching of two dictionaries' atoms with the largest sum of |cosine|.

    Signs and norms of atoms don't matter, as they don't to codes. The share of atoms with
    |cosine| > 0.99 is what papers on dictionaries with a known truth report as recovered. Greedy
    choice, atom by atom, would give twins to one atom and strangers to the next.

    Shapes  D [d, k], other [d, m]. Returns Matching of [k]; where k > m, k - m atoms stay without.
    Errors  ValueError where one is not a matrix, the atoms' lengths differ, or one is not finite.
    Source  Aharon, Elad & Bruckstein 2006, section V (the 0.99); scipy's linear_sum_assignment.
    """
    D, other = _matrix(D), _matrix(other)
    if len(D) != len(other):
        raise ValueError(
            f'atoms of {len(D)} values cannot be matched with atoms of {len(other)}; '
            'bring both dictionaries to one signal space'
        )
    if not (np.isfinite(D).all() and np.isfinite(other).all()):
        raise ValueError('an atom is not finite; leave it out or mend it')
    cosine = _unit(D).T @ _unit(other)
    rows, columns = optimize.linear_sum_assignment(abs(cosine), maximize=True)
    partner = np.full(D.shape[1], -1)
    partner[rows] = columns
    found = np.zeros(D.shape[1])
    found[rows] = cosine[rows, columns]
    return Matching(partner, found)


def _matrix(D):
    D = np.asarray(D, float)
    if D.ndim != 2:
        raise ValueError(f'D holds atoms as columns, [d, k]; got shape {D.shape}')
    return D


def _unit(D):
    norms = np.linalg.norm(D, axis=0)
    return D / np.where(norms > 0, norms, 1)


def _abs_cosines(D):
    unit = _unit(D)
    return abs(unit.T @ unit)
