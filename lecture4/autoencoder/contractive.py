"""Penalized derivatives: lambda sum_i ||grad_x h_i||^2, the squared Frobenius norm of df/dx.

Three computations: in closed form for one layer (at the cost of a forward pass), exactly by Jacobian-vector products
for any encoder, and unbiased estimates by random probes for wide and deep encoders. "An encoder" is a function of ONE
example, f: [d] -> [k]; the functions map it over x [n, d].

Tie the weights of a contractive autoencoder: with untied weights the decoder can grow while the encoder shrinks,
which evades the penalty.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from lecture4.autoencoder.network import Dense, affine
from lecture4.ops import random_numbers


def layer_penalty(
    layer: Dense, x: Float[Array, 'n d'], activation: Callable[[Array], Array]
) -> Float[Array, ' n']:
    """||df/dx||_F^2 of one layer f = activation(x W + b), in closed form, per example.

    sum_i activation'(a_i)^2 |W_i|^2: for the logistic unit [h_i (1 - h_i)]^2 |W_i|^2, for the ReLU
    |W_i|^2 over active units, whose gradient with respect to the biases is 0.

    Args:
      layer: The encoder's layer.
      x: Examples.
      activation: Elementwise activation.

    References:
      Rifai et al. 2011, eq. 3.
    """
    slope = _slope(activation, affine(layer, x))
    return slope**2 @ jnp.sum(layer.weight**2, axis=0)


def layer_curvature(
    layer: Dense,
    x: Float[Array, 'n d'],
    activation: Callable[[Array], Array],
    key: PRNGKeyArray,
    *,
    std: ScalarLike,
    n_samples: int = 4,
) -> Float[Array, ' n']:
    """E ||J(x) - J(x + e)||_F^2 of one layer, e ~ N(0, std^2 I): the H of CAE+H, per example.

    In closed form for each sample of e. Divided by std^2 it tends to the squared norm of the Hessian as std goes to 0.

    Args:
      layer: The encoder's layer.
      x: Examples.
      activation: Elementwise activation.
      key: A random key.
      std: Standard deviation of the noise.
      n_samples: Number of samples of the noise.

    References:
      Rifai et al. 2011b, Higher order contractive auto-encoder, eq. 6.
    """
    energy = jnp.sum(layer.weight**2, axis=0)
    slope = _slope(activation, affine(layer, x))
    std = jnp.asarray(std, x.dtype)

    def sample(key):
        neighbor = x + std * random_numbers.normal(key, x.shape, x.dtype)
        return (_slope(activation, affine(layer, neighbor)) - slope) ** 2 @ energy

    return jnp.mean(jax.vmap(sample)(jax.random.split(key, n_samples)), axis=0)


def exact_penalty(encode: Callable[[Array], Array], x: Float[Array, 'n d']) -> Float[Array, ' n']:
    """||df/dx||_F^2 of any encoder by Jacobian-vector products, per example.

    Costs min(d, k) products: forward where the input has fewer dimensions, else backward.
    """
    return jnp.sum(jacobian(encode, x) ** 2, axis=(1, 2))


def jacobian(encode: Callable[[Array], Array], x: Float[Array, 'n d']) -> Float[Array, 'n k d']:
    """df/dx of an encoder [d] -> [k] at every x."""
    code = jax.eval_shape(encode, x[0])
    derivative = jax.jacfwd if x.shape[1] <= code.shape[0] else jax.jacrev
    return jax.vmap(derivative(encode))(x)


def estimated_penalty(
    encode: Callable[[Array], Array],
    x: Float[Array, 'n d'],
    key: PRNGKeyArray,
    *,
    n_probes: int = 1,
    direction: Literal['forward', 'backward'] = 'forward',
    probes: Literal['rademacher', 'gaussian'] = 'rademacher',
) -> Float[Array, ' n']:
    """An unbiased estimate of ||df/dx||_F^2, per example: mean of |J v|^2 or |J' u|^2 over probes.

    Args:
      encode: An encoder [d] -> [k].
      x: Examples.
      key: A random key.
      n_probes: Number of probes per example.
      direction: 'forward' takes v in the input space (one Jacobian-vector product per probe),
        'backward' takes u in the latent space (one vector-Jacobian product).
      probes: 'rademacher' (+-1) or 'gaussian'; the first has the smaller variance. Gaussian probes
        have a standard deviation of sqrt(2 ||J J'||_F^2 / n_probes).

    Raises:
      ValueError: The direction or the kind of probes is unknown.

    References:
      Hutchinson 1989.
    """
    if direction not in ('forward', 'backward'):
        raise ValueError(f"expected direction 'forward' or 'backward', got {direction!r}")
    if probes not in ('rademacher', 'gaussian'):
        raise ValueError(f"expected probes 'rademacher' or 'gaussian', got {probes!r}")
    sample = jax.random.rademacher if probes == 'rademacher' else jax.random.normal

    def squared_product(key, x):
        if direction == 'forward':
            product = jax.jvp(encode, (x,), (sample(key, x.shape, x.dtype),))[1]
        else:
            code, vector_jacobian = jax.vjp(encode, x)
            (product,) = vector_jacobian(sample(key, code.shape, code.dtype))
        return jnp.sum(product**2)

    keys = jax.random.split(key, (x.shape[0], n_probes))
    return jnp.mean(jax.vmap(jax.vmap(squared_product, (0, None)))(keys, x), axis=1)


def estimated_curvature(
    encode: Callable[[Array], Array],
    x: Float[Array, 'n d'],
    key: PRNGKeyArray,
    *,
    std: ScalarLike,
    n_samples: int = 4,
) -> Float[Array, ' n']:
    """E ||J(x) - J(x + e)||_F^2 of any encoder, e ~ N(0, std^2 I), per example, unbiased.

    One sample of e and one probe of +-1 at a time, forward: |(J(x) - J(x + e)) v|^2.

    Args:
      encode: An encoder [d] -> [k].
      x: Examples.
      key: A random key.
      std: Standard deviation of the noise.
      n_samples: Number of samples per example.
    """
    std = jnp.asarray(std, x.dtype)

    def sample(key, x):
        noise_key, probe_key = jax.random.split(key)
        v = jax.random.rademacher(probe_key, x.shape, x.dtype)
        neighbor = x + std * random_numbers.normal(noise_key, x.shape, x.dtype)
        difference = jax.jvp(encode, (x,), (v,))[1] - jax.jvp(encode, (neighbor,), (v,))[1]
        return jnp.sum(difference**2)

    keys = jax.random.split(key, (x.shape[0], n_samples))
    return jnp.mean(jax.vmap(jax.vmap(sample, (0, None)))(keys, x), axis=1)


def _slope(activation, a):
    """The elementwise derivative of the activation at a."""
    return jax.jvp(activation, (a,), (jnp.ones_like(a),))[1]
