"""Units of a network of reconstruction-ICA layers: outputs by sublayer, responses, receptive fields."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, ScalarLike

from lecture4.autoencoder import rica


def sublayer_outputs(
    layers: Sequence[rica.Layer],
    x: Float[ArrayLike, 'n h w c'],
    stages: Sequence[rica.Stage],
    *,
    min_std: float = 0.01,
    tile: int = 64,
) -> dict[str, Float[np.ndarray, 'n _units']]:
    """Outputs of all units, by sublayer: 'pixels', 'filters 1', 'pooled 1', 'filters 2', ...

    Args:
      layers: Weights of the layers.
      x: Images.
      stages: Sizes of the layers.
      min_std: As in `rica.apply`.
      tile: Number of images in memory at a time.
    """
    x, stages = np.asarray(x), tuple(stages)
    parts = [_apply(layers, x[i : i + tile], stages, min_std) for i in range(0, len(x), tile)]
    outputs = {'pixels': x.reshape(len(x), -1)}
    for i in range(len(layers)):
        for kind in ('filters', 'pooled'):
            whole = np.concatenate([np.asarray(part[i][kind]) for part in parts])
            outputs[f'{kind} {i + 1}'] = whole.reshape(len(x), -1)
    return outputs


@functools.partial(jax.jit, static_argnums=2)
def _apply(layers, x, stages, min_std):
    return rica.apply(layers, x, stages, min_std=min_std)


def filters_on_grid(layer: rica.Layer, every: int = 4) -> Float[np.ndarray, 'd _n']:
    """The filters at every `every`-th position in both directions, in columns.

    Args:
      layer: The layer's weights.
      every: Distance in positions; the first one is at position 1.
    """
    W = np.asarray(layer.encoder)
    return W[1::every, 1::every].transpose(2, 0, 1, 3).reshape(W.shape[2], -1)


def unit_response(
    layers: Sequence[rica.Layer],
    stages: Sequence[rica.Stage],
    kind: str,
    feature_map: ScalarLike,
    *,
    min_std: ScalarLike = 0.01,
) -> Callable[[Float[Array, 'h w c']], Float[Array, '']]:
    """A unit of the last layer, at the central position, as a function of one image.

    Args:
      layers: Weights of the layers.
      stages: Sizes of the layers.
      kind: Sublayer: 'filters', as absolute value, 'pooled' or 'contrast'.
      feature_map: Number of the feature map; may be traced.
      min_std: As in `rica.apply`.
    """

    def response(x):
        outputs = rica.apply(layers, x[None], stages, min_std=min_std)[-1][kind][0]
        value = outputs[outputs.shape[0] // 2, outputs.shape[1] // 2, feature_map]
        return jnp.abs(value) if kind == 'filters' else value

    return response


def central_units(
    stages: Sequence[rica.Stage], *, min_std: ScalarLike = 0.01
) -> dict[str, tuple[Callable[[Any, Any, Any], Any], int]]:
    """The units at the central position: 'filters 1', 'pooled 1', 'pooled 2', ...

    Args:
      stages: Sizes of the layers.
      min_std: As in `rica.apply`.

    Returns:
      Sublayer -> ((layers, feature_map, image [h, w, c]) -> response, number of feature maps).
    """

    def units(i, kind):
        def response(layers, feature_map, x):
            own, sizes = layers[: i + 1], stages[: i + 1]
            return unit_response(own, sizes, kind, feature_map, min_std=min_std)(x)

        return response, stages[i].num_filters

    kinds = [(0, 'filters'), *((i, 'pooled') for i in range(len(stages)))]
    return {f'{kind} {i + 1}': units(i, kind) for i, kind in kinds}


def receptive_field(stages: Sequence[rica.Stage], position: Sequence[int]) -> tuple[slice, slice]:
    """The pixels on which a pool of the last layer depends: (rows, cols) slices.

    Contrast normalization of layers below widens the region of influence by half a window each; the slices cover
    filters and pools alone.

    Args:
      stages: Sizes of the layers.
      position: (row, col) of the pool.
    """
    low = [int(p) for p in position]
    high = list(low)
    for stage in reversed(stages):
        for axis in range(2):
            low[axis] = low[axis] * stage.pool_stride * stage.stride
            high[axis] = (high[axis] * stage.pool_stride + stage.pool_size - 1) * stage.stride
            high[axis] += stage.field_size - 1
    rows, cols = (slice(a, b + 1) for a, b in zip(low, high, strict=True))
    return rows, cols


def central_receptive_field(
    stages: Sequence[rica.Stage], image_shape: Sequence[int]
) -> tuple[slice, slice]:
    """The `receptive_field` of the last layer's central pool in images [h, w, c]."""
    h, w, _ = rica.shapes(image_shape, stages)[-1]
    return receptive_field(stages, (h // 2, w // 2))
