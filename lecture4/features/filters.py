"""Filters learned with labels, for transfer from labeled examples of other classes.

A layer of the same form as sparse coding features (responses to patches, rectified and pooled over
a grid), with a linear classifier on top, both learned by gradient descent: only the filters are transferred to the
new task, so that the comparison is of the origin of filters.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from lecture4.features import self_taught
from lecture4.ops import linalg


def init(
    key: PRNGKeyArray, patch_dim: int, n_filters: int, n_classes: int, pooling_grid: int = 1
) -> dict[str, Array]:
    """Random filters, and a linear classifier on their pooled responses.

    Args:
      key: Random key of the initialization.
      patch_dim: Number of values of a patch.
      n_filters: Number of filters.
      n_classes: Number of classes.
      pooling_grid: As in self_taught.encode_images.

    Returns:
      filters [patch_dim, n_filters], bias [n_filters], classifier [p, n_classes] of the
      p = pooling_grid^2 * 2 n_filters features, classifier_bias [n_classes].
    """
    n_features = pooling_grid**2 * 2 * n_filters
    filter_key, classifier_key = jax.random.split(key)
    return {
        'filters': jax.random.normal(filter_key, (patch_dim, n_filters)) / patch_dim**0.5,
        'bias': jnp.zeros(n_filters),
        'classifier': 0.01 * jax.random.normal(classifier_key, (n_features, n_classes)),
        'classifier_bias': jnp.zeros(n_classes),
    }


def encoder(params: dict[str, Array]) -> Callable[[Any], Any]:
    """The layer as an encoder of self_taught: patches [n, d] -> responses [n, n_filters], affine."""
    return lambda x: x @ params['filters'] + params['bias'][None, :]


def no_whitening(patch_dim: int) -> linalg.Affine:
    """The affine map that leaves patches unchanged."""
    return linalg.Affine(jnp.zeros(patch_dim), jnp.eye(patch_dim))


def loss(
    params: dict[str, Array],
    images: Float[Array, 'n h w 1'],
    labels: Int[Array, ' n'],
    **options: Any,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """Mean cross-entropy of the labels, and the accuracy on the same batch.

    Args:
      params: As `init` returns them.
      images: A batch.
      labels: Classes of the images.
      **options: Options of self_taught.encode_images.

    Returns:
      (loss, {'train_accuracy': fraction}).
    """
    whitening = no_whitening(len(params['filters']))
    features = self_taught.encode_images(images, encoder(params), whitening=whitening, **options)
    logits = features @ params['classifier'] + params['classifier_bias'][None, :]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    accuracy = jnp.mean(logits.argmax(1) == labels, dtype=losses.dtype)
    return losses.mean(), {'train_accuracy': accuracy}
