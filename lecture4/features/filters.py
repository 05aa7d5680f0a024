"""Filters that tell classes apart: what transfer learns where labels of other classes are at hand.

A layer of the form that sparse codes have as features (responses to patches, rectified and pooled
over regions), with a linear classifier on top, both learned by gradient: only the filters go on to
the new task, so that what is compared is where filters come from.
"""

import jax
import jax.numpy as jnp
import optax

from lecture4.features import self_taught
from lecture4.ops import linalg


def init(key, size, n_filters, n_features, n_classes):
    """Random filters for patches of `size` values and a classifier on n_features pooled responses."""
    one, two = jax.random.split(key)
    return {
        'filters': jax.random.normal(one, (size, n_filters)) / size**0.5,
        'bias': jnp.zeros(n_filters),
        'top': 0.01 * jax.random.normal(two, (n_features, n_classes)),
        'top_bias': jnp.zeros(n_classes),
    }


def layer(params):
    """An encoder, as selftaught's: patches [n, d] -> responses [n, n_filters], affine."""
    return lambda x: x @ params['filters'] + params['bias'][None, :]


def unwhitened(size):
    """The affine map that leaves patches as they are."""
    return linalg.Affine(jnp.zeros(size), jnp.eye(size))


def loss(params, images, labels, **options):
    """Cross entropy of the labels, mean, and the share that is right; options as encode_images'.

    Shapes  images [n, h, w, 1], labels [n]. Returns (scalar, {'accuracy': scalar}).
    """
    whitening = unwhitened(len(params['filters']))
    found = self_taught.encode_images(images, layer(params), whitening=whitening, **options)
    scores = found @ params['top'] + params['top_bias'][None, :]
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
    right = jnp.mean(scores.argmax(1) == labels, dtype=losses.dtype)
    return losses.mean(), {'accuracy': right}
