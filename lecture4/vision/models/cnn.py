"""The lecture's convolutional network: stages of convolution, detector and pooling, then a dense layer.

Gradients are computed by `jax.grad` of `loss` or by `manual_value_and_grad`, the delta rules of
`manual_backprop` in the order of the lecture.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from lecture4.ops import conv, conv_cpu, pool, receptive_field
from lecture4.ops.varying import vary_together
from lecture4.vision import manual_backprop

Activation = Literal['relu', 'sigmoid', 'tanh']
ACTIVATIONS = {'relu': jax.nn.relu, 'sigmoid': jax.nn.sigmoid, 'tanh': jnp.tanh}


class CNN(NamedTuple):
    """Architecture of the network.

    Attributes:
      features: Number of filters of each stage.
      kernel_size: Height and width of the filters.
      padding: Number of zeros around the input of every convolution.
      activation: Activation between convolution and pooling: the lecture's detector stage.
      pooling: 'none' leaves the feature maps unchanged, 'subsample' keeps one value per window.
      window: Size and stride of the pooling windows.
      edge: Treatment of incomplete windows at the end: dropped ('floor') or kept ('subsample' always keeps them).
      n_classes: Number of classes.
      output: 'softmax' with its cross-entropy, or 'sigmoid' with the squared error.
    """

    features: tuple[int, ...] = (16,)
    kernel_size: int = 5
    padding: int = 0
    activation: Activation = 'relu'
    pooling: Literal['max', 'mean', 'subsample', 'none'] = 'max'
    window: int = 2
    edge: receptive_field.Edge = 'floor'
    n_classes: int = 10
    output: Literal['softmax', 'sigmoid'] = 'softmax'


Params = dict[str, dict[str, Float[Array, '...']]]


def layer_stack(network: CNN) -> receptive_field.Stack:
    """The network as a stack of layers for `receptive_field.summarize`, whose errors name the stage."""
    layers = []
    for i, features in enumerate(network.features, 1):
        layers.append(
            receptive_field.Layer(
                f'conv{i}', 'conv', features, network.kernel_size, 1, network.padding
            )
        )
        if network.pooling != 'none':
            window = 1 if network.pooling == 'subsample' else network.window
            layers.append(
                receptive_field.Layer(
                    f'pool{i}', 'pool', None, window, network.window, 0, network.edge
                )
            )
    return (*layers, receptive_field.Layer('dense', 'dense', network.n_classes))


def init(
    key: jax.Array,
    network: CNN,
    image_shape: tuple[int, ...],
    dtype: DTypeLike = jnp.float32,
    gain: float = 2.0,
) -> Params:
    """Initialize kernels from a normal distribution with variance gain / fan-in, and biases with 0.

    Args:
      key: PRNG key.
      network: The architecture.
      image_shape: (h, w, c).
      dtype: Dtype of the parameters.
      gain: Variance of a kernel times its fan-in: 2 keeps the scale of activations of rectifiers, 1 of tanh units
        (Glorot & Bengio 2010; He et al. 2015).

    Returns:
      {layer: {'kernel', 'bias'}}; kernels [k, k, c, o] and, of 'dense', [d, n_classes].

    Raises:
      ValueError: A layer does not fit; the message has its name and the sizes.
    """
    params = {}
    for row in receptive_field.summarize(layer_stack(network), image_shape):
        if row.kind == 'pool':
            continue
        features = row.output[-1]
        if row.kind == 'dense':
            shape: tuple[int, ...] = (row.macs // features,)
        else:
            shape = (network.kernel_size, network.kernel_size, row.input[-1])
        fan_in = row.parameters // features - 1
        scale = jnp.asarray((gain / fan_in) ** 0.5, dtype)
        layer_key = jax.random.fold_in(key, len(params))
        kernel = jax.random.normal(layer_key, (*shape, features), dtype) * scale
        params[row.name] = {'kernel': kernel, 'bias': jnp.zeros(features, dtype)}
    return params


def apply(
    params: Params, x: Float[Array | np.ndarray, 'n h w c'], network: CNN
) -> tuple[Float[Array, 'n n_classes'], dict[str, Float[Array, '...']]]:
    """The output layer's z before softmax or sigmoid, and the outputs of all layers by name.

    Args:
      params: As `init` returns them.
      x: Images.
      network: The architecture.

    Returns:
      z, and {'conv1' (before the activation function), 'activation1', 'pool1', ..., 'dense'}.
    """
    convolve = functools.partial(
        conv.cross_correlate, conv_general_dilated=conv_cpu.conv_general_dilated
    )
    x, layers = jnp.asarray(x), {}
    for i in range(1, len(network.features) + 1):
        layer = params[f'conv{i}']
        bias = layer['bias'][None, None, None, :]
        z = convolve(x, layer['kernel'], 1, network.padding) + bias
        a = ACTIVATIONS[network.activation](z)
        x = _pool(a, network)
        layers |= {f'conv{i}': z, f'activation{i}': a, f'pool{i}': x}
    layer = params['dense']
    z = x.reshape(len(x), -1) @ layer['kernel'] + layer['bias'][None, :]
    return z, layers | {'dense': z}


def feature_maps(
    params: Params, x: Float[Array | np.ndarray, 'n h w c'], network: CNN
) -> dict[str, Float[Array, '_ _ _ _']]:
    """The feature maps among the layers' outputs in `apply`."""
    _, layers = apply(params, x, network)
    return {name: values for name, values in layers.items() if values.ndim == 4}


