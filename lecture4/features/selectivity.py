"""Single neurons of a network: how invariant they are, and how well the best one detects a class.

Host side, numpy. Activations are [n, units], those of any layer.
"""

import numpy as np
from jaxtyping import Array, Float, Int, Num

QUANTILES = np.linspace(0.02, 0.98, 25)  # of a unit's activations, tried as thresholds


def invariance(
    before: Num[Array | np.ndarray, '...'], after: Num[Array | np.ndarray, '...']
) -> Float[np.ndarray, ' units']:
    """Correlation over examples of every unit's activations before and after a change of its input.

    Args:
      before: [n, units].
      after: [n, units], of the same examples.

    Returns:
      1 for a unit that is invariant to the change, 0 for one whose activations are then unrelated;
      nan for a unit that is constant.

    Raises:
      ValueError: The shapes differ.
    """
    if before.shape != after.shape or before.ndim != 2:
        raise ValueError(
            f'activations of shape {before.shape} and {after.shape}; expected [n, units]'
        )
    a, b = (v - v.mean(0) for v in (np.asarray(before, float), np.asarray(after, float)))
    power = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    # What rounding leaves of a constant is no change.
    varies = power > 1e-10 * (np.asarray(before, float) ** 2).sum(0)
    return np.divide((a * b).sum(0), power, out=np.full(len(power), np.nan), where=varies)


def best_neuron(
    activations: Num[Array | np.ndarray, 'n units'],
    labels: Int[Array | np.ndarray, ' n'],
    test_activations: Num[Array | np.ndarray, 'm units'],
    test_labels: Int[Array | np.ndarray, ' m'],
    n_classes: int,
) -> Float[np.ndarray, ' {n_classes}']:
    """Balanced accuracy of the best single neuron with a threshold as a detector of each class.

    Unit, threshold and sign are those of the highest accuracy on `activations`; the result is their
    accuracy on `test_activations`. The class and the rest weigh the same, so that chance is 1/2.

    Args:
      activations: To choose the unit, threshold and sign on.
      labels: Classes of these examples.
      test_activations: To evaluate on.
      test_labels: Classes of these examples.
      n_classes: Number of classes.

    Returns:
      A fraction for each class.

    Raises:
      ValueError: A class has no example in one of the sets.

    References:
      Le et al. 2012, section 4.2, whose thresholds are equally spaced.
    """
    levels = np.quantile(activations, QUANTILES, axis=0)
    accuracy = []
    for c in range(n_classes):
        own, test_own = np.asarray(labels) == c, np.asarray(test_labels) == c
        if not (own.any() and test_own.any()):
            raise ValueError(f'class {c} has no example; each needs at least one in both sets')
        # Fraction of the class above a level minus that of the others: 1 and -1 are perfect.
        differences = np.stack([_difference(activations > level, own) for level in levels])
        level, unit = np.unravel_index(np.argmax(abs(differences)), differences.shape)
        above = test_activations[:, [unit]] > levels[level, unit]
        sign = np.sign(differences[level, unit])
        accuracy.append(0.5 + 0.5 * _difference(above, test_own)[0] * sign)
    return np.array(accuracy)


def _difference(above, own):
    return above[own].mean(0) - above[~own].mean(0)
