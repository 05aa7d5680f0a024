"""Layered sparse networks of local receptive fields: reconstruction ICA, pooled and normalized.

Le et al., ICML 2012 (the "cat neuron"). A layer is three sublayers on images [n, h, w, c]:

    filters    h = W x: separate `num_filters` filters at every position, each over a receptive
               field of field_size x field_size pixels of all channels. Positions do not share
               weights.
    pooled     sqrt(epsilon + sum h^2) over pool_size x pool_size neighboring positions of one
               feature map, fixed
    contrast   local contrast normalization over space and feature maps

A layer is learned without labels, on the outputs of the layers below: it learns to reconstruct its input with few
active pooling units,

    ||V h - x||^2 + sparsity_penalty sum_pools sqrt(epsilon + sum h^2),

where V maps back to the receptive fields, summed where they overlap; tied, V = W'. With whitened
input and one receptive field over all of it that is reconstruction ICA, in which the first term replaces the
constraint that W is orthonormal: E||W'Wx - x||^2 = ||W W' - I||^2 + d - k.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, ScalarLike

from lecture4.ops import norm, patches, pool
from lecture4.ops.prox import require_floating

# Axis of the filters in each array of the layers, along which model parallelism divides them.
MODEL_AXES = {'encoder$': 3, 'decoder$': 2}
EPSILON = (
    1e-4  # added inside the root of a pool, small relative to the square of a typical response
)


class Stage(NamedTuple):
    """The sizes of one layer, in units of its input.

    Attributes:
      field_size: Height and width of a receptive field.
      num_filters: Number of filters at every position.
      stride: Distance between neighboring positions.
      pool_size: Height and width of a pool, in positions.
      pool_stride: Distance between neighboring pools.
      contrast_window: Height and width of the window of the contrast normalization, odd.
    """

    field_size: int
    num_filters: int
    stride: int = 1
    pool_size: int = 3
    pool_stride: int = 1
    contrast_window: int = 5


class Layer(NamedTuple):
    """Learned weights of every position; d = field_size^2 * c. If tied, the decoder is None."""

    encoder: Float[Array, 'rows cols d num_filters']
    decoder: Float[Array, 'rows cols num_filters d'] | None


def shapes(image_shape: Sequence[int], stages: Sequence[Stage]) -> list[tuple[int, int, int]]:
    """The shape (h, w, c) of the input, then that of each layer's output.

    Raises:
      ValueError: A receptive field or a pool does not fit; the message names the layer.
    """
    h, w, c = image_shape
    result = [(h, w, c)]
    for i, stage in enumerate(stages):
        try:
            positions = patches.grid(result[-1], stage.field_size, stage.stride)
            pools = patches.grid(positions, stage.pool_size, stage.pool_stride)
        except ValueError as error:
            raise ValueError(
                f'layer {i + 1} does not fit its input {result[-1]}: {error}'
            ) from None
        result.append((pools[0], pools[1], stage.num_filters))
    return result


def init(
    key: PRNGKeyArray, x: Float[ArrayLike, 'n h w c'], stage: Stage, *, tied: bool = True
) -> Layer:
    """Initialize filters with patches of random examples in the receptive fields, scaled to reconstruct best.

    Random numbers would suffice for white input; for other input they retain, for a long time, directions in which
    the input hardly varies, and respond to those most. All filters share one scale.

    Args:
      key: A random key.
      x: The layer's input, n >= 1.
      stage: Sizes of the layer.
      tied: Whether the decoder is the encoder's transpose.

    Raises:
      TypeError: x is an integer array.
      ValueError: There are no filters; or as in `shapes`.
    """
    x = require_floating('x', x)
    if stage.num_filters < 1:
        raise ValueError(f'expected num_filters to be at least 1, got {stage.num_filters}')
    shapes(x.shape[1:], [stage])
    layer = _init(key, x, stage)
    return layer if tied else Layer(layer.encoder, layer.encoder.swapaxes(2, 3))


@functools.partial(jax.jit, static_argnums=2)
def _init(key, x, stage):
    fields = patches.extract(x, stage.field_size, stage.stride)
    rows, cols = fields.shape[1:3]
    example_key, noise_key = jax.random.split(key)
    example = jax.random.randint(example_key, (rows, cols, stage.num_filters), 0, len(x))
    W = fields[example, jnp.arange(rows)[:, None, None], jnp.arange(cols)[None, :, None]]
    # Add a little noise for empty receptive fields.
    scale = jnp.sqrt(jnp.mean(x * x)) + jnp.finfo(x.dtype).eps
    W = W + 0.01 * scale * jax.random.normal(noise_key, W.shape, x.dtype)
    W = (W / jnp.linalg.norm(W, axis=3, keepdims=True)).swapaxes(2, 3)
    layer = Layer(W, None)
    reconstruction = reconstruct(layer, filter_responses(layer, x, stage), x.shape[1:], stage)
    power = jnp.sum(reconstruction * reconstruction)
    W = W * jnp.sqrt(jnp.sum(reconstruction * x) / jnp.where(power > 0, power, 1))
    return Layer(W, None)


def filter_responses(
    layer: Layer, x: Float[ArrayLike, 'n h w c'], stage: Stage
) -> Float[Array, 'n rows cols num_filters']:
    """Outputs of the linear filters.

    Raises:
      TypeError: x is an integer array.
      ValueError: x has another size than the layer was initialized for.
    """
    x = require_floating('x', x)
    fields = patches.extract(x, stage.field_size, stage.stride)
    if fields.shape[1:] != layer.encoder.shape[:3]:
        raise ValueError(
            f'x {x.shape} has receptive fields {fields.shape[1:]}, the layer weights for '
            f'{layer.encoder.shape[:3]}; positions do not share weights: expected images of the '
            'size that the layer was initialized for'
        )
    return jnp.einsum('nrcd,rcdm->nrcm', fields, layer.encoder)


def reconstruct(
    layer: Layer,
    h: Float[Array, 'n rows cols num_filters'],
    image_shape: Sequence[int],
    stage: Stage,
) -> Float[Array, 'n h w c']:
    """Images of shape image_shape (h, w, c) from filter responses, overlaps summed."""
    decoder = layer.encoder.swapaxes(2, 3) if layer.decoder is None else layer.decoder
    return patches.reassemble(
        jnp.einsum('nrcm,rcmd->nrcd', h, decoder), image_shape, stage.field_size, stage.stride
    )


def l2_pool(
    h: Float[Array, 'n rows cols num_filters'], stage: Stage, epsilon: ScalarLike = EPSILON
) -> Float[Array, 'n pool_rows pool_cols num_filters']:
    """sqrt(epsilon + sum h^2) over neighboring positions of one feature map."""
    mean = pool.mean_pool(h * h, stage.pool_size, stage.pool_stride)
    return jnp.sqrt(jnp.asarray(epsilon, h.dtype) + stage.pool_size**2 * mean)


def loss(
    layer: Layer,
    x: Float[ArrayLike, 'n h w c'],
    stage: Stage,
    *,
    sparsity_penalty: ScalarLike = 0.1,
    epsilon: ScalarLike = EPSILON,
) -> tuple[Float[Array, ' n'], dict[str, Float[Array, '']]]:
    """Reconstruction error + sparsity_penalty * sum over pools, per example.

    Args:
      layer: The layer's weights.
      x: The layer's input.
      stage: Sizes of the layer.
      sparsity_penalty: Weight of the sum over pools, nonnegative, relative to the scale of x; may be traced.
      epsilon: Constant added inside the root of a pool.

    Returns:
      (loss, metrics): `reconstruction` and `sparsity` (without its weight), means over the batch.

    References:
      Le et al. 2012, section 3; Le, Karpenko, Ngiam & Ng 2011 for pools of one unit, tied.
    """
    x = require_floating('x', x)
    h = filter_responses(layer, x, stage)
    error = jnp.sum((reconstruct(layer, h, x.shape[1:], stage) - x) ** 2, axis=(1, 2, 3))
    sparsity = jnp.sum(l2_pool(h, stage, epsilon), axis=(1, 2, 3))
    value = error + jnp.asarray(sparsity_penalty, x.dtype) * sparsity
    return value, {'reconstruction': jnp.mean(error), 'sparsity': jnp.mean(sparsity)}


def apply(
    layers: Sequence[Layer],
    x: Float[ArrayLike, 'n h w c'],
    stages: Sequence[Stage],
    *,
    min_std: ScalarLike = 0.01,
    epsilon: ScalarLike = EPSILON,
) -> list[dict[str, Float[Array, 'n ...']]]:
    """Outputs of every sublayer for images, first to last.

    Args:
      layers: Weights of the layers.
      x: Images.
      stages: Sizes of the layers.
      min_std: Smallest divisor of the contrast normalization, which otherwise amplifies faint positions.
      epsilon: Constant added inside the root of a pool.

    Returns:
      One dict per layer of 'filters', 'pooled' and 'contrast'; the last is the next layer's input.
    """
    outputs = []
    for layer, stage in zip(layers, stages, strict=True):
        h = filter_responses(layer, x, stage)
        pooled = l2_pool(h, stage, epsilon)
        x = norm.local_contrast(pooled, stage.contrast_window, min_std=min_std)
        outputs.append({'filters': h, 'pooled': pooled, 'contrast': x})
    return outputs


def init_layers(
    key: PRNGKeyArray,
    x: Float[ArrayLike, 'n h w c'],
    stages: Sequence[Stage],
    *,
    tied: bool = True,
    min_std: ScalarLike = 0.01,
) -> tuple[Layer, ...]:
    """Initialize all layers, each by `init` on the outputs of those below.

    Args:
      key: A random key.
      x: Images, n >= 1.
      stages: Sizes of the layers.
      tied: As in `init`.
      min_std: As in `apply`.
    """
    layers = []
    for stage, own in zip(stages, jax.random.split(key, len(stages)), strict=True):
        layers.append(init(own, x, stage, tied=tied))
        x = apply(layers[-1:], x, (stage,), min_std=min_std)[0]['contrast']
    return tuple(layers)


def layer_loss(
    layers: Sequence[Layer],
    x: Float[ArrayLike, 'n h w c'],
    i: int,
    stages: Sequence[Stage],
    *,
    sparsity_penalty: ScalarLike = 0.1,
    min_std: ScalarLike = 0.01,
) -> tuple[Float[Array, ' n'], dict[str, Float[Array, '']]]:
    """The `loss` of layer i on the outputs of the layers below, to which no gradient flows."""
    if i:
        below = apply(jax.lax.stop_gradient(layers[:i]), x, stages[:i], min_std=min_std)
        x = below[-1]['contrast']
    return loss(layers[i], jax.lax.stop_gradient(x), stages[i], sparsity_penalty=sparsity_penalty)


def stage_losses(
    stages: Sequence[Stage],
    sparsity_penalties: Sequence[ScalarLike],
    *,
    min_std: ScalarLike = 0.01,
) -> list[Callable[..., tuple[Float[Array, ''], dict[str, Float[Array, '']]]]]:
    """The mean `layer_loss` of every layer, as `train.phases` takes them.

    Args:
      stages: Sizes of the layers.
      sparsity_penalties: One penalty weight for each layer.
      min_std: As in `apply`.

    Returns:
      A function (layers, x, key) -> (loss, metrics) for each layer; the key is not used.
    """

    def mean_loss(layers, x, key=None, *, i):
        del key
        values, metrics = layer_loss(
            layers, x, i, stages, sparsity_penalty=sparsity_penalties[i], min_std=min_std
        )
        return jnp.mean(values), metrics

    return [functools.partial(mean_loss, i=i) for i in range(len(stages))]


def evaluate_layers(
    losses: Sequence[Callable[..., Any]], layers: Sequence[Layer], x: Float[ArrayLike, 'n h w c']
) -> dict[str, Float[Array, '']]:
    """Losses of all layers on the same images: `loss/layer_1`, `reconstruction/layer_1`, ...

    Args:
      losses: From `stage_losses`.
      layers: Weights of the layers.
      x: Images.
    """

    def one(image):
        metrics = {}
        for i, loss in enumerate(losses):
            value, parts = loss(layers, image[None])
            metrics |= {f'{k}/layer_{i + 1}': v for k, v in {'loss': value, **parts}.items()}
        return metrics

    # A few images at a time: the responses of a large layer to all of them do not fit into memory.
    return jax.tree.map(jnp.mean, jax.lax.map(one, jnp.asarray(x), batch_size=8))