def _pool(a, network: CNN):
    match network.pooling:
        case 'max':
            return pool.max_pool(a, network.window, edge=network.edge)
        case 'mean':
            return pool.mean_pool(a, network.window, edge=network.edge)
        case 'subsample':
            return pool.subsample(a, network.window)
    return a


def loss(
    params: Params,
    x: Float[Array | np.ndarray, 'n h w c'],
    labels: Int[Array | np.ndarray, 'n'],
    network: CNN,
) -> Float[Array, '']:
    """Mean loss of a batch: cross-entropy, or half the squared error of sigmoid units."""
    z, _ = apply(params, x, network)
    if network.output == 'softmax':
        return manual_backprop.softmax_loss(z, labels)
    return manual_backprop.squared_loss(jax.nn.sigmoid(z), labels)


def manual_value_and_grad(
    params: Params,
    x: Float[Array | np.ndarray, 'n h w c'],
    labels: Int[Array | np.ndarray, 'n'],
    network: CNN,
) -> tuple[Float[Array, ''], Params]:
    """The loss and its gradient with respect to all parameters, by the delta rules alone.

    Equal to `jax.value_and_grad(loss)` up to rounding.
    """
    z, layers = apply(params, x, network)
    if network.output == 'softmax':
        value = manual_backprop.softmax_loss(z, labels)
        delta = manual_backprop.softmax_delta(z, labels)
    else:
        a = jax.nn.sigmoid(z)
        value = manual_backprop.squared_loss(a, labels)
        derivative = manual_backprop.sigmoid_derivative(a)
        delta = manual_backprop.squared_delta(a, labels) * derivative
    grads = {}
    n_stages = len(network.features)
    a = layers[f'pool{n_stages}']
    kernel, bias = manual_backprop.dense_gradients(a.reshape(len(x), -1), delta)
    grads['dense'] = {'kernel': kernel, 'bias': bias}
    delta = manual_backprop.dense_delta(delta, params['dense']['kernel']).reshape(a.shape)
    for i in reversed(range(1, n_stages + 1)):
        z, a = layers[f'conv{i}'], layers[f'activation{i}']
        delta = _upsample(delta, a, network)
        if network.activation == 'relu':
            delta = delta * manual_backprop.relu_derivative(z)
        elif network.activation == 'tanh':
            delta = delta * manual_backprop.tanh_derivative(a)
        else:
            delta = delta * manual_backprop.sigmoid_derivative(a)
        a = layers[f'pool{i - 1}'] if i > 1 else x
        kernel_size = (network.kernel_size, network.kernel_size)
        kernel, bias = manual_backprop.conv_gradients(a, delta, kernel_size, 1, network.padding)
        grads[f'conv{i}'] = {'kernel': kernel, 'bias': bias}
        if i > 1:
            kernel = params[f'conv{i}']['kernel']
            delta = manual_backprop.conv_delta(delta, kernel, a.shape[1:-1], 1, network.padding)
    return value, grads


def accuracy(
    params: Params,
    x: Float[Array | np.ndarray, 'n h w c'],
    labels: Int[Array | np.ndarray, 'n'],
    network: CNN,
) -> Float[Array, '']:
    """Fraction of images whose class has the largest output."""
    z, _ = apply(params, x, network)
    return jnp.mean(jnp.argmax(z, 1) == labels, dtype=z.dtype)


def check_fit(networks: Mapping[str, CNN], image_shape: tuple[int, ...]) -> None:
    """Raise a ValueError, with the names of network and layer, if a network does not fit the images.

    Args:
      networks: Networks by name.
      image_shape: (h, w, c).
    """
    for name, network in networks.items():
        try:
            receptive_field.summarize(layer_stack(network), image_shape)
        except ValueError as error:
            raise ValueError(f'network {name}: {error}') from None


def classify(
    params: Params, x: Float[Array | np.ndarray, 'n h w c'], network: CNN
) -> tuple[Int[Array, 'n'], Float[Array, 'n _ _ _']]:
    """Predicted classes, and the feature maps after the last pooling."""
    z, layers = apply(params, x, network)
    return jnp.argmax(z, axis=1), layers[f'pool{len(network.features)}']


def loss_fn(network: CNN, manual: bool = False) -> Callable[[Params, Any, Any], Float[Array, '']]:
    """`loss` of a network, (params, x, labels) -> value; with `manual`, its gradient is by the delta rules."""

    def automatic(params, x, labels):
        return loss(params, x, labels, network)

    def forward(params, x, labels):
        return manual_value_and_grad(params, x, labels, network)

    def backward(grads, cotangent):
        return jax.tree.map(lambda leaf: cotangent * leaf, grads), None, None

    by_delta_rules = jax.custom_vjp(automatic)
    by_delta_rules.defvjp(forward, backward)

    def manual_loss(params, x, labels):
        return by_delta_rules(*vary_together(params, x, labels))

    return manual_loss if manual else automatic


def _upsample(delta, a, network: CNN):
    match network.pooling:
        case 'max':
            _, switches = pool.max_pool_with_switches(a, network.window, edge=network.edge)
            return manual_backprop.upsample_max(delta, switches, a.shape)
        case 'mean':
            return manual_backprop.upsample_mean(delta, a.shape, network.window, edge=network.edge)
        case 'subsample':
            return manual_backprop.upsample_subsample(delta, a.shape, network.window)
    return delta
