"""The lecture's small network: stages of convolution, detector and pooling, then dense to classes.

Gradients come twice: from `jax.grad` of `loss`, and from `gradients_by_hand`, the delta rules of
`backpropagation` in the order in which the lecture goes through them.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from lecture4.ops import conv, pool, receptive_field
from lecture4.vision import manual_backprop as back


class Network(NamedTuple):
    """The network's shape.

    channels  filters of each stage, one stage a number
    kernel    side of the filters; `padding` zeros round their input
    detector  the activation function between convolution and pooling
    pooling   'none' leaves the maps as they are, 'subsample' keeps one value a window
    window    side and stride of the pooling; a ragged edge is dropped, or kept where `edge` says so
              ('subsample' keeps it)
    classes   how many
    output    'softmax' with its cross-entropy, or 'sigmoid' with the squared error
    """

    channels: tuple[int, ...] = (16,)
    kernel: int = 5
    padding: int = 0
    detector: Literal['relu', 'sigmoid'] = 'relu'
    pooling: Literal['max', 'mean', 'subsample', 'none'] = 'max'
    window: int = 2
    edge: receptive_field.Edge = 'floor'
    classes: int = 10
    output: Literal['softmax', 'sigmoid'] = 'softmax'


Parameters = dict[str, dict[str, jax.Array]]


def layout(network: Network) -> receptive_field.Stack:
    """The network as a stack of layers; its errors name the stage that does not fit."""
    layers = []
    for i, units in enumerate(network.channels, 1):
        layers.append(
            receptive_field.Layer(f'conv{i}', 'conv', units, network.kernel, 1, network.padding)
        )
        if network.pooling != 'none':
            window = 1 if network.pooling == 'subsample' else network.window
            layers.append(
                receptive_field.Layer(
                    f'pool{i}', 'pool', None, window, network.window, 0, network.edge
                )
            )
    return (*layers, receptive_field.Layer('dense', 'dense', network.classes))


def init(key, network: Network, shape, dtype=jnp.float32) -> Parameters:
    """Normal weights of variance 2 / (inputs of a unit), biases 0.

    Shapes  shape (h, w, c) of a picture. Returns {layer: {'kernel', 'bias'}}; kernels
            [k, k, c, o] and, of 'dense', [d, classes].
    Errors  ValueError where a layer does not fit, naming it and the sizes.
    """
    params = {}
    for row in receptive_field.summarize(layout(network), shape):
        if row.kind == 'pool':
            continue
        units = row.output[-1]
        sides: tuple[int, ...] = (network.kernel, network.kernel, row.input[-1])
        if row.kind == 'dense':
            sides = (row.macs // units,)
        inputs = row.parameters // units - 1
        scale = jnp.asarray((2 / inputs) ** 0.5, dtype)
        layer_key = jax.random.fold_in(key, len(params))
        kernel = jax.random.normal(layer_key, (*sides, units), dtype) * scale
        params[row.name] = {'kernel': kernel, 'bias': jnp.zeros(units, dtype)}
    return params


def apply(params: Parameters, x, network: Network) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The output units' z [n, classes], and the activations of all layers by name.

    Shapes  x [n, h, w, c] float. Activations 'conv1' (before the detector), 'detector1', 'pool1',
            ..., 'dense'.
    """
    activations = {}
    for i in range(1, len(network.channels) + 1):
        layer = params[f'conv{i}']
        z = conv.cross_correlate(x, layer['kernel'], 1, network.padding) + _row(layer['bias'], 4)
        a = jax.nn.relu(z) if network.detector == 'relu' else jax.nn.sigmoid(z)
        x = _pool(a, network)
        activations |= {f'conv{i}': z, f'detector{i}': a, f'pool{i}': x}
    layer = params['dense']
    z = x.reshape(len(x), -1) @ layer['kernel'] + _row(layer['bias'], 2)
    return z, activations | {'dense': z}


def _row(bias, rank):
    return bias.reshape((1,) * (rank - 1) + (-1,))


def _pool(a, network: Network):
    match network.pooling:
        case 'max':
            return pool.max_pool(a, network.window, edge=network.edge)
        case 'mean':
            return pool.mean_pool(a, network.window, edge=network.edge)
        case 'subsample':
            return pool.subsample(a, network.window)
    return a


def loss(params: Parameters, x, labels, network: Network):
    """The mean loss of a batch: cross-entropy, or half the squared error of sigmoid units."""
    z, _ = apply(params, x, network)
    if network.output == 'softmax':
        return back.softmax_loss(z, labels)
    return back.squared_loss(jax.nn.sigmoid(z), labels)


def gradients_by_hand(params: Parameters, x, labels, network: Network) -> tuple[Any, Parameters]:
    """(loss, its gradient by every parameter), by the delta rules alone.

    What `jax.value_and_grad(loss)` gives.
    """
    z, activations = apply(params, x, network)
    if network.output == 'softmax':
        value, delta = back.softmax_loss(z, labels), back.softmax_delta(z, labels)
    else:
        a = jax.nn.sigmoid(z)
        value = back.squared_loss(a, labels)
        delta = back.squared_delta(a, labels) * back.sigmoid_slope(a)
    gradients = {}
    n_stages = len(network.channels)
    entered = activations[f'pool{n_stages}']
    kernel, bias = back.dense_gradients(entered.reshape(len(x), -1), delta)
    gradients['dense'] = {'kernel': kernel, 'bias': bias}
    delta = back.dense_delta(delta, params['dense']['kernel']).reshape(entered.shape)
    for i in reversed(range(1, n_stages + 1)):
        a = activations[f'detector{i}']
        delta = _upsample(delta, a, network)
        slope = back.relu_slope(activations[f'conv{i}'])
        delta = delta * (slope if network.detector == 'relu' else back.sigmoid_slope(a))
        entered = activations[f'pool{i - 1}'] if i > 1 else x
        window = (network.kernel, network.kernel)
        kernel, bias = back.conv_gradients(entered, delta, window, 1, network.padding)
        gradients[f'conv{i}'] = {'kernel': kernel, 'bias': bias}
        if i > 1:
            kernel = params[f'conv{i}']['kernel']
            delta = back.conv_delta(delta, kernel, entered.shape[1:-1], 1, network.padding)
    return value, gradients


def _upsample(delta, a, network: Network):
    match network.pooling:
        case 'max':
            _, switches = pool.max_pool_with_switches(a, network.window, edge=network.edge)
            return back.upsample_max(delta, switches, a.shape)
        case 'mean':
            return back.upsample_mean(delta, a.shape, network.window, edge=network.edge)
        case 'subsample':
            return back.upsample_first(delta, a.shape, network.window)
    return delta
