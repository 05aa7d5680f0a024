"""The family behind one interface, as comparisons need it: codes of one width from pictures in [0, 1].

Every function makes a `Member` from a width and the setting that is its own.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lecture4.autoencoder import contractive, deep, denoising, linear, network, sparse, topk, vae
from lecture4.ops.losses import bernoulli_nll

Params = Any


class Member(NamedTuple):
    """A member of the family as pure functions.

    init         (key, d) -> params
    loss         (params, x [n, d], key) -> scalar, the mean over examples
    encode       (params, x [n, d]) -> codes [n, width]
    reconstruct  (params, codes) -> pixels [n, d]
    """

    init: Callable[[jax.Array, int], Params]
    loss: Callable[[Params, jax.Array, jax.Array], jax.Array]
    encode: Callable[[Params, jax.Array], jax.Array]
    reconstruct: Callable[[Params, jax.Array], jax.Array]


def principal(width: int) -> Member:
    """Two linear layers, squared error."""
    return Member(
        lambda key, d: linear.init(key, d, width),
        lambda params, x, key: jnp.mean(linear.loss(params, x)),
        lambda params, x: network.encode(params, x, network.identity),
        lambda params, code: network.decode(params, code, network.identity),
    )


def logistic(
    width: int,
    *,
    corrupt: Callable | None = None,
    contraction=None,
    tied: bool = False,
) -> Member:
    """One layer of logistic units, Bernoulli pixels: plain, denoising or contractive.

    corrupt      (key, x) -> x~, or None.
    contraction  weight of ||dh/dx||_F^2, or None; tie the weights with it.
    """
    encode = functools.partial(deep.encode, code=jax.nn.sigmoid)

    def loss(params, x, key):
        noisy = x if corrupt is None else corrupt(key, x)
        value = jnp.mean(bernoulli_nll(deep.decode(params, encode(params, noisy)), x))
        if contraction is None:
            return value
        penalty = contractive.layer_penalty(params.encoder[0], x, jax.nn.sigmoid)
        return value + jnp.asarray(contraction, x.dtype) * jnp.mean(penalty)

    return Member(
        lambda key, d: network.init_autoencoder(key, (d, width), tied=tied, scale='sigmoid'),
        loss,
        encode,
        lambda params, code: jax.nn.sigmoid(deep.decode(params, code)),
    )


def l1(width: int, weight) -> Member:
    """ReLU codes with the L1 penalty of that weight, a linear decoder of unit rows."""
    return Member(
        lambda key, d: topk.init_params(key, jnp.zeros((1, d)), width),
        lambda params, x, key: sparse.l1_loss(params, x, weight)[0],
        sparse.l1_encode,
        lambda params, code: topk.decode(sparse.normalised(params), code),
    )


def k_largest(width: int, k: int) -> Member:
    """The k largest of ReLU codes, a linear decoder."""
    return Member(
        lambda key, d: topk.init_params(key, jnp.zeros((1, d)), width),
        lambda params, x, key: topk.loss(params, x, k)[0],
        lambda params, x: topk.encode(params, x, k),
        topk.decode,
    )


def deep_relu(width: int) -> Member:
    """A hidden layer of 4 * width ReLU units on either side of a linear code, Bernoulli pixels."""
    relu = jax.nn.relu
    return Member(
        lambda key, d: network.init_autoencoder(key, (d, 4 * width, width), scale='he'),
        lambda params, x, key: jnp.mean(deep.loss(params, x, activation=relu)),
        lambda params, x: deep.encode(params, x, relu),
        lambda params, code: jax.nn.sigmoid(deep.decode(params, code, relu)),
    )


def gaussian_code(width: int) -> Member:
    """The same networks with a Gaussian code, the evidence lower bound; codes are its means."""

    def model(d):
        return vae.mlp(d, (4 * width,), width)

    def n_pixels(params):
        return params.decoder[-1].bias.shape[0]

    return Member(
        lambda key, d: model(d).init(key),
        lambda params, x, key: vae.loss(vae.bound(model(x.shape[1]), params, x, key)),
        lambda params, x: model(x.shape[1]).encode(params, x)[:, :width],
        lambda params, code: jax.nn.sigmoid(model(n_pixels(params)).decode(params, code)),
    )


def masked(width: int, share) -> Member:
    """The logistic layer, told to fill in the share of pixels that masking sets to 0."""
    return logistic(width, corrupt=functools.partial(denoising.masking, share=share))
