"""What single units of a network are worth: how steady they are, and what they detect by chance.

Host side, numpy. Outputs are [n, units], those of any layer.
"""

import numpy as np

QUANTILES = np.linspace(0.02, 0.98, 25)  # of a unit's outputs, tried as thresholds


def constancy(before, after):
    """Correlation over examples of every unit's outputs before and after a change of its input.

    1 for a unit that does not notice the change, 0 for one whose outputs are then unrelated.
    Shapes  before, after [n, units]. Returns [units]; nan for a unit that never changes.
    Errors  ValueError where the shapes differ.
    """
    if before.shape != after.shape or before.ndim != 2:
        raise ValueError(f'outputs {before.shape} and {after.shape}; both are to be [n, units]')
    a, b = (v - v.mean(0) for v in (np.asarray(before, float), np.asarray(after, float)))
    power = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    # What rounding leaves of a constant is no change.
    alive = power > 1e-10 * (np.asarray(before, float) ** 2).sum(0)
    return np.divide((a * b).sum(0), power, out=np.full(len(power), np.nan), where=alive)


def best_unit(outputs, labels, tested, test_labels, n_classes: int):
    """How well one unit with a threshold tells each class from all others: [n_classes].

    Unit, threshold and sign are those with the highest accuracy on `outputs`; the result is their
    accuracy on `tested`. The class and the rest weigh alike, so that chance is 1/2.
    Shapes  outputs [n, units], labels [n]; tested [m, units], test_labels [m].
    Errors  ValueError where a class has no example in either set.
    Source  Le et al. 2012, section 4.2, whose thresholds are equally spaced.
    """
    levels = np.quantile(outputs, QUANTILES, axis=0)
    reached = []
    for c in range(n_classes):
        own, test_own = labels == c, test_labels == c
        if not (own.any() and test_own.any()):
            raise ValueError(f'class {c} has no example; each needs some in both sets')
        # Share of the class above a level less that of the others: 1 and -1 are perfect.
        gaps = np.stack([_gap(outputs > level, own) for level in levels])
        level, unit = np.unravel_index(np.argmax(abs(gaps)), gaps.shape)
        gap = _gap((tested[:, [unit]] > levels[level, unit]), test_own)[0]
        reached.append(0.5 + 0.5 * gap * np.sign(gaps[level, unit]))
    return np.array(reached)


def _gap(above, own):
    return above[own].mean(0) - above[~own].mean(0)
