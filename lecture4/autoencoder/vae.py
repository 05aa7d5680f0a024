"""Variational autoencoders: the evidence lower bound, importance-weighted log p(x), active units.

A `Model` pairs an encoder p_encoder(z | x), written q below, with a decoder p_decoder(x | z), each a
network whose outputs a `stochastic.Family` reads; the prior p(z) is the code's family at outputs 0.
Pixels and codes are summed over, never averaged: a mean over pixels is another objective, a
beta-VAE whose beta is the number of pixels.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.autoencoder import network, stochastic
from lecture4.ops.losses import check_unit_interval

Params = Any


class Model(NamedTuple):
    """A variational autoencoder of vectors [n, d] as pure functions.

    init    key -> params
    encode  (params, x [n, d]) -> outputs [n, p] that `code` reads
    decode  (params, z [n, v]) -> outputs [n, r] that `pixels` reads
    code    family of the code's `width` variables
    pixels  family of the pixels
    """

    init: Callable[[jax.Array], Params]
    encode: Callable[[Params, jax.Array], jax.Array]
    decode: Callable[[Params, jax.Array], jax.Array]
    code: stochastic.Family
    pixels: stochastic.Family
    width: int


class Weights(NamedTuple):
    """Parameters of a model; log_std is a number where one is learned for all pixels, else None."""

    encoder: Any
    decoder: Any
    log_std: jax.Array | None = None


class Bound(NamedTuple):
    """The two parts of the evidence lower bound, of every example.

    reconstruction  E_q log p(x | z), [n]
    kl              KL(q(z_j | x) || p(z_j)) of every variable of the code, [n, k]
    """

    reconstruction: jax.Array
    kl: jax.Array

    @property
    def elbo(self):
        """The bound of log p(x) itself, [n]: no beta, no free bits."""
        return self.reconstruction - jnp.sum(self.kl, axis=1)


def mlp(
    n_pixels: int,
    hidden: Sequence[int],
    width: int,
    *,
    pixels: stochastic.Family = stochastic.BERNOULLI,
    code: stochastic.Family = stochastic.GAUSSIAN,
    learn_std: bool = False,
    activation=jax.nn.relu,
) -> Model:
    """Fully connected encoder n_pixels - hidden - code, and its mirror image as decoder.

    hidden     widths of the hidden layers; () makes both networks affine.
    learn_std  one standard deviation for all pixels is learned beside the networks: `pixels` is to
               be GAUSSIAN, and the network gives the means only.
    Errors     ValueError for a width below 1, or learn_std without GAUSSIAN.
    """
    check_width(width)
    if learn_std and pixels is not stochastic.GAUSSIAN:
        raise ValueError('learn_std wants pixels=GAUSSIAN, whose log standard deviation it learns')
    n_outputs = n_pixels if learn_std else pixels.n_outputs(n_pixels)

    def init(key):
        encoder_key, decoder_key = jax.random.split(key)
        return Weights(
            network.init(encoder_key, (n_pixels, *hidden, code.n_outputs(width))),
            network.init(decoder_key, (code.n_values(width), *hidden[::-1], n_outputs)),
            jnp.zeros(()) if learn_std else None,
        )

    def encode(params, x):
        return network.apply(params.encoder, x, activation)

    def decode(params, z):
        return with_std(params, network.apply(params.decoder, z, activation))

    return Model(init, encode, decode, code, pixels, width)


def check_width(width: int):
    """ValueError unless a code has at least one variable."""
    if width < 1:
        raise ValueError(f'the code has width {width}; at least 1 variable is wanted')


def with_std(params: Weights, outputs):
    """Means [n, d] beside the log standard deviation that all pixels share, if one is learned."""
    if params.log_std is None:
        return outputs
    return jnp.concatenate([outputs, jnp.broadcast_to(params.log_std, outputs.shape)], axis=1)


def kl_standard_normal(mean, log_std):
    """KL(N(mean, std^2) || N(0, 1)) = 1/2 (std^2 + mean^2 - 1 - log std^2), elementwise, in nats.

    The lecture's slide sums std^2 + mean^2 - log std - 1: log std where log std^2 belongs, and no
    1/2. That is no divergence: it is smallest at std = 1/sqrt 2, where it is -0.153 at mean 0, and
    it pulls every posterior there. With log std^2 but without the 1/2 it is a beta-VAE with
    beta = 2.

    Shapes  mean, log_std [...] of one shape. Returns [...].
    Domain  log_std below 44 in float32, where std^2 overflows.
    Source  Kingma & Welling 2014, appendix B.
    """
    return 0.5 * (jnp.expm1(2 * log_std) + mean**2) - log_std


def bound(
    model: Model,
    params,
    x,
    key,
    *,
    n_samples: int = 1,
    estimator: stochastic.Estimator | None = None,
) -> Bound:
    """The evidence lower bound: E_q log p(x | z) by samples, the divergence in closed form.

    Shapes  x [n, d].
    Grad    unbiased in params, for discrete codes too; estimator as in stochastic.expectation.
    Errors  ValueError for known pixels outside [0, 1] under a Bernoulli decoder.
    """
    outputs = model.encode(params, x)
    reconstruction = stochastic.expectation(
        key,
        model.code,
        outputs,
        lambda z: model.pixels.log_prob(model.decode(params, z), x),
        n_samples=n_samples,
        estimator=estimator,
    )
    return Bound(reconstruction, model.code.kl(outputs, jnp.zeros_like(outputs)))


def enumerated_bound(model: Model, params, x, codes) -> jax.Array:
    """The evidence lower bound of discrete codes without noise: the sum over all their states.

    codes  every value that a code can take, [m, v]: stochastic.states.
    Shapes  x [n, d]. Returns [n]; memory grows with n * m.
    """
    outputs = model.encode(params, x)
    decoded = model.decode(params, codes)

    def one(outputs, x):
        many = jnp.broadcast_to(outputs[None], (len(codes), *outputs.shape))
        log_p = model.pixels.log_prob(decoded, jnp.broadcast_to(x[None], decoded.shape))
        return jnp.sum(jnp.exp(model.code.log_prob(many, codes)) * log_p)

    kl = model.code.kl(outputs, jnp.zeros_like(outputs))
    return jax.vmap(one)(outputs, x) - jnp.sum(kl, axis=1)


def loss(parts: Bound, *, beta=1.0, free_bits=0.0):
    """What is minimised: -reconstruction + beta sum_j max(free_bits, KL_j), averaged over examples.

    beta       1 gives the bound, more a more factorial code; it may be traced, as warm-up does.
    free_bits  nats that every variable may use for nothing: KL_j is the mean over the batch, and
               there is no gradient to shrink it further below.
    Source     Higgins et al. 2017 (beta); Kingma et al. 2016, eq. 15 (free bits).
    """
    kl = jnp.mean(parts.kl, axis=0)
    return beta * jnp.sum(jnp.maximum(kl, free_bits)) - jnp.mean(parts.reconstruction)


def warm_up(n, n_steps):
    """The factor of beta at step n: from 0 up to 1 in a straight line over n_steps, then 1.

    Source  Bowman et al. 2016; Sonderby et al. 2016.
    """
    return jnp.clip(jnp.asarray(n, float) / jnp.maximum(n_steps, 1), 0.0, 1.0) if n_steps else 1.0


def log_weights(model: Model, params, x, key):
    """Log p(x, z) - log q(z | x) at one z ~ q(z | x) for every example.

    The mean of its exponential is p(x). Where q is the posterior it is log p(x) for every z.

    Shapes  x [n, d]. Returns [n].
    """
    outputs = model.encode(params, x)
    z = model.code.sample(key, outputs)
    log_prior = model.code.log_prob(jnp.zeros_like(outputs), z)
    log_joint = model.pixels.log_prob(model.decode(params, z), x) + log_prior
    return log_joint - model.code.log_prob(outputs, z)


def importance_bound(model: Model, params, x, key, *, n_samples: int, chunk: int = 0):
    """E log 1/k sum_i w_i with k = n_samples: below log p(x), and closer the larger k.

    k = 1 is the evidence lower bound with a sampled divergence. For pathwise codes it may be
    trained on (an importance-weighted autoencoder).

    chunk   samples that are drawn at a time; 0 draws all at once. Memory grows with n * chunk only,
            as long as no gradient is taken.
    Shapes  x [n, d]. Returns [n].
    Errors  ValueError where chunk does not divide n_samples.
    Source  Burda, Grosse & Salakhutdinov 2016, eq. 8.
    """
    chunk = chunk or n_samples
    if n_samples < 1 or n_samples % chunk:
        raise ValueError(
            f'n_samples {n_samples} is not a multiple of chunk {chunk}; use {chunk} or '
            f'{(n_samples // chunk + 1) * chunk}'
        )

    def several(total, keys):
        weights = jax.vmap(lambda key: log_weights(model, params, x, key))(keys)
        return jnp.logaddexp(total, jax.nn.logsumexp(weights, axis=0)), None

    keys = jax.random.split(key, n_samples).reshape(n_samples // chunk, chunk)
    if len(keys) == 1:
        weights = jax.vmap(lambda key: log_weights(model, params, x, key))(keys[0])
        return jax.nn.logsumexp(weights, axis=0) - math.log(n_samples)
    total, _ = jax.lax.scan(several, jnp.full(x.shape[0], -jnp.inf, x.dtype), keys)
    return total - math.log(n_samples)


def log_likelihood(model: Model, params, x, key, *, n_samples: int, chunk: int, tile: int = 1000):
    """importance_bound of many examples, `tile` at a time: an estimate of log p(x) from below.

    Shapes  x [n, d]. Returns [n]. Examples of the last tile are padded by repeating the last one.
    """
    n = x.shape[0]
    tile = min(tile, n)
    n_tiles = -(-n // tile)
    padded = jnp.concatenate([x, jnp.repeat(x[-1:], n_tiles * tile - n, axis=0)])

    def one(inputs):
        part, key = inputs
        return importance_bound(model, params, part, key, n_samples=n_samples, chunk=chunk)

    tiles = padded.reshape(n_tiles, tile, *x.shape[1:])
    return jax.lax.map(one, (tiles, jax.random.split(key, n_tiles))).reshape(-1)[:n]


def sample(model: Model, params, key, n: int):
    """N codes from the prior and the decoder's mean of each: (z [n, v], pixels [n, d])."""
    z = model.code.sample(key, jnp.zeros((n, model.code.n_outputs(model.width))))
    return z, model.pixels.mean(model.decode(params, z))


