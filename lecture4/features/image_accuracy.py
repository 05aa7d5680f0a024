"""Accuracy of linear classifiers on features of labeled images, with few labels and with all."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Shaped

from lecture4.features import label_efficiency, self_taught
from lecture4.ops import cores

# Images of a part: a multiple of the 4 or 16 of an encoder's tile, and few enough to keep all cores busy to the end.
ROWS, MAX_ROWS = 16, 256

FeatureFunctions = Mapping[str, Callable[[Any, Any], Any]]


@runtime_checkable
class LabeledImages(Protocol):
    """Training and test images with their classes, as lecture4.data.images.load returns them."""

    train_images: Any
    train_labels: Any
    test_images: Any
    test_labels: Any


def compute_features(
    functions: FeatureFunctions, state: Any, *images: Shaped[ArrayLike, '...']
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Features of sets of images by every function, one function at a time, on the host.

    Where the only device is a CPU, its cores take turns at parts of a set: encoders solve problems too small for
    XLA's own threads.

    Args:
      functions: Name -> (state, images [n, h, w, c]) -> features [n, p], traceable by jax.jit; features of an image do
        not depend on the other images.
      state: State of a trained model.
      *images: Sets of images, such as training and test images.

    Yields:
      (name, features of each set).
    """
    for name, function in functions.items():
        compiled = jax.jit(function)
        if cores.cpu_is_only_device():
            run = _by_parts(compiled, state)
        else:
            run = functools.partial(compiled, state)
        yield name, [np.asarray(run(jnp.asarray(x))) for x in images]


def _by_parts(function, state):
    """The function of a set of images, computed for equal parts of it by programs that are compiled once."""

    @functools.cache
    def program(shape, dtype):
        return function.lower(state, jax.ShapeDtypeStruct(shape, dtype)).compile()

    def run(images):
        if not len(images):
            return function(state, images)
        n_rows = min(MAX_ROWS, ROWS * math.ceil(len(images) / (ROWS * cores.n_cores())))
        compiled = program((n_rows, *images.shape[1:]), images.dtype)
        return cores.map_rows(functools.partial(compiled, state), images, n_rows)

    return run


def accuracies(
    functions: FeatureFunctions,
    state: Any,
    task: LabeledImages,
    *,
    seed: int,
    labels_per_class: tuple[int, ...],
    num_trials: int,
    labeled_pool_size: int | None = None,
    full_data_C: float = 0.0,
    full_data_loss: Literal['squared hinge', 'hinge', 'softmax'] = 'squared hinge',
) -> tuple[dict[str, Float[np.ndarray, 'n_sizes num_trials']], list[dict[str, Any]]]:
    """Accuracy of every kind of features, with few labels and with all labels.

    Args:
      functions: As in `compute_features`.
      state: As in `compute_features`.
      task: Training and test images.
      seed: Seed of the sampling, as in label_efficiency.label_curve.
      labels_per_class: As in label_efficiency.label_curve.
      num_trials: As in label_efficiency.label_curve.
      labeled_pool_size: Training images per class, the first ones, from which labels are sampled; None:
        all.
      full_data_C: C of an additional classifier on all labels; 0 trains none.
      full_data_loss: As in self_taught.full_data_accuracy.

    Returns:
      {name: accuracy as in label_efficiency.label_curve}, and a record for each name, with the entries
      features (its name) and full_data_accuracy, where all labels are used.
    """
    curves, records = {}, []
    labels = task.train_labels, task.test_labels
    pool = np.arange(len(task.train_labels))
    if labeled_pool_size is not None:
        pool = label_efficiency.first_per_class(task.train_labels, labeled_pool_size)
    for name, (train, test) in compute_features(
        functions, state, task.train_images, task.test_images
    ):
        curves[name] = label_efficiency.label_curve(
            seed,
            train[pool],
            labels[0][pool],
            test,
            labels[1],
            labels_per_class=labels_per_class,
            num_trials=num_trials,
        )
        if full_data_C:
            accuracy = self_taught.full_data_accuracy(
                train, test, *labels, C=full_data_C, loss=full_data_loss
            )
            records.append({'features': name, 'full_data_accuracy': accuracy})
    return curves, records
