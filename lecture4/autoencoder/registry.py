"""The autoencoder variants behind one interface, as comparisons need it.

Every function makes a `Variant` from a latent dimension and the variant's own settings; data are
pixels in [0, 1].
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from lecture4.autoencoder import contractive, deep, denoising, linear, network, sparse, topk, vae
from lecture4.ops.losses import bernoulli_nll

Params = Any


class Variant(NamedTuple):
    """An autoencoder as pure functions.

    Attributes:
      init: (key, d) -> params.
      loss: (params, x [n, d], key) -> scalar, the mean over examples.
      encode: (params, x [n, d]) -> codes [n, latent_dim].
      decode: (params, codes [n, latent_dim]) -> pixels [n, d].
    """

    init: Callable[[PRNGKeyArray, int], Params]
    loss: Callable[[Params, Float[Array, 'n d'], PRNGKeyArray], Float[Array, '']]
    encode: Callable[[Params, Float[Array, 'n d']], Float[Array, 'n latent_dim']]
    decode: Callable[[Params, Float[Array, 'n latent_dim']], Float[Array, 'n d']]


def linear_autoencoder(latent_dim: int) -> Variant:
    """Two linear layers, squared error."""
    return Variant(
        lambda key, d: linear.init(key, d, latent_dim),
        lambda params, x, key: jnp.mean(linear.loss(params, x)),
        lambda params, x: network.encode(params, x, network.identity),
        lambda params, code: network.decode(params, code, network.identity),
    )


def logistic(
    latent_dim: int,
    *,
    corrupt: Callable | None = None,
    contraction_penalty: ScalarLike | None = None,
    tied: bool = False,
) -> Variant:
    """One layer of logistic units, Bernoulli pixels: plain, denoising or contractive.

    Args:
      latent_dim: Number of units.
      corrupt: (key, x) -> x~, the corruption of a denoising autoencoder.
      contraction_penalty: Weight of ||dh/dx||_F^2; tie the weights with it.
      tied: Whether the decoder's weights are the encoder's, transposed.
    """
    encode = functools.partial(deep.encode, latent_activation=jax.nn.sigmoid)

    def loss(params, x, key):
        noisy = x if corrupt is None else corrupt(key, x)
        value = jnp.mean(bernoulli_nll(deep.decode(params, encode(params, noisy)), x))
        if contraction_penalty is None:
            return value
        penalty = contractive.layer_penalty(params.encoder[0], x, jax.nn.sigmoid)
        return value + jnp.asarray(contraction_penalty, x.dtype) * jnp.mean(penalty)

    return Variant(
        lambda key, d: network.init_autoencoder(key, (d, latent_dim), tied=tied, scale='sigmoid'),
        loss,
        encode,
        lambda params, code: jax.nn.sigmoid(deep.decode(params, code)),
    )


def masking_denoiser(latent_dim: int, mask_rate: ScalarLike) -> Variant:
    """The logistic layer, trained to reconstruct pixels that are masked at this rate."""
    corrupt = functools.partial(denoising.masking, mask_rate=mask_rate)
    return logistic(latent_dim, corrupt=corrupt)


def l1_sparse(latent_dim: int, l1_penalty: ScalarLike) -> Variant:
    """ReLU codes with an L1 penalty, a linear decoder of unit rows."""
    return Variant(
        lambda key, d: topk.init_params(key, jnp.zeros((1, d)), latent_dim),
        lambda params, x, key: sparse.l1_loss(params, x, l1_penalty)[0],
        sparse.l1_encode,
        lambda params, code: topk.decode(sparse.normalize_decoder(params), code),
    )


def top_k_sparse(latent_dim: int, k: int) -> Variant:
    """The k largest of ReLU codes, a linear decoder."""
    return Variant(
        lambda key, d: topk.init_params(key, jnp.zeros((1, d)), latent_dim),
        lambda params, x, key: topk.loss(params, x, k)[0],
        lambda params, x: topk.encode(params, x, k),
        topk.decode,
    )


def deep_relu(latent_dim: int) -> Variant:
    """4 * latent_dim hidden ReLU units on either side of a linear code, Bernoulli pixels."""
    relu = jax.nn.relu
    return Variant(
        lambda key, d: network.init_autoencoder(key, (d, 4 * latent_dim, latent_dim), scale='he'),
        lambda params, x, key: jnp.mean(deep.loss(params, x, activation=relu)),
        lambda params, x: deep.encode(params, x, relu),
        lambda params, code: jax.nn.sigmoid(deep.decode(params, code, relu)),
    )


def gaussian_vae(latent_dim: int) -> Variant:
    """The networks of `deep_relu` as a variational autoencoder; codes are the latent means."""

    def model(d):
        return vae.mlp(d, (4 * latent_dim,), latent_dim)

    def n_pixels(params):
        return params.decoder[-1].bias.shape[0]

    return Variant(
        lambda key, d: model(d).init(key),
        lambda params, x, key: vae.loss(vae.bound(model(x.shape[1]), params, x, key)),
        lambda params, x: model(x.shape[1]).encode(params, x)[:, :latent_dim],
        lambda params, code: jax.nn.sigmoid(model(n_pixels(params)).decode(params, code)),
    )
