"""Stochastic layers against scipy, enumeration and one another, at stated standard errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lecture4.autoencoder import stochastic
from tests.gradients import check_grads

RNG = np.random.default_rng(0)
CATEGORICAL = stochastic.categorical(3)
FAMILIES = {
    'bernoulli': (stochastic.BERNOULLI, 3),
    'gaussian': (stochastic.GAUSSIAN, 4),
    'fixed': (stochastic.gaussian(-0.7), 2),
    'categorical': (CATEGORICAL, 6),
}


def outputs_of(name, n=5, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, FAMILIES[name][1])))


def by_scipy(name, outputs, values):
    outputs, values = np.asarray(outputs), np.asarray(values)
    if name == 'bernoulli':
        return stats.bernoulli.logpmf(values, 1 / (1 + np.exp(-outputs))).sum(1)
    if name == 'gaussian':
        return stats.norm.logpdf(values, outputs[:, :2], np.exp(outputs[:, 2:])).sum(1)
    if name == 'fixed':
        return stats.norm.logpdf(values, outputs, np.exp(-0.7)).sum(1)
    odds = np.exp(outputs.reshape(-1, 2, 3))
    chances = odds / odds.sum(2, keepdims=True)
    return np.log((chances * values.reshape(-1, 2, 3)).sum(2)).sum(1)


@pytest.mark.cases(1)
@pytest.mark.parametrize('name', FAMILIES)
def test_log_likelihood_is_scipy_s(name, x64):
    family, _ = FAMILIES[name]
    outputs = outputs_of(name)
    values = family.sample(jax.random.key(1), outputs)
    assert values.dtype == outputs.dtype
    found = family.log_prob(outputs, values)
    np.testing.assert_allclose(found, by_scipy(name, outputs, values), rtol=1e-12)


@pytest.mark.cases(1)
@pytest.mark.parametrize('name', FAMILIES)
def test_samples_have_the_stated_mean(name):
    family, p = FAMILIES[name]
    outputs = outputs_of(name, 1).astype(jnp.float32)
    many = jnp.broadcast_to(outputs, (20_000, p))
    values = np.asarray(family.sample(jax.random.key(2), many))
    error = values.std(0) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - family.mean(outputs)[0]) < 4.5 * error).all()
    if name == 'gaussian':
        np.testing.assert_allclose(values.std(0), np.exp(outputs[0, 2:]), rtol=0.03)


def test_categorical_values_are_one_hot():
    values = CATEGORICAL.sample(jax.random.key(0), jnp.zeros((50, 6))).reshape(50, 2, 3)
    np.testing.assert_array_equal(values.sum(2), 1)
    assert set(np.unique(values)) == {0, 1}


@pytest.mark.parametrize('name', ['bernoulli', 'categorical'])
def test_kl_of_discrete_variables_is_the_sum_over_their_states(name, x64):
    family, _ = FAMILIES[name]
    a, b = outputs_of(name, seed=1), outputs_of(name, seed=2)
    if name == 'bernoulli':
        p, q = (np.stack([1 / (1 + np.exp(o)), 1 / (1 + np.exp(-o))], 2) for o in (a, b))
    else:
        p, q = (np.exp(o).reshape(-1, 2, 3) for o in (a, b))
        p, q = p / p.sum(2, keepdims=True), q / q.sum(2, keepdims=True)
    np.testing.assert_allclose(family.kl(a, b), (p * np.log(p / q)).sum(2), atol=1e-14)
    np.testing.assert_allclose(family.kl(a, a), 0, atol=1e-15)


@pytest.mark.parametrize('name', ['gaussian', 'fixed'])
def test_kl_of_gaussians_is_the_integral(name, x64):
    family, _ = FAMILIES[name]
    a, b = outputs_of(name, 1, seed=1), outputs_of(name, 1, seed=2)
    grid = np.linspace(-30, 30, 40_001)
    for j in range(2):
        if name == 'gaussian':
            params = [(o[0, j], np.exp(o[0, 2 + j])) for o in (a, b)]
        else:
            params = [(o[0, j], np.exp(-0.7)) for o in (a, b)]
        log_p, log_q = (stats.norm.logpdf(grid, *pair) for pair in params)
        integral = np.trapezoid(np.exp(log_p) * (log_p - log_q), grid)
        np.testing.assert_allclose(family.kl(a, b)[0, j], integral, rtol=1e-9)


@pytest.mark.cases(1)
@pytest.mark.parametrize('name', FAMILIES)
def test_gradients_in_the_outputs(name, x64):
    family, _ = FAMILIES[name]
    outputs, others = outputs_of(name, 2), outputs_of(name, 2, seed=1)
    values = family.sample(jax.random.key(1), outputs)
    check_grads(jax.jit(lambda o: family.log_prob(o, values)), (outputs,), 1, modes=['rev'])
    check_grads(jax.jit(family.kl), (outputs, others), 1, modes=['rev'])


@pytest.mark.cases(1)
@pytest.mark.parametrize('name', ['bernoulli', 'categorical'])
@pytest.mark.parametrize('logit', [-100.0, 100.0])
def test_saturated_logits_stay_finite(name, logit):
    family, p = FAMILIES[name]
    outputs = jnp.where(jnp.arange(p) % 2 == 0, logit, -logit)[None].astype(jnp.float32)
    likelihood = jax.jit(jax.value_and_grad(lambda o, value: family.log_prob(o, value).sum()))
    for logits in (outputs, -outputs):  # the likely state, and the one of probability e^-100
        value = family.sample(jax.random.key(0), logits)
        log_prob, grad = likelihood(outputs, value)
        assert np.isfinite(log_prob) and np.isfinite(grad).all()
    divergence = jax.jit(jax.value_and_grad(lambda o: family.kl(o, jnp.zeros_like(o)).sum()))
    kl, grad = divergence(outputs)
    assert np.isfinite(kl) and kl >= 0 and np.isfinite(grad).all()


def states(name):
    if name == 'bernoulli':
        return np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    return np.array(
        [np.eye(3)[list(pair)].ravel() for pair in itertools.product(range(3), repeat=2)]
    )


def test_states_are_all_values_of_a_code():
    np.testing.assert_array_equal(stochastic.enumerate_states(3), states('bernoulli'))
    np.testing.assert_array_equal(stochastic.enumerate_states(2, 3), states('categorical'))
    assert stochastic.enumerate_states(13) is None and stochastic.enumerate_states(12).shape == (
        4096,
        12,
    )


def test_gradient_moments_are_mean_and_variance():
    """Far from 0, where squares less the mean's square would cancel."""

    def gradient(key):
        noise = jax.random.normal(key, (3,))
        return {'a': 1000 + 0.1 * noise[:2], 'b': 2 * noise[2]}

    mean, variance = stochastic.gradient_moments(gradient, jax.random.key(0), 50)
    every = [gradient(key) for key in jax.random.split(jax.random.key(0), 50)]
    flat = np.array([np.append(np.asarray(g['a'], float), g['b']) for g in every])
    np.testing.assert_allclose(np.append(mean['a'], mean['b']), flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, flat.var(0, ddof=1).sum(), rtol=1e-3)