def reconstruct(model: Model, params, x):
    """The decoder's mean at the encoder's mean, [n, d]."""
    z = model.code.mean(model.encode(params, x))
    return model.pixels.mean(model.decode(params, z))


def interpolate(a, b, n_steps: int, path: Literal['straight', 'sphere'] = 'sphere'):
    """n_steps codes from a to b, both included.

    'sphere' turns at an even rate and changes the length in a straight line. In many dimensions
    Gaussian codes lie near a sphere, and the middle of a straight line where the prior has no mass.

    Shapes  a, b [m, k]. Returns [m, n_steps, k].
    Errors  ValueError for fewer than 2 steps or another path.
    """
    if n_steps < 2:
        raise ValueError(f'n_steps is {n_steps}; both ends are included, so at least 2 are wanted')
    if path not in ('straight', 'sphere'):
        raise ValueError(f"path is 'straight' or 'sphere', not {path!r}")
    t = jnp.linspace(0, 1, n_steps, dtype=a.dtype)[None, :, None]
    straight = (1 - t) * a[:, None] + t * b[:, None]
    if path == 'straight':
        return straight
    lengths = [jnp.linalg.norm(end, axis=1, keepdims=True)[:, None] for end in (a, b)]
    u, v = (
        end[:, None] / jnp.maximum(length, jnp.finfo(a.dtype).tiny)
        for end, length in zip((a, b), lengths, strict=True)
    )
    cosine = jnp.clip(jnp.sum(u * v, axis=2, keepdims=True), -1, 1)
    angle = jnp.arccos(cosine)
    turning = jnp.sin(angle) > 1e-4  # (nearly) one line: the arc is the line, or has no plane
    safe = jnp.where(turning, jnp.sin(angle), 1)
    arc = (jnp.sin((1 - t) * angle) * u + jnp.sin(t * angle) * v) / safe
    return jnp.where(turning, arc * ((1 - t) * lengths[0] + t * lengths[1]), straight)


