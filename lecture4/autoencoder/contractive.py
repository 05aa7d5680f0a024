"""Penalised derivatives: lambda sum_i ||grad_x h_i||^2, the squared Frobenius norm of df/dx.

Three computations that agree: in closed form for one layer (the cost of a forward pass), exactly by
Jacobian-vector products for any encoder, and by random probes, unbiased, for wide and deep ones.
"An encoder" is a function of ONE example, f: [d] -> [k]; the functions map it over x [n, d].

Tie the weights of a contractive autoencoder: an untied decoder can grow while the encoder shrinks,
and the penalty then costs nothing.
"""

import jax
import jax.numpy as jnp

from lecture4.autoencoder.network import Dense, affine


def layer_penalty(layer: Dense, x, activation):
    """||df/dx||_F^2 of one layer f = activation(x W + b), in closed form, per example.

    sum_i activation'(a_i)^2 |W_i|^2: for the logistic unit [h_i (1 - h_i)]^2 |W_i|^2, for the ReLU
    |W_i|^2 over active units, whose gradient to the biases is 0.

    Shapes  x [n, d]; activation elementwise. Returns [n].
    Source  Rifai et al. 2011, eq. 3.
    """
    slope = _slope(activation, affine(layer, x))
    return slope**2 @ jnp.sum(layer.weight**2, axis=0)


def layer_curvature(layer: Dense, x, activation, key, *, std, n_samples=4):
    """E ||J(x) - J(x + e)||_F^2 of one layer, e ~ N(0, std^2 I): the H of CAE+H, per example.

    In closed form for each of the n_samples draws. Divided by std^2 it tends to the squared norm of
    the Hessian as std falls.

    Shapes  x [n, d]. Returns [n].
    Source  Rifai et al. 2011b, Higher order contractive auto-encoder, eq. 6.
    """
    energy = jnp.sum(layer.weight**2, axis=0)
    here = _slope(activation, affine(layer, x))
    std = jnp.asarray(std, x.dtype)

    def once(key):
        there = x + std * jax.random.normal(key, x.shape, x.dtype)
        return (_slope(activation, affine(layer, there)) - here) ** 2 @ energy

    return jnp.mean(jax.vmap(once)(jax.random.split(key, n_samples)), axis=0)


def exact_penalty(encode, x):
    """||df/dx||_F^2 by Jacobian-vector products, per example, of any encoder.

    Costs min(d, k) products: forward where the input is the narrower end, else backward.
    Shapes  x [n, d], encode [d] -> [k]. Returns [n].
    """
    return jnp.sum(jacobian(encode, x) ** 2, axis=(1, 2))


def jacobian(encode, x):
    """df/dx [n, k, d] of an encoder [d] -> [k] at every x [n, d]."""
    one = jax.eval_shape(encode, x[0])
    derivative = jax.jacfwd if x.shape[1] <= one.shape[0] else jax.jacrev
    return jax.vmap(derivative(encode))(x)


def estimated_penalty(encode, x, key, *, n_probes=1, direction='forward', probes='rademacher'):
    """An unbiased estimate of ||df/dx||_F^2, per example: mean of |J v|^2 or |J' u|^2 over probes.

    direction  'forward' takes v in the input space (one Jacobian-vector product a probe),
               'backward' u in the code space (one vector-Jacobian product).
    probes     'rademacher' (+-1) or 'gaussian'; the first has the smaller variance. Gaussian probes
               have a standard deviation of sqrt(2 ||J J'||_F^2 / n_probes).
    Shapes  x [n, d], encode [d] -> [k]. Returns [n].
    Errors  ValueError for another direction or kind of probe.
    Source  Hutchinson 1989.
    """
    if direction not in ('forward', 'backward'):
        raise ValueError(f"direction is 'forward' or 'backward', not {direction!r}")
    if probes not in ('rademacher', 'gaussian'):
        raise ValueError(f"probes are 'rademacher' or 'gaussian', not {probes!r}")
    draw = jax.random.rademacher if probes == 'rademacher' else jax.random.normal

    def once(key, x):
        if direction == 'forward':
            product = jax.jvp(encode, (x,), (draw(key, x.shape, x.dtype),))[1]
        else:
            code, pull = jax.vjp(encode, x)
            (product,) = pull(draw(key, code.shape, code.dtype))
        return jnp.sum(product**2)

    keys = jax.random.split(key, (x.shape[0], n_probes))
    return jnp.mean(jax.vmap(jax.vmap(once, (0, None)))(keys, x), axis=1)


def estimated_curvature(encode, x, key, *, std, n_samples=4):
    """E ||J(x) - J(x + e)||_F^2 of any encoder, e ~ N(0, std^2 I), per example, unbiased.

    One draw of e and one probe of +-1 a sample, forward: |(J(x) - J(x + e)) v|^2.
    Shapes  x [n, d], encode [d] -> [k]. Returns [n].
    """
    std = jnp.asarray(std, x.dtype)

    def once(key, x):
        noise_key, probe_key = jax.random.split(key)
        v = jax.random.rademacher(probe_key, x.shape, x.dtype)
        there = x + std * jax.random.normal(noise_key, x.shape, x.dtype)
        difference = jax.jvp(encode, (x,), (v,))[1] - jax.jvp(encode, (there,), (v,))[1]
        return jnp.sum(difference**2)

    keys = jax.random.split(key, (x.shape[0], n_samples))
    return jnp.mean(jax.vmap(jax.vmap(once, (0, None)))(keys, x), axis=1)


def _slope(activation, a):
    """The elementwise derivative of the activation at a."""
    return jax.jvp(activation, (a,), (jnp.ones_like(a),))[1]