def reward(h, c=1.5):
    return (
        jnp.sin(c * jnp.sum(h * jnp.arange(1.0, h.shape[1] + 1, dtype=h.dtype)[None], axis=1)) + 2
    )


@pytest.mark.cases(1)
@pytest.mark.parametrize('name', FAMILIES)
def test_estimators_agree_with_the_exact_gradient(name, x64):
    """In expectation: means of 4000 independent gradients lie within 4.5 standard errors."""
    family, p = FAMILIES[name]
    outputs = 0.5 * outputs_of(name, 1, seed=3)
    if family.pathwise:  # quadrature: a grid over the two variables

        def exact(outputs):
            axis = jnp.linspace(-9, 9, 601)
            grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
            density = jnp.exp(family.log_prob(jnp.broadcast_to(outputs, (len(grid), p)), grid))
            return jnp.sum(density * reward(grid)) * (axis[1] - axis[0]) ** 2
    else:  # enumeration

        def exact(outputs):
            every = jnp.asarray(states(name))
            chance = jnp.exp(family.log_prob(jnp.broadcast_to(outputs, (len(every), p)), every))
            return jnp.sum(chance * reward(every))

    value, truth = jax.value_and_grad(exact)(outputs)
    spread = {}
    estimators = ['score', 'leave-one-out'] + ['pathwise'] * family.pathwise
    for i, estimator in enumerate(estimators):

        def once(key, outputs, estimator=estimator):
            return stochastic.expectation(
                key, family, outputs, reward, n_samples=4, estimator=estimator
            )[0]

        keys = jax.random.split(jax.random.key(i), 4000)
        values, grads = jax.jit(jax.vmap(jax.value_and_grad(once, 1), (0, None)))(keys, outputs)
        for draws, exactly in ((values, value), (grads, truth)):
            draws = np.asarray(draws)
            error = draws.std(0) / np.sqrt(len(draws))
            assert (error > 0).all()
            assert (np.abs(draws.mean(0) - exactly) < 4.5 * error).all()
        spread[estimator] = float(np.square(np.asarray(grads).std(0)).sum())
    assert spread['leave-one-out'] < 0.6 * spread['score']
    if family.pathwise:
        assert spread['pathwise'] < spread['score']


