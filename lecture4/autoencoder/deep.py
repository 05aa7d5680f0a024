"""Deep autoencoders, trained at once or stacked: layer by layer first, then together.

Layer i of a stack is an autoencoder of its own, encoder layer i with the decoder layer at its
mirror. Its data are the codes of the layers below, clean; corrupted anew it is a stacked denoising
autoencoder. Noise is off when all layers are trained together, and in the classifier that shares
the encoder.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

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


def phase(step, lengths):
    """Which of the phases of those lengths a step is in; the last one is endless.

    step a (traced) count; lengths (s0, s1, ...): phase i is s_i steps long. Returns int32.
    """
    ends = jnp.cumsum(jnp.asarray(lengths, jnp.int32))
    return jnp.sum(step >= ends, dtype=jnp.int32)
