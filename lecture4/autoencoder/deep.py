"""Deep autoencoders, trained at once or stacked: layer by layer first, then together.

Layer i of a stack is an autoencoder of its own, encoder layer i with the decoder layer at its
mirror. Its data are the codes of the layers below, clean; corrupted anew it is a stacked denoising
autoencoder. Noise is off when all layers are trained together, and in the classifier that shares
the encoder.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lecture4.autoencoder import network
from lecture4.autoencoder.network import Autoencoder, Dense, identity
from lecture4.ops.losses import bernoulli_nll, categorical_nll, squared_error


def encode(
    params: Autoencoder, x, activation: Callable = jax.nn.sigmoid, code: Callable = identity
):
    """Codes [n, k]; `code` is the activation of the last encoder layer (linear in the paper)."""
    return network.encode(params, x, activation, code)


def decode(params: Autoencoder, h, activation: Callable = jax.nn.sigmoid):
    """The last layer's output before any activation [n, d]: logits, or means."""
    return network.decode(params, h, activation)


def loss(
    params: Autoencoder,
    x,
    *,
    activation: Callable = jax.nn.sigmoid,
    code: Callable = identity,
    nll: Callable = bernoulli_nll,
):
    """-log p(x | g(f(x))) per example, [n]; nll (output, x) -> [n].

    Source  Hinton & Salakhutdinov 2006: logistic units, a linear code, the cross-entropy.
    """
    return nll(decode(params, encode(params, x, activation, code), activation), x)


def layer(params: Autoencoder, i: int) -> Autoencoder:
    """Layer i as an autoencoder of its own: encoder layer i and the decoder layer at its mirror.

    Errors  ValueError where the decoder is not as deep as the encoder, or there is no layer i.
    """
    depth = len(params.encoder)
    if len(params.decoder) != depth or not 0 <= i < depth:
        raise ValueError(
            f'there is no layer {i} with a mirror in {depth} encoder and {len(params.decoder)} '
            'decoder layers'
        )
    return Autoencoder((params.encoder[i],), (params.decoder[depth - 1 - i],))  # pyright: ignore


def layer_loss(
    params: Autoencoder,
    x,
    key,
    i: int,
    *,
    activation: Callable = jax.nn.sigmoid,
    code: Callable = identity,
    nll: Callable = bernoulli_nll,
    corrupt: Callable | None = None,
):
    """The loss of layer i on the clean codes of the layers below, per example, [n].

    The first layer has the data's nll; a higher one reconstructs activations, by the squared error.
    No gradient reaches the layers below. corrupt (key, codes) -> codes is drawn anew every time.
    Source  Bengio et al. 2007; with corruption, Vincent et al. 2010.
    """
    hidden = params.encoder[:i]
    below = network.apply(hidden, x, activation, activation) if i else x
    below = jax.lax.stop_gradient(below)
    noisy = below if corrupt is None else corrupt(key, below)
    own = layer(params, i)
    last = i == len(params.encoder) - 1
    h = network.encode(own, noisy, identity, code if last else activation)
    if i == 0:
        return nll(network.decode(own, h, identity), below)
    return squared_error(below, network.decode(own, h, identity, activation))


def init_classifier(params: Autoencoder, n_classes: int) -> tuple[Dense, ...]:
    """The encoder's layers and an output layer of zeros: fine-tuning starts from the codes.

    Source  Vincent et al. 2008, section 2.4: a logistic layer on top, all layers trained.
    """
    weight = params.encoder[-1].weight
    zeros = jnp.zeros((weight.shape[1], n_classes), weight.dtype)
    return (*params.encoder, Dense(zeros, jnp.zeros(n_classes, weight.dtype)))


def classify(layers, x, activation: Callable = jax.nn.sigmoid):
    """Class logits [n, c] of the fine-tuned network."""
    return network.apply(layers, x, activation)


def classifier_loss(layers, x, labels, activation: Callable = jax.nn.sigmoid):
    """-log p(label | x) per example, [n]."""
    return categorical_nll(classify(layers, x, activation), labels)