@pytest.mark.parametrize('estimator', ['pathwise', 'score', 'leave-one-out'])
def test_closed_over_values_have_their_gradient(estimator, x64):
    outputs = outputs_of('gaussian', 6)

    def mean(c):
        return stochastic.expectation(
            jax.random.key(0), stochastic.GAUSSIAN, outputs, lambda h: reward(h, c),
            n_samples=3, estimator=estimator,
        ).sum()  # fmt: skip

    check_grads(mean, (jnp.float64(1.5),), 1, modes=['rev'])


def test_the_prior_is_outputs_of_zero(x64):
    z = jnp.asarray(RNG.normal(size=(3, 2)))
    found = stochastic.GAUSSIAN.log_prob(jnp.zeros((3, 4)), z)
    np.testing.assert_allclose(found, stats.norm.logpdf(z).sum(1), rtol=1e-13)
    coins = stochastic.BERNOULLI.log_prob(jnp.zeros((1, 5)), jnp.ones((1, 5)))
    np.testing.assert_allclose(coins, -5 * np.log(2), rtol=1e-13)


def test_log_stds_are_bounded_and_usual_ones_unchanged():
    usual = jnp.linspace(-6, 6, 121)
    np.testing.assert_array_equal(stochastic.bound_log_std(usual), usual)
    rising = jnp.concatenate([jnp.linspace(-10, 10, 201), jnp.asarray([50.0, 1e6])])
    found, slope = jax.vmap(jax.value_and_grad(stochastic.bound_log_std))(rising)
    assert (jnp.diff(found) >= 0).all() and (jnp.abs(found) <= 7).all()
    assert (slope[:-2] > 0).all() and (slope <= 1).all() and np.isfinite(slope).all()
    np.testing.assert_allclose(found[-1], 7)
    outputs = jnp.asarray([[0.0, 100.0], [3.0, -1e4]])
    mean, log_std = stochastic.split_gaussian(outputs)
    np.testing.assert_array_equal(mean, outputs[:, :1])
    np.testing.assert_allclose(log_std, [[7.0], [-7.0]])
    assert np.isfinite(stochastic.GAUSSIAN.kl(outputs, jnp.zeros_like(outputs))).all()


def test_errors_name_the_fix():
    family, _ = FAMILIES['bernoulli']
    outputs = jnp.zeros((1, 3))
    expect = stochastic.expectation
    with pytest.raises(ValueError, match="use 'score' or 'leave-one-out'"):
        expect(jax.random.key(0), family, outputs, reward, estimator='pathwise')
    with pytest.raises(ValueError, match='2 or more samples'):
        expect(jax.random.key(0), family, outputs, reward, estimator='leave-one-out')
    with pytest.raises(ValueError, match='n_samples to be at least 1, got 0'):
        expect(jax.random.key(0), family, outputs, reward, n_samples=0)
    with pytest.raises(ValueError, match='at least 2, got 1'):
        stochastic.categorical(1)
    with pytest.raises(ValueError, match='a multiple of 3 classes'):
        CATEGORICAL.mean(jnp.zeros((1, 5)))
    with pytest.raises(ValueError, match='expected 2 k outputs'):
        stochastic.GAUSSIAN.mean(jnp.zeros((1, 5)))
    with pytest.raises(ValueError, match='divide by 255, or use a Gaussian decoder where'):
        family.log_prob(outputs, jnp.full((1, 3), 255.0))
