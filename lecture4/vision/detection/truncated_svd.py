"""Truncated singular value decompositions of the dense layers of Fast R-CNN. Girshick, ICCV 2015, section 3.1."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def decompose(
    head: Mapping[str, Any], ranks: Mapping[str, int]
) -> tuple[dict[str, Any], dict[str, Float[Array, '']]]:
    """Replace dense layers of a head by their truncated singular value decompositions.

    The kernel W [d, k] becomes W1 W2 with W1 [d, t] = U sqrt(s) and W2 [t, k] = sqrt(s) V', two layers without a
    nonlinearity between them: t (d + k) parameters in place of d k. The paper has t = 1024 for fc6, 256 for fc7.

    Args:
      head: Parameters of the dense layers, {'fc6': {'kernel', 'bias'}, ...}.
      ranks: Rank t of each layer.

    Returns:
      The parameters with {'kernel1', 'kernel2', 'bias'} for these layers, for `apply`; and the fraction of the
      squared singular values that each of them keeps.

    References:
      Girshick 2015, section 3.1.
    """
    new, kept = dict(head), {}
    for name, rank in ranks.items():
        u, s, v = jnp.linalg.svd(head[name]['kernel'], full_matrices=False)
        root = jnp.sqrt(s[:rank])
        new[name] = {
            'kernel1': u[:, :rank] * root[None, :],
            'kernel2': root[:, None] * v[:rank],
            'bias': head[name]['bias'],
        }
        kept[name] = (s[:rank] ** 2).sum() / (s**2).sum()
    return new, kept


def apply(
    layers: Mapping[str, Any],
    x: Float[Array | np.ndarray, 'r h w c'],
    names: Sequence[str] = ('fc6', 'fc7'),
) -> Float[Array, 'r d']:
    """`networks.DenseLayers` in testing, where some layers are decomposed by `decompose`."""
    x = jnp.asarray(x).reshape(len(x), -1)
    for name in names:
        layer = layers[name]
        x = x @ layer['kernel1'] @ layer['kernel2'] if 'kernel1' in layer else x @ layer['kernel']
        x = jax.nn.relu(x + layer['bias'][None, :])
    return x
