"""Single neurons of a network: their invariance and sparseness, and how well the best one detects a class.

Runs on the host with numpy. Activations [n, units] are those of any layer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, Num

# Captions of tables of `shift_invariance` and `best_neurons`.
INVARIANCE = (
    'Correlation of the outputs of a unit on held-out crops with those on the crops shifted sideways, '
    'mean over units. Before learning, filters are patches.'
)
BEST_NEURON = (
    'One class against the rest, both weighted equally (chance is 50 %), mean over classes. Unit and '
    'threshold are chosen on the training images and tested on the test images.'
)
QUANTILES = np.linspace(
    0.02, 0.98, 25
)  # quantiles of a unit's activations that are tried as thresholds


def invariance(
    before: Num[Array | np.ndarray, '...'], after: Num[Array | np.ndarray, '...']
) -> Float[np.ndarray, ' units']:
    """Correlation over examples of every unit's activations before and after a change of its input.

    Args:
      before: [n, units].
      after: [n, units], of the same examples.

    Returns:
      1 for a unit that is invariant to the change, 0 for a unit whose activations before and after are unrelated;
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
    # Rounding of a constant does not count as variation.
    varies = power > 1e-10 * (np.asarray(before, float) ** 2).sum(0)
    return np.divide((a * b).sum(0), power, out=np.full(len(power), np.nan), where=varies)


def shift_invariance(
    networks: Mapping[str, Callable[[Any], Mapping[str, Num[np.ndarray, 'n _units']]]],
    images: Num[Array | np.ndarray, 'n h w c'],
    shifts: Sequence[int],
    *,
    size: int,
) -> list[dict[str, Any]]:
    """`invariance` of networks to horizontal shifts of the image, mean over the units of each layer.

    Args:
      networks: Name -> (images [n, size, size, c] -> {layer: activations}).
      images: Images that are larger than `size` by at least the largest shift.
      shifts: Shifts in pixels.
      size: Height and width of the networks' input.

    Returns:
      A record per network, layer and shift: `layer`, `network`, `shift_in_pixels`, `invariance`.
    """
    records = []
    for network, outputs in networks.items():
        before = outputs(images[:, :size, :size])
        shifted = [outputs(images[:, :size, s : s + size]) for s in shifts]
        records += [
            {'layer': layer, 'network': network, 'shift_in_pixels': shift}
            | {'invariance': float(np.nanmean(invariance(a, after[layer])))}
            for layer, a in before.items()
            for shift, after in zip(shifts, shifted, strict=True)
        ]
    return records


def kurtosis(activations: Num[Array | np.ndarray, 'n units']) -> Float[np.ndarray, ' units']:
    """E h^4 / (E h^2)^2 of every unit over examples: 3 for a Gaussian unit, more for a sparse unit.

    Args:
      activations: Activations with mean 0. A unit that is always 0 has kurtosis 0.
    """
    h = np.asarray(activations)
    return (h**4).mean(0) / np.maximum((h**2).mean(0) ** 2, np.finfo(float).tiny)


def best_neuron(
    activations: Num[Array | np.ndarray, 'n units'],
    labels: Int[Array | np.ndarray, ' n'],
    test_activations: Num[Array | np.ndarray, 'm units'],
    test_labels: Int[Array | np.ndarray, ' m'],
    n_classes: int,
) -> Float[np.ndarray, ' {n_classes}']:
    """Balanced accuracy of the best single neuron with a threshold as a detector of each class.

    Unit, threshold and sign are those with the highest accuracy on `activations`; the result is their accuracy on
    `test_activations`. The class and the rest have equal weight, so that chance is 1/2.

    Args:
      activations: Activations on which unit, threshold and sign are chosen.
      labels: Classes of these examples.
      test_activations: Activations to evaluate on.
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
        in_class, test_in_class = np.asarray(labels) == c, np.asarray(test_labels) == c
        if not (in_class.any() and test_in_class.any()):
            raise ValueError(f'class {c} has no example; each needs at least one in both sets')
        # Fraction of the class above a level minus that of the others: 1 and -1 are perfect.
        differences = np.stack([_difference(activations > level, in_class) for level in levels])
        level, unit = np.unravel_index(np.argmax(abs(differences)), differences.shape)
        above = test_activations[:, [unit]] > levels[level, unit]
        sign = np.sign(differences[level, unit])
        accuracy.append(0.5 + 0.5 * _difference(above, test_in_class)[0] * sign)
    return np.array(accuracy)


def best_neurons(
    networks: Mapping[str, Callable[[Any], Mapping[str, Num[np.ndarray, 'n _units']]]],
    train: tuple[Num[Array | np.ndarray, 'n h w c'], Int[Array | np.ndarray, ' n']],
    test: tuple[Num[Array | np.ndarray, 'm h w c'], Int[Array | np.ndarray, ' m']],
    n_classes: int,
) -> list[dict[str, Any]]:
    """`best_neuron` in every layer of networks, mean over classes.

    Args:
      networks: Name -> (images -> {layer: activations}).
      train: Images and labels to choose units and thresholds on.
      test: Images and labels to evaluate on.
      n_classes: Number of classes.

    Returns:
      A record per network and layer: `layer`, `network`, `best_neuron`.
    """
    records = []
    for network, outputs in networks.items():
        chosen_on, evaluated_on = outputs(train[0]), outputs(test[0])
        for layer, activations in chosen_on.items():
            accuracy = best_neuron(activations, train[1], evaluated_on[layer], test[1], n_classes)
            record = {'layer': layer, 'network': network, 'best_neuron': float(accuracy.mean())}
            records.append(record)
    return records


def _difference(above, in_class):
    return above[in_class].mean(0) - above[~in_class].mean(0)
