"""Learning settings compared with one classifier: features from other data, or actively chosen labels.

Features have one form, dense patches through a layer of filters, rectified and pooled, so that the comparison is of
the origin of the filters. `learned` holds the filters: 'task' and 'elsewhere', atoms [d, k] of unlabeled patches of
the task's images and of other images, and 'transfer', parameters of `filters` that classify other classes.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike, Float, Real

from lecture4.features import active_learning, filters, image_accuracy, self_taught
from lecture4.ops import linalg
from lecture4.sparse import solvers


def feature_functions(
    whitening: Mapping[str, linalg.Affine],
    *,
    patch_size: int,
    num_filters: int,
    l1_penalty: Real[ArrayLike, ''],
    seed: int,
    tile: int = 64,
    **options: Any,
) -> dict[str, Callable[[Any, Any], Any]]:
    """Features of images of the task by setting.

    Args:
      whitening: 'task' and 'elsewhere': the affine map of the patches that atoms are learned on.
      patch_size: Height and width of the patches in pixels.
      num_filters: Number of random filters, the control.
      l1_penalty: Weight of the l1 penalty on the codes.
      seed: Seed of the random filters.
      tile: As in self_taught.encode_images.
      **options: Options of self_taught.encode_images.

    Returns:
      {'supervised' (pixels), 'random filters', 'semi-supervised', 'transfer', 'self-taught':
      (learned, images [n, h, w, 1]) -> features [n, p]}.
    """
    key = jax.random.fold_in(jax.random.key(seed), 1)
    random = jax.random.normal(key, (patch_size**2, num_filters))
    plain = filters.no_whitening(patch_size**2)

    def sparse_codes(name):
        return lambda learned: functools.partial(
            solvers.approximate, D=learned[name], penalty_weight=l1_penalty
        )

    def pooled(encoder, affine):
        return lambda learned, images: self_taught.encode_images(
            images,
            encoder(learned),
            whitening=affine,
            patch_size=patch_size,
            tile=tile,
            **options,
        )

    return {
        'supervised': lambda learned, images: images.reshape(len(images), -1),
        'random filters': pooled(lambda learned: lambda x: x @ random, plain),
        'semi-supervised': pooled(sparse_codes('task'), whitening['task']),
        'transfer': pooled(lambda learned: filters.encoder(learned['transfer']), plain),
        'self-taught': pooled(sparse_codes('elsewhere'), whitening['elsewhere']),
    }


def accuracies(
    functions: image_accuracy.FeatureFunctions,
    learned: Mapping[str, Any],
    task: image_accuracy.LabeledImages,
    *,
    seed: int,
    labels_per_class: tuple[int, ...],
    num_trials: int,
) -> dict[str, Float[np.ndarray, 'n_sizes num_trials']]:
    """Accuracy of every setting.

    Active learning selects examples by their pixels, so that it differs from the supervised setting in the selection
    alone.

    Args:
      functions: As `feature_functions` returns them.
      learned: See the module's docstring.
      task: Training and test images of the task.
      seed: Seed of the sampling, as in label_efficiency.label_curve.
      labels_per_class: As in label_efficiency.label_curve; for active learning an average.
      num_trials: As in label_efficiency.label_curve.

    Returns:
      {setting or 'active: STRATEGY': fractions}.
    """
    sampling = {'labels_per_class': labels_per_class, 'num_trials': num_trials}
    curves, _ = image_accuracy.accuracies(functions, learned, task, seed=seed, **sampling)
    pool, test = (np.reshape(x, (len(x), -1)) for x in (task.train_images, task.test_images))
    active = active_learning.label_curves(
        seed, pool, task.train_labels, test, task.test_labels, **sampling
    )
    return curves | {f'active: {strategy}': values for strategy, values in active.items()}
