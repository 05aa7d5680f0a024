"""Stochastic encoders and decoders: p_encoder(h | x) and p_decoder(x | h).

A network's outputs are the parameters of a distribution. What they mean is a `Family`: Bernoulli
(outputs are logits), Gaussian (mean and log standard deviation side by side) or categorical
(groups of logits, values one-hot). Both directions of an autoencoder are then

    p_encoder(h | x)   family.log_prob(network.apply(encoder, x, tanh), h)
    p_decoder(x | h)   family.log_prob(network.apply(decoder, h, tanh), x)

In every family outputs of 0 are the usual prior: fair coins, N(0, 1), equal chances.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.ops import losses

Estimator = Literal['pathwise', 'score', 'leave-one-out']


class Family(NamedTuple):
    """Independent variables of one kind, k in number, given a network's outputs.

    n_outputs  k -> p, how many outputs parameterise k variables
    n_values   k -> v, how many numbers hold their values (a one-hot vector each, if categorical)
    sample     (key, outputs [n, p]) -> values [n, v] of the outputs' dtype
    log_prob   (outputs [n, p], values [n, v]) -> [n], nats, summed over the variables
    mean       outputs [n, p] -> [n, v], the expected values
    kl         (outputs [n, p], others [n, p]) -> [n, k], KL(outputs || others) of every variable
    pathwise   whether samples are differentiable in the outputs (h = mean + std * noise)
    """

    n_outputs: Callable[[int], int]
    n_values: Callable[[int], int]
    sample: Callable[[jax.Array, jax.Array], jax.Array]
    log_prob: Callable[[jax.Array, jax.Array], jax.Array]
    mean: Callable[[jax.Array], jax.Array]
    kl: Callable[[jax.Array, jax.Array], jax.Array]
    pathwise: bool


def _bernoulli_kl(logits, others):
    # p log(p/q) + (1-p) log((1-p)/(1-q)) with p = sigmoid(logits): no logarithm of a rounded 0.
    # Where both saturate, terms of the logits' size cancel; the sign is kept.
    p = jax.nn.sigmoid(logits)
    divergence = p * (logits - others) - jax.nn.softplus(logits) + jax.nn.softplus(others)
    return jnp.maximum(divergence, 0)


def _coins(key, logits):
    return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(logits.dtype)


BERNOULLI = Family(
    n_outputs=lambda k: k,
    n_values=lambda k: k,
    sample=_coins,
    log_prob=lambda logits, x: -losses.bernoulli_nll(logits, x),
    mean=jax.nn.sigmoid,
    kl=_bernoulli_kl,
    pathwise=False,
)


def split(outputs):
    """Mean and log standard deviation, the two halves of a Gaussian's outputs [..., 2k]."""
    if outputs.shape[-1] % 2:
        raise ValueError(
            f'{outputs.shape[-1]} outputs cannot hold means and log standard deviations; a '
            'Gaussian of k variables takes 2 k'
        )
    mean, log_std = jnp.split(outputs, 2, axis=-1)
    return mean, log_std


def _gaussian_sample(key, outputs):
    mean, log_std = split(outputs)
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)


def _gaussian_log_prob(outputs, values):
    return -losses.gaussian_nll(values, *split(outputs))


def _gaussian_kl(outputs, others):
    (mean, log_std), (other_mean, other_log_std) = split(outputs), split(others)
    log_ratio = log_std - other_log_std
    distance = (mean - other_mean) * jnp.exp(-other_log_std)
    # expm1 keeps the small values near equality, where 1 and the ratio's square would cancel.
    return 0.5 * (jnp.expm1(2 * log_ratio) + distance**2) - log_ratio


GAUSSIAN = Family(
    n_outputs=lambda k: 2 * k,
    n_values=lambda k: k,
    sample=_gaussian_sample,
    log_prob=_gaussian_log_prob,
    mean=lambda outputs: split(outputs)[0],
    kl=_gaussian_kl,
    pathwise=True,
)


def gaussian(log_std) -> Family:
    """Gaussians of one known standard deviation exp(log_std); the outputs are the means.

    log_std may be traced, so that one number for all pixels can be learned with the network.
    Outputs of 0 are N(0, exp(log_std)^2).
    """

    def full(mean):
        return jnp.concatenate([mean, jnp.full_like(mean, log_std)], axis=-1)

    return Family(
        n_outputs=lambda k: k,
        n_values=lambda k: k,
        sample=lambda key, mean: _gaussian_sample(key, full(mean)),
        log_prob=lambda mean, x: -losses.gaussian_nll(x, mean, log_std),
        mean=lambda mean: mean,
        kl=lambda mean, others: _gaussian_kl(full(mean), full(others)),
        pathwise=True,
    )


