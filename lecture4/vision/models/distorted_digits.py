"""The networks of Jaderberg et al. 2015, table 1: fully connected or convolutional, with or without a transformer.

As in the paper's appendix A.4 (cited from memory, unverified): the FCN has two hidden layers, the CNN 9 x 9
filters, pooling, 7 x 7 filters, pooling; localization networks are three dense layers of 32 units, or two stages
of 20 filters of 5 x 5 and a dense layer of 20 units. Kernels are scaled with digits of other sizes than 28 x 28. The
paper's widths are not known; here they follow from the number of parameters, "about 400k" in the paper.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lecture4.ops import pool
from lecture4.ops.metrics import wilson_interval
from lecture4.vision import spatial_transformer as st
from lecture4.vision.layers import conv

Base = Literal['FCN', 'CNN']
Name = Literal[
    'FCN', 'CNN', 'ST-FCN-affine', 'ST-FCN-projective', 'ST-FCN-tps', 'ST-FCN-attention', 'ST-CNN-affine',
    'ST-CNN-projective', 'ST-CNN-tps', 'ST-CNN-attention', '2xST-FCN-affine', '2xST-FCN-projective',
    '2xST-FCN-tps', '2xST-CNN-affine', 'ST-CNN-deep',
]  # fmt: skip
NAMES: tuple[Name, ...] = get_args(Name)
DIGIT_SIZE = 28
KERNEL_SIZES, LOCALIZATION_KERNEL = (9, 7), 5
MAX_WIDTH = 4096
# Test errors of tables 1 and 4 after 150,000 steps, cited from memory, unverified: for each distortion, for cluttered
# translation, and for sums of two digits.
_TABLE_1 = {
    'FCN': (0.021, 0.052, 0.031, 0.032),
    'CNN': (0.012, 0.008, 0.015, 0.014),
    'ST-FCN-affine': (0.012, 0.008, 0.015, 0.027),
    'ST-FCN-projective': (0.013, 0.009, 0.014, 0.026),
    'ST-FCN-tps': (0.011, 0.008, 0.014, 0.024),
    'ST-CNN-affine': (0.007, 0.005, 0.008, 0.012),
    'ST-CNN-projective': (0.008, 0.006, 0.008, 0.013),
    'ST-CNN-tps': (0.007, 0.005, 0.008, 0.011),
}
PUBLISHED: dict[str, dict[str, float]] = {
    'R': {name: errors[0] for name, errors in _TABLE_1.items()},
    'RTS': {name: errors[1] for name, errors in _TABLE_1.items()},
    'P': {name: errors[2] for name, errors in _TABLE_1.items()},
    'E': {name: errors[3] for name, errors in _TABLE_1.items()},
    'TC': {'FCN': 0.132, 'CNN': 0.035, 'ST-FCN-affine': 0.020, 'ST-CNN-affine': 0.017},
    'sums': {
        'FCN': 0.477, 'CNN': 0.147, 'ST-FCN-affine': 0.226, 'ST-FCN-projective': 0.185, 'ST-FCN-tps': 0.191,
        '2xST-FCN-affine': 0.090, '2xST-FCN-projective': 0.059, '2xST-FCN-tps': 0.058,
    },
}  # fmt: skip
TABLE_1: tuple[Name, ...] = tuple(name for name in NAMES if name in _TABLE_1)
COMPARED: tuple[Name, ...] = ('FCN', 'CNN', 'ST-FCN-affine', 'ST-CNN-affine')
SMALL: tuple[Name, ...] = ('FCN', 'CNN', 'ST-FCN-affine', 'ST-CNN-tps', 'ST-CNN-affine')
SIGNS: tuple[Name, ...] = ('CNN', 'ST-CNN-affine', 'ST-CNN-deep')
SUMS: tuple[Name, ...] = ('FCN', 'CNN', 'ST-FCN-affine', '2xST-FCN-affine', '2xST-CNN-affine')


class Classifier(nn.Module):
    """The FCN or CNN without a transformer; returns (logits, activations).

    Attributes:
      base: 'FCN' or 'CNN'.
      width: Number of units of each hidden layer, or of filters of each stage.
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


def kind_of(name: str) -> st.Kind | None:
    """The kind of transformer of a network by its name, None without one."""
    if 'ST-' not in name:
        return None
    for kind in st.KINDS:
        if name.endswith(kind):
            return kind
    return 'affine'


def kinds(names: Iterable[str]) -> dict[str, st.Kind]:
    """{name: the kind of its transformer} of the networks that have one."""
    kind_by_name: dict[str, st.Kind | None] = {name: kind_of(name) for name in names}
    return {name: kind for name, kind in kind_by_name.items() if kind is not None}


def records(
    errors: Mapping[str, float],
    n: int,
    num_params: Mapping[str, int],
    published: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Rows of a table of test errors: network, parameters, test_error, published, 95_%_interval (Wilson's).

    Args:
      errors: {network: fraction of misclassified test images}.
      n: Number of test images.
      num_params: {network: number of parameters}.
      published: {network: published error}; None if there are none.
    """
    rows = []
    for name, error in errors.items():
        low, high = wilson_interval(round(error * n), n)
        rows.append(
            {
                'network': name,
                'parameters': num_params[name],
                'test_error': error,
                'published': (published or {}).get(name),
                '95_%_interval': f'{100 * low:.2f} to {100 * high:.2f}',
            }
        )
    return rows


@functools.lru_cache(maxsize=64)
def create(
    name: str,
    shape: tuple[int, ...],
    digit_size: int = DIGIT_SIZE,
    n_classes: int = 10,
    num_params: int = 400_000,
) -> nn.Module:
    """The network with a name, as wide as its number of parameters allows.

    Args:
      name: One of `NAMES`: the base, with the prefix 'ST-' and the suffix '-KIND' for a transformer at its input,
        '2xST-' for two in parallel; 'ST-CNN-deep' has affine ones before both convolutions.
      shape: (h, w, c) of an image.
      digit_size: Height and width of the undistorted digits in the image.
      n_classes: Number of classes.
      num_params: Largest number of parameters, including those of a localization network.

    Raises:
      ValueError: The name is unknown, or there are too few parameters for any width.
    """
    if name not in NAMES:
        raise ValueError(f'expected one of {", ".join(NAMES)}, got {name!r}')
    kind = kind_of(name)
    base: Base = 'FCN' if 'FCN' in name else 'CNN'
    *kernels, localization_size = (
        max(2, round(k * digit_size / DIGIT_SIZE)) for k in (*KERNEL_SIZES, LOCALIZATION_KERNEL)
    )
    # Largest filters of which two unpadded stages, with a pooling between, fit in half the image.
    localization_size = min(localization_size, (min(shape[:2]) // 2 + 1) // 3)

    def network(width):
        classifier = Classifier(base, width, n_classes, tuple(kernels))
        if kind is None:
            return classifier

        def transformer(kernel, kind: st.Kind = kind, **options):
            localization = (
                st.LocalizationMLP()
                if base == 'FCN'
                else st.LocalizationCNN(kernel_size=kernel, **options)
            )
            return st.SpatialTransformer(localization, kind, count=2 if name[0] == '2' else 1)

        transformers = {'input': transformer(localization_size)}
        if name.endswith('deep'):
            transformers['conv2'] = transformer(max(2, localization_size - 2), filters=(20,))
        return st.Transformed(classifier, transformers)

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
    """Coefficients of the polynomial with given values at 1, 2, 3, exact for integers."""
    first, second, third = values
    a = (third - 2 * second + first) / 2
    b = second - first - 3 * a
    return a, b, first - a - b