def fine_tune(
    layers,
    train,
    valid,
    key,
    *,
    n_epochs: int,
    batch_size: int,
    optimizer: optax.GradientTransformation,
    activation: Callable = jax.nn.sigmoid,
):
    """The classifier as it was after the epoch that errs least on `valid`: (layers, error there).

    train, valid  (x [n, d], labels [n]); the last n % batch_size of every permutation are left out.
    Errors  ValueError where a batch is larger than the training set.
    """
    x, labels = (jnp.asarray(part) for part in train)
    n_steps = len(x) // batch_size
    if not n_steps:
        raise ValueError(f'a batch of {batch_size} from {len(x)} examples; take at most {len(x)}')

    def step(carry, rows):
        layers, opt_state = carry
        value = lambda layers: classifier_loss(layers, x[rows], labels[rows], activation).mean()  # noqa: E731
        with jax.numpy_dtype_promotion('standard'):  # optax's adam mixes integers and floats
            updates, opt_state = optimizer.update(jax.grad(value)(layers), opt_state, layers)
        return (optax.apply_updates(layers, updates), opt_state), None

    def epoch(carry, key):
        layers, opt_state, best, least = carry
        rows = jax.random.permutation(key, len(x))[: n_steps * batch_size]
        (layers, opt_state), _ = jax.lax.scan(
            step, (layers, opt_state), rows.reshape(n_steps, batch_size)
        )
        wrong = error(layers, valid[0], valid[1], activation)
        better = wrong < least
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), layers, best)
        return (layers, opt_state, best, jnp.minimum(wrong, least)), None

    start = (layers, optimizer.init(layers), layers, jnp.asarray(jnp.inf, x.dtype))
    (_, _, best, least), _ = jax.lax.scan(epoch, start, jax.random.split(key, n_epochs))
    return best, least


def error(layers, x, labels, activation: Callable = jax.nn.sigmoid):
    """Share of the examples whose most likely class is not their label, a scalar."""
    chosen = jnp.argmax(classify(layers, x, activation), axis=1).astype(labels.dtype)
    return jnp.mean(chosen != labels, dtype=layers[-1].bias.dtype)


class Phased(NamedTuple):
    """State of training by one loss after another."""

    params: Any
    opt_state: optax.OptState
    n_done: jax.Array  # steps, in all phases


def phases(
    losses: Sequence[Callable],
    n_alone: int,
    direction: optax.GradientTransformation,
    rate: Callable,
):
    """Training by each of the losses for n_alone steps, and by the last one from then on.

    losses     (params, batch, key) -> scalar.
    direction  of the step, without its length: optax.scale_by_adam(), optax.identity(), ... Its
               state is new in every phase: old moments would go on moving layers that now have no
               gradient.
    rate       (count of steps in the last phase, below 0 before) -> length of the step.
    Returns    (init, step): params -> Phased; (Phased, batch, key, *, axis_name=None) -> (Phased,
               {'loss'}).
    Errors     ValueError for phases of less than a step, where there are several.
    """
    n_before = n_alone * (len(losses) - 1)
    if len(losses) > 1 and n_alone < 1:
        raise ValueError(f'phases of {n_alone} steps; every loss but the last needs 1 or more')

    def init(params):
        return Phased(params, direction.init(params), jnp.zeros((), jnp.int32))

    def step(state, batch, key, *, axis_name=None):
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        params, opt_state, count = state
        gradients = [jax.value_and_grad(loss) for loss in losses]
        if len(losses) == 1:
            loss, grads = gradients[0](params, batch, key)
        else:
            now = jnp.minimum(count // n_alone, len(losses) - 1)
            loss, grads = jax.lax.switch(now, gradients, params, batch, key)
            first = (count % n_alone == 0) & (count <= n_before)
            fresh = direction.init(params)
            opt_state = jax.tree.map(lambda new, old: jnp.where(first, new, old), fresh, opt_state)
        if axis_name is not None:
            grads, loss = jax.lax.pmean((grads, loss), axis_name)
        with jax.numpy_dtype_promotion('standard'):
            way, opt_state = direction.update(grads, opt_state, params)
            length = rate(count - n_before)
            params = jax.tree.map(lambda p, d: p - length * d, params, way)
        return Phased(params, opt_state, count + 1), {'loss': loss}

    return init, step