def categorical(n_classes: int) -> Family:
    """Variables with n_classes states; outputs and one-hot values are [n, k * n_classes].

    Errors  ValueError for fewer than 2 classes, or outputs that are no whole number of groups.
    """
    if n_classes < 2:
        raise ValueError(f'n_classes is {n_classes}; a categorical variable has 2 or more states')

    def grouped(values):
        if values.shape[-1] % n_classes:
            raise ValueError(
                f'{values.shape[-1]} outputs are no whole number of groups of {n_classes} classes'
            )
        return values.reshape(*values.shape[:-1], values.shape[-1] // n_classes, n_classes)

    def sample(key, outputs):
        logits = grouped(outputs)
        chosen = jax.random.categorical(key, logits)
        return jax.nn.one_hot(chosen, n_classes, dtype=outputs.dtype).reshape(outputs.shape)

    def kl(outputs, others):
        log_p = jax.nn.log_softmax(grouped(outputs))
        log_q = jax.nn.log_softmax(grouped(others))
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)

    return Family(
        n_outputs=lambda k: k * n_classes,
        n_values=lambda k: k * n_classes,
        sample=sample,
        log_prob=lambda outputs, values: (
            -losses.categorical_nll(grouped(outputs), jnp.argmax(grouped(values), axis=-1))
        ),
        mean=lambda outputs: jax.nn.softmax(grouped(outputs)).reshape(outputs.shape),
        kl=kl,
        pathwise=False,
    )


def states(n_variables: int, n_classes: int = 2, *, most: int = 4096) -> np.ndarray | None:
    """All values of discrete codes, [m, v]: 0 or 1 for two classes, else one-hot; None above `most`.

    The values of `BERNOULLI` are those of two classes, those of `categorical` of the others.
    """
    if n_variables * math.log(n_classes) > math.log(most):
        return None
    each = np.array([[0.0], [1.0]]) if n_classes == 2 else np.eye(n_classes)
    rows = itertools.product(each, repeat=n_variables)
    return np.stack([np.concatenate(row) for row in rows])


def spread(gradient: Callable, key, n_draws: int):
    """Mean of n_draws independent gradients and their variance, summed over parameters.

    gradient  key -> pytree. Returns (pytree, scalar); divided by n_draws the variance is that of
              the mean.
    """

    def one(carry, inputs):
        n, key = inputs
        mean, squares = carry
        drawn = gradient(key)
        new = jax.tree.map(lambda m, g: m + (g - m) / n, mean, drawn)
        # Welford's sum: squares less the square of the mean would cancel.
        leaves = (jax.tree.leaves(tree) for tree in (drawn, mean, new))
        squares += sum(jnp.sum((g - m) * (g - k)) for g, m, k in zip(*leaves, strict=True))
        return (new, squares), None

    like = jax.eval_shape(gradient, key)
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like), jnp.zeros(())
    counts = jnp.arange(1.0, n_draws + 1)
    (mean, squares), _ = jax.lax.scan(one, start, (counts, jax.random.split(key, n_draws)))
    return mean, squares / (n_draws - 1)


def expectation(
    key,
    family: Family,
    outputs,
    f: Callable,
    *,
    n_samples: int = 1,
    estimator: Estimator | None = None,
):
    """Monte Carlo mean of f(h), h ~ family(outputs), whose gradient is unbiased too.

    The gradient is right in `outputs` and in whatever f closes over.
        pathwise       through the sample, h = mean + std * noise; needs f differentiable in h
        score          E[f(h) d log p(h)]: f and h may be discrete; the variance is large
        leave-one-out  score with the mean of the other samples taken off f(h): the same
                       expectation, less variance
    None takes pathwise where the family allows it, else leave-one-out, else (one sample) score.

    Shapes  outputs [n, p]; f values [n, v] -> [n]. Returns [n].
    Errors  ValueError where the family has no pathwise gradient, for leave-one-out with a single
            sample, or for n_samples below 1.
    Source  Williams 1992 (score); Kingma & Welling 2014 (pathwise); Kool et al. 2019
            (leave-one-out).
    """
    if n_samples < 1:
        raise ValueError(f'n_samples is {n_samples}; at least 1 is wanted')
    if estimator is None:
        estimator = 'pathwise' if family.pathwise else 'leave-one-out' if n_samples > 1 else 'score'
    if estimator == 'pathwise' and not family.pathwise:
        raise ValueError(
            "samples of a discrete family have no pathwise gradient; use 'score' or 'leave-one-out'"
        )
    if estimator == 'leave-one-out' and n_samples == 1:
        raise ValueError("'leave-one-out' needs 2 or more samples; use 'score' for one")

    def one(key):
        h = family.sample(key, outputs)
        if estimator == 'pathwise':
            return f(h)
        h = jax.lax.stop_gradient(h)
        return f(h), family.log_prob(outputs, h)

    keys = jax.random.split(key, n_samples)
    if n_samples == 1:  # no batched matrix products where there is nothing to batch
        drawn = jax.tree.map(lambda leaf: leaf[None], one(keys[0]))
    else:
        drawn = jax.vmap(one)(keys)
    if estimator == 'pathwise':
        return jnp.mean(drawn, axis=0)
    values, log_probs = drawn
    reward = jax.lax.stop_gradient(values)
    if estimator == 'leave-one-out':
        reward = (reward - jnp.mean(reward, axis=0, keepdims=True)) * (n_samples / (n_samples - 1))
    # Adds exactly 0 to the value, and reward * d log p to the gradient.
    score = reward * (log_probs - jax.lax.stop_gradient(log_probs))
    return jnp.mean(values + score, axis=0)