def active_units(means, threshold=0.01):
    """Which variables of the code carry anything: the variance over x of E[z | x] is > threshold.

    Shapes  means [n, k]. Returns [k] bool.
    Source  Burda, Grosse & Salakhutdinov 2016, section 5; 0.01 is theirs.
    """
    return jnp.var(means, axis=0) > threshold


def warn_of_collapse(n_active: int, width: int, share=0.5) -> str:
    """A warning, and its text, where fewer than `share` of a code's variables are active; else ''.

    Collapse may be the optimum: with a fixed standard deviation s a linear variable survives only
    where its variance in the data exceeds s^2.
    """
    if n_active >= share * width:
        return ''
    text = (
        f'posterior collapse: {n_active} of {width} units of the code are active; lower beta, warm '
        'it up, allow free bits, or learn the standard deviation of a Gaussian decoder'
    )
    warnings.warn(text, stacklevel=2)
    return text


def binarise(key, x):
    """Pixels 0 or 1, each 1 with probability x: 'dynamic' with a fresh key every time.

    Domain  x in [0, 1]; a traced one outside counts as 0 or 1.
    Errors  TypeError for integers; ValueError for known pixels outside, or NaN.
    """
    x = check_unit_interval(x, 'what is binarised')
    return jax.random.bernoulli(key, x).astype(x.dtype)


def independent_pixels(train, test):
    """Mean log p(test) of independent Bernoulli pixels with train's rates: what no code can reach.

    Shapes  train [n, d], test [m, d], values 0 or 1. Returns a float, in nats an example.
    """
    rate = (np.sum(train, axis=0, dtype=np.float64) + 0.5) / (len(train) + 1)  # never 0 or 1
    mean = np.mean(test, axis=0, dtype=np.float64)
    return float(np.sum(mean * np.log(rate) + (1 - mean) * np.log1p(-rate)))
