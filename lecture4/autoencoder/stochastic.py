"""Stochastic encoders and decoders: p_encoder(h | x) and p_decoder(x | h).

A network's outputs are the parameters of a `Distribution`: Bernoulli (outputs are logits), Gaussian
(means, then log standard deviations) or categorical (groups of logits, values one-hot). Both
directions of an autoencoder are then

    p_encoder(h | x)   distribution.log_prob(network.apply(encoder, x, tanh), h)
    p_decoder(x | h)   distribution.log_prob(network.apply(decoder, h, tanh), x)

For every distribution, outputs of 0 give the usual prior: fair coins, N(0, 1), equal probabilities.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from lecture4.ops import losses, random_numbers
from lecture4.ops.varying import vary_as_returned

Estimator = Literal['pathwise', 'score', 'leave-one-out']

# Log standard deviations are unchanged up to +-6 and approach +-7 beyond: standard deviations from 0.001, less than
# the rounding of 8-bit pixels in [0, 1], to 1100, more than pixels in 0..255.
LOG_STD_IDENTITY = 6.0
LOG_STD_LIMIT = 7.0


class Distribution(NamedTuple):
    """k independent variables of one kind, given a network's outputs.

    Attributes:
      n_outputs: k -> p, the number of outputs that parameterize k variables.
      n_values: k -> v, the number of values of k variables (a one-hot vector each, if categorical).
      sample: (key, outputs [n, p]) -> values [n, v] of the outputs' dtype.
      log_prob: (outputs [n, p], values [n, v]) -> [n], nats, summed over the variables.
      mean: Outputs [n, p] -> [n, v], the expected values.
      kl: (outputs [n, p], others [n, p]) -> [n, k], KL(outputs || others) of every variable.
      pathwise: Whether samples are differentiable in the outputs (h = mean + std * noise).
    """

    n_outputs: Callable[[int], int]
    n_values: Callable[[int], int]
    sample: Callable[[PRNGKeyArray, Array], Array]
    log_prob: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    kl: Callable[[Array, Array], Array]
    pathwise: bool


def _bernoulli_kl(logits, others):
    # p log(p/q) + (1-p) log((1-p)/(1-q)) with p = sigmoid(logits): no logarithm of a rounded 0.
    # Where both saturate, terms as large as the logits cancel; the sign is preserved.
    p = jax.nn.sigmoid(logits)
    divergence = p * (logits - others) - jax.nn.softplus(logits) + jax.nn.softplus(others)
    return jnp.maximum(divergence, 0)


def _bernoulli_sample(key, logits):
    u = random_numbers.uniform(key, logits.shape, logits.dtype)
    return (u < jax.nn.sigmoid(logits)).astype(logits.dtype)


BERNOULLI = Distribution(
    n_outputs=lambda k: k,
    n_values=lambda k: k,
    sample=_bernoulli_sample,
    log_prob=lambda logits, x: -losses.bernoulli_nll(logits, x),
    mean=jax.nn.sigmoid,
    kl=_bernoulli_kl,
    pathwise=False,
)


@jax.jit
def bound_log_std(log_std: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """Log standard deviations bounded to +-LOG_STD_LIMIT, unchanged within +-LOG_STD_IDENTITY.

    The bound is smooth, with a nonzero gradient everywhere. Without it a network whose inputs are pixels in 0..255
    starts with log standard deviations near 100, and exp(2 log_std) overflows.
    """
    excess = jnp.maximum(jnp.abs(log_std) - LOG_STD_IDENTITY, 0)
    room = LOG_STD_LIMIT - LOG_STD_IDENTITY
    bounded = jnp.sign(log_std) * (LOG_STD_IDENTITY + room * jnp.tanh(excess / room))
    return jnp.where(excess > 0, bounded, log_std)


def split_gaussian(
    outputs: Float[Array, '*batch outputs'],
) -> tuple[Float[Array, '*batch k'], Float[Array, '*batch k']]:
    """Mean and bounded log standard deviation, from the two halves of a Gaussian's outputs.

    Raises:
      ValueError: The number of outputs is odd.
    """
    if outputs.shape[-1] % 2:
        raise ValueError(
            f'expected 2 k outputs for the means and log standard deviations of k variables, got '
            f'{outputs.shape[-1]}'
        )
    mean, log_std = jnp.split(outputs, 2, axis=-1)
    return mean, bound_log_std(log_std)


def _gaussian_sample(key, mean, log_std):
    return mean + jnp.exp(log_std) * random_numbers.normal(key, mean.shape, mean.dtype)


def _gaussian_kl(mean, log_std, other_mean, other_log_std):
    log_ratio = log_std - other_log_std
    distance = (mean - other_mean) * jnp.exp(-other_log_std)
    # expm1 is accurate near equality, where 1 and the squared ratio would cancel.
    return 0.5 * (jnp.expm1(2 * log_ratio) + distance**2) - log_ratio


GAUSSIAN = Distribution(
    n_outputs=lambda k: 2 * k,
    n_values=lambda k: k,
    sample=lambda key, outputs: _gaussian_sample(key, *split_gaussian(outputs)),
    log_prob=lambda outputs, x: -losses.gaussian_nll(x, *split_gaussian(outputs)),
    mean=lambda outputs: split_gaussian(outputs)[0],
    kl=lambda outputs, others: _gaussian_kl(*split_gaussian(outputs), *split_gaussian(others)),
    pathwise=True,
)


def gaussian(log_std: ScalarLike) -> Distribution:
    """Gaussians with one known standard deviation exp(log_std); the outputs are the means.

    Outputs of 0 give N(0, exp(log_std)^2).

    Args:
      log_std: Log standard deviation, a scalar; may be traced, so that one value for all pixels can be learned.
    """

    def full(mean):
        return jnp.full_like(mean, log_std)

    return Distribution(
        n_outputs=lambda k: k,
        n_values=lambda k: k,
        sample=lambda key, mean: _gaussian_sample(key, mean, full(mean)),
        log_prob=lambda mean, x: -losses.gaussian_nll(x, mean, log_std),
        mean=lambda mean: mean,
        kl=lambda mean, others: _gaussian_kl(mean, full(mean), others, full(others)),
        pathwise=True,
    )


def categorical(n_classes: int) -> Distribution:
    """Variables with n_classes states; outputs and one-hot values are [n, k * n_classes].

    Raises:
      ValueError: n_classes is below 2; or, in the functions of the result, the outputs are not a whole number of
        groups.
    """
    if n_classes < 2:
        raise ValueError(
            f'expected n_classes of a categorical variable to be at least 2, got {n_classes}'
        )

    def grouped(values):
        if values.shape[-1] % n_classes:
            raise ValueError(
                f'expected a multiple of {n_classes} classes as outputs, got {values.shape[-1]}'
            )
        return values.reshape(*values.shape[:-1], values.shape[-1] // n_classes, n_classes)

    def sample(key, outputs):
        states = jax.random.categorical(key, grouped(outputs))
        return jax.nn.one_hot(states, n_classes, dtype=outputs.dtype).reshape(outputs.shape)

    def kl(outputs, others):
        log_p = jax.nn.log_softmax(grouped(outputs))
        log_q = jax.nn.log_softmax(grouped(others))
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)

    return Distribution(
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


def enumerate_states(
    n_variables: int, n_classes: int = 2, *, max_states: int = 4096
) -> Float[np.ndarray, 'states v'] | None:
    """All values of discrete codes: 0 or 1 for two classes, else one-hot; None above max_states.

    The values for two classes are those of `BERNOULLI`, for more classes those of `categorical`.
    """
    if n_variables * math.log(n_classes) > math.log(max_states):
        return None
    each = np.array([[0.0], [1.0]]) if n_classes == 2 else np.eye(n_classes)
    rows = itertools.product(each, repeat=n_variables)
    return np.stack([np.concatenate(row) for row in rows])


def gradient_moments(
    gradient: Callable[[PRNGKeyArray], Any], key: PRNGKeyArray, n_samples: int
) -> tuple[Any, Float[Array, '']]:
    """Mean of independent gradients, and their variance summed over parameters.

    Args:
      gradient: key -> pytree.
      key: A random key.
      n_samples: Number of gradients, at least 2.

    Returns:
      (mean, variance): a pytree and a scalar; the variance divided by n_samples is that of the mean.
    """

    def update(carry, inputs):
        n, key = inputs
        mean, squares = carry
        sample = gradient(key)
        new = jax.tree.map(lambda m, g: m + (g - m) / n, mean, sample)
        # Welford's algorithm: subtracting the square of the mean from the mean of squares would cancel.
        leaves = (jax.tree.leaves(tree) for tree in (sample, mean, new))
        squares += sum(jnp.sum((g - m) * (g - k)) for g, m, k in zip(*leaves, strict=True))
        return (new, squares), None

    shapes = jax.eval_shape(gradient, key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    dtype = jnp.result_type(*jax.tree.leaves(zeros))
    counts = jnp.arange(1, n_samples + 1, dtype=dtype)
    inputs = counts, jax.random.split(key, n_samples)
    start = vary_as_returned(
        lambda carry, n, key: update(carry, (n, key))[0],
        (zeros, jnp.zeros((), dtype)),
        counts[0],
        key,
    )
    (mean, squares), _ = jax.lax.scan(update, start, inputs)
    return mean, squares / (n_samples - 1)


def expectation(
    key: PRNGKeyArray,
    distribution: Distribution,
    outputs: Float[Array, 'n p'],
    f: Callable[[Array], Array],
    *,
    n_samples: int = 1,
    estimator: Estimator | None = None,
) -> Float[Array, ' n']:
    """Monte Carlo mean of f(h), h ~ distribution(outputs), with an unbiased gradient.

    The gradient is correct with respect to `outputs` and everything that f closes over.

    Args:
      key: A random key.
      distribution: Distribution of h.
      outputs: Parameters of the distribution.
      f: Values [n, v] -> [n].
      n_samples: Number of samples of h per row of outputs.
      estimator: Gradient estimator.
        'pathwise': through the sample, h = mean + std * noise; requires f differentiable in h;
        'score': E[f(h) d log p(h)]: f and h may be discrete; the variance is large;
        'leave-one-out': score with the mean of the other samples subtracted from f(h): the same
        expectation, less variance;
        None: pathwise where the distribution allows it, else leave-one-out, else (one sample)
        score.

    Raises:
      ValueError: The distribution has no pathwise gradient, leave-one-out has a single sample, or
        n_samples is below 1.

    References:
      Williams 1992 (score); Kingma & Welling 2014 (pathwise); Kool et al. 2019 (leave-one-out).
    """
    if n_samples < 1:
        raise ValueError(f'expected n_samples to be at least 1, got {n_samples}')
    if estimator is None:
        estimator = 'leave-one-out' if n_samples > 1 else 'score'
        estimator = 'pathwise' if distribution.pathwise else estimator
    if estimator == 'pathwise' and not distribution.pathwise:
        raise ValueError(
            "samples of a discrete distribution have no pathwise gradient; use 'score' or "
            "'leave-one-out'"
        )
    if estimator == 'leave-one-out' and n_samples == 1:
        raise ValueError("'leave-one-out' needs 2 or more samples; use 'score' for one")

    def sample(key):
        h = distribution.sample(key, outputs)
        if estimator == 'pathwise':
            return f(h)
        h = jax.lax.stop_gradient(h)
        return f(h), distribution.log_prob(outputs, h)

    keys = jax.random.split(key, n_samples)
    samples: Any
    if n_samples == 1:  # avoids batched matrix products where there is nothing to batch
        samples = jax.tree.map(lambda leaf: leaf[None], sample(keys[0]))
    else:
        samples = jax.vmap(sample)(keys)
    if estimator == 'pathwise':
        return jnp.mean(samples, axis=0)
    values, log_probs = samples
    reward = jax.lax.stop_gradient(values)
    if estimator == 'leave-one-out':
        reward = (reward - jnp.mean(reward, axis=0, keepdims=True)) * (n_samples / (n_samples - 1))
    # Adds exactly 0 to the value, and reward * d log p to the gradient.
    score = reward * (log_probs - jax.lax.stop_gradient(log_probs))
    return jnp.mean(values + score, axis=0)
