"""The autoencoder variants with one interface, for comparisons.

Every function makes a `Variant` from a latent dimension and the settings of the variant; data are pixels in [0, 1].
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
NAMES = ('linear', 'plain', 'l1', 'topk', 'denoising', 'contractive', 'deep', 'variational')


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
    weight_decay: ScalarLike | None = None,
    contraction_penalty: ScalarLike | None = None,
    curvature_penalty: ScalarLike | None = None,
    curvature_std: ScalarLike = 0.3,
    tied: bool = False,
) -> Variant:
    """One layer of logistic units, Bernoulli pixels: plain, denoising, contractive (CAE, CAE+H).

    Args:
      latent_dim: Number of units.
      corrupt: (key, x) -> x~, the corruption of a denoising autoencoder.
      weight_decay: Weight of the squared norm of the encoder's weights.
      contraction_penalty: Weight of ||dh/dx||_F^2; use tied weights with it.
      curvature_penalty: Weight of E ||J(x) - J(x + e)||_F^2, two samples of e per example.
      curvature_std: Standard deviation of e.
      tied: Whether the decoder's weights are the encoder's, transposed.
    """
    encode = functools.partial(deep.encode, latent_activation=jax.nn.sigmoid)

    def loss(params, x, key):
        noisy = x if corrupt is None else corrupt(key, x)
        value = jnp.mean(bernoulli_nll(deep.decode(params, encode(params, noisy)), x))
        layer = params.encoder[0]
        if weight_decay is not None:
            value = value + jnp.asarray(weight_decay, x.dtype) * jnp.sum(layer.weight**2)
        if contraction_penalty is not None:
            penalty = contractive.layer_penalty(layer, x, jax.nn.sigmoid)
            value = value + jnp.asarray(contraction_penalty, x.dtype) * jnp.mean(penalty)
        if curvature_penalty is not None:
            curvature = contractive.layer_curvature(
                layer, x, jax.nn.sigmoid, key, std=curvature_std, n_samples=2
            )
            value = value + jnp.asarray(curvature_penalty, x.dtype) * jnp.mean(curvature)
        return value

    return Variant(
        lambda key, d: network.init_autoencoder(key, (d, latent_dim), tied=tied, scale='sigmoid'),
        loss,
        encode,
        lambda params, code: jax.nn.sigmoid(deep.decode(params, code)),
    )


def regularized(
    method: str,
    latent_dim: int,
    *,
    weight_decay: ScalarLike = 1e-3,
    noise_std: ScalarLike = 0.3,
    flip_rate: ScalarLike = 0.25,
    mask_rate: ScalarLike = 0.5,
    contraction_penalty: ScalarLike = 0.3,
    curvature_penalty: ScalarLike = 0.3,
    curvature_std: ScalarLike = 0.3,
) -> Variant:
    """The tied logistic layer with one kind of regularization, by name.

    Args:
      method: 'decay', 'gaussian', 'salt_and_pepper', 'masking', 'contractive' or 'curvature' (which also contracts);
        any other name has no regularization.
      latent_dim: Number of units.
      weight_decay: For 'decay', as in `logistic`.
      noise_std: Standard deviation of the noise of 'gaussian'.
      flip_rate: Fraction of pixels that 'salt_and_pepper' sets to 0 or 1.
      mask_rate: Fraction of pixels that 'masking' sets to 0.
      contraction_penalty: For 'contractive' and 'curvature', as in `logistic`.
      curvature_penalty: For 'curvature', as in `logistic`.
      curvature_std: As in `logistic`.
    """
    options: dict[str, dict[str, Any]] = {
        'decay': {'weight_decay': weight_decay},
        'gaussian': {'corrupt': denoising.corruption('gaussian', noise_std)},
        'salt_and_pepper': {'corrupt': denoising.corruption('salt_and_pepper', flip_rate)},
        'masking': {'corrupt': denoising.corruption('masking', mask_rate)},
        'contractive': {'contraction_penalty': contraction_penalty},
        'curvature': {
            'contraction_penalty': contraction_penalty,
            'curvature_penalty': curvature_penalty,
            'curvature_std': curvature_std,
        },
    }
    return logistic(latent_dim, tied=True, **options.get(method, {}))


def masking_denoiser(latent_dim: int, mask_rate: ScalarLike) -> Variant:
    """The logistic layer, trained to reconstruct masked pixels."""
    corrupt = functools.partial(denoising.masking, mask_rate=mask_rate)
    return logistic(latent_dim, corrupt=corrupt)


def l1_sparse(latent_dim: int, l1_penalty: ScalarLike) -> Variant:
    """ReLU codes with an L1 penalty, and a linear decoder with unit rows."""
    return Variant(
        lambda key, d: topk.init_params(key, jnp.zeros((1, d)), latent_dim),
        lambda params, x, key: sparse.l1_loss(params, x, l1_penalty)[0],
        sparse.l1_encode,
        lambda params, code: topk.decode(sparse.normalize_decoder(params), code),
    )


def top_k_sparse(latent_dim: int, k: int) -> Variant:
    """The k largest ReLU codes, and a linear decoder."""
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


def by_name(
    name: str,
    latent_dim: int,
    *,
    l1_penalty: ScalarLike,
    k: int,
    mask_rate: ScalarLike,
    contraction_penalty: ScalarLike,
) -> Variant:
    """The variant with a name of `NAMES`.

    Args:
      name: Name of the variant.
      latent_dim: Latent dimension.
      l1_penalty: For 'l1', as in `l1_sparse`.
      k: For 'topk', as in `top_k_sparse`.
      mask_rate: For 'denoising', as in `masking_denoiser`.
      contraction_penalty: For 'contractive', as in `logistic`.

    Raises:
      ValueError: An unknown name.
    """
    match name:
        case 'linear':
            return linear_autoencoder(latent_dim)
        case 'plain':
            return logistic(latent_dim)
        case 'l1':
            return l1_sparse(latent_dim, l1_penalty)
        case 'topk':
            return top_k_sparse(latent_dim, k)
        case 'denoising':
            return masking_denoiser(latent_dim, mask_rate)
        case 'contractive':
            return logistic(latent_dim, contraction_penalty=contraction_penalty, tied=True)
        case 'deep':
            return deep_relu(latent_dim)
        case 'variational':
            return gaussian_vae(latent_dim)
    raise ValueError(f'unknown variant {name!r}; expected one of {", ".join(NAMES)}')
