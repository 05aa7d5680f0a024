"""Accuracy of linear classifiers on features of labeled images, with few labels and with all."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Shaped

from lecture4.features import label_efficiency, self_taught

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

    Args:
      functions: Name -> (state, images [n, h, w, c]) -> features [n, p], traceable by jax.jit.
      state: State of a trained model.
      *images: Sets of images, such as training and test images.

    Yields:
      (name, features of each set).
    """
    for name, function in functions.items():
        compiled = jax.jit(function)
        yield name, [np.asarray(compiled(state, jnp.asarray(x))) for x in images]


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
