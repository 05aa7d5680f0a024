"""The networks of Jaderberg et al. 2015, table 1: fully connected or convolutional, with or without a transformer.

As in the paper's appendix A.4 (cited from memory, unverified): the FCN has two hidden layers, the CNN 9 x 9
filters, pooling, 7 x 7 filters, pooling; localization networks are three dense layers of 32 units, or two stages
of 20 filters of 5 x 5 and a dense layer of 20 units. Kernels scale with the digits where those are not 28 x 28.
Widths are not known; here they follow from the number of parameters, "about 400k" in the paper.
"""

import math
from typing import Literal, cast, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lecture4.ops import pool
from lecture4.vision import spatial_transformer as st
from lecture4.vision.layers import conv

Base = Literal['FCN', 'CNN']
DIGIT_SIZE = 28
KERNEL_SIZES, LOCALIZATION_KERNEL = (9, 7), 5
MAX_WIDTH = 4096


class Classifier(nn.Module):
    """The FCN or CNN without a transformer; returns (logits, activations).

    Attributes:
      base: 'FCN' or 'CNN'.
      width: Units of each hidden layer, or filters of each stage.
      n_classes: Number of classes.
      kernel_sizes: Height and width of the filters of each stage.
    """

    base: Base
    width: int
    n_classes: int
    kernel_sizes: tuple[int, ...] = KERNEL_SIZES

    @nn.compact
    def __call__(
        self, x: Float[Array, 'n h w c'], *, train: bool = False
    ) -> tuple[Float[Array, 'n n_classes'], dict[str, Array]]:
        """Logits and activations."""
        activations = {}
        if self.base == 'CNN':
            for i, size in enumerate(self.kernel_sizes, 1):
                x = nn.relu(conv(self.width, size, name=f'conv{i}')(x))
                x = activations[f'pool{i}'] = pool.max_pool(x, 2)
        x = x.reshape(x.shape[0], -1)
        if self.base == 'FCN':
            for i in (1, 2):
                x = activations[f'fc{i}'] = nn.relu(nn.Dense(self.width, name=f'fc{i}')(x))
        return nn.Dense(self.n_classes, name='fc')(x), activations


def names(kinds: tuple[st.Kind, ...] = ('affine', 'projective', 'tps')) -> tuple[str, ...]:
    """Names that `create` takes, in the order of the paper's table."""
    bases = get_args(Base)
    return (*bases, *(f'ST-{base} {kind}' for base in bases for kind in kinds))


def create(
    name: str,
    shape: tuple[int, ...],
    digit_size: int = DIGIT_SIZE,
    n_classes: int = 10,
    num_params: int = 400_000,
) -> nn.Module:
    """The network of that name, as wide as its number of parameters allows.

    Args:
      name: 'FCN', 'CNN', or 'ST-FCN KIND' and 'ST-CNN KIND' with a kind of `spatial_transformer.KINDS`.
      shape: (h, w, c) of an image.
      digit_size: Height and width of the digits in it before they were distorted.
      n_classes: Number of classes.
      num_params: Largest number of parameters, those of a localization network included.

    Raises:
      ValueError: Another name, or so few parameters that no width fits.
    """
    if name not in names(st.KINDS):
        raise ValueError(f'expected one of {", ".join(names(st.KINDS))}, got {name!r}')
    base, _, kind = name.partition(' ')
    *kernels, own = (
        max(2, round(k * digit_size / DIGIT_SIZE)) for k in (*KERNEL_SIZES, LOCALIZATION_KERNEL)
    )

    def network(width):
        classifier = Classifier(
            'FCN' if base.endswith('FCN') else 'CNN', width, n_classes, tuple(kernels)
        )
        if not kind:
            return classifier
        localization = (
            st.LocalizationMLP() if base == 'ST-FCN' else st.LocalizationCNN(kernel_size=own)
        )
        return st.Transformed(
            classifier, {'input': st.SpatialTransformer(localization, cast(st.Kind, kind))}
        )

    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    def size(width):
        variables = jax.eval_shape(network(width).init, jax.random.key(0), x)
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))

    # The number of parameters is a polynomial a w^2 + b w + c of the width.
    c2, c1, c0 = _quadratic([size(width) for width in (1, 2, 3)])
    width = max(w for w in range(MAX_WIDTH) if c2 * w * w + c1 * w + c0 <= num_params or not w)
    if not width:
        raise ValueError(
            f'{name} for images of {shape} has at least {c2 + c1 + c0:.0f} parameters, got num_params '
            f'{num_params}; allow more'
        )
    return network(width)


def _quadratic(values):
    """Coefficients of the polynomial with these values at 1, 2, 3, exact for whole numbers."""
    first, second, third = values
    a = (third - 2 * second + first) / 2
    b = second - first - 3 * a
    return a, b, first - a - b
