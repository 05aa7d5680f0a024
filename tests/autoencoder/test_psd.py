import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso

from lecture4.autoencoder import network, psd
from lecture4.features import atoms
from lecture4.ops.prox import soft_threshold
from lecture4.ops.reduce import Reduce
from lecture4.sparse import objective, solvers

D, K, WEIGHT, COUPLING = 12, 20, 0.6, 0.7
JOINT = {'l1_penalty': WEIGHT, 'coupling': COUPLING}


@pytest.fixture
def params(x64):
    made = jax.random.normal(jax.random.key(0), (D, K))
    encoder = network.Dense(
        0.4 * jax.random.normal(jax.random.key(1), (D, K)), jnp.linspace(-1, 1, K)
    )
    made = made / jnp.linalg.norm(made, axis=0, keepdims=True)
    return psd.Params(made, encoder, jnp.linspace(0.5, 2, K))


@pytest.fixture
def x(x64):
    return jax.random.normal(jax.random.key(2), (6, D))


def test_code_is_the_papers_encoder(params, x):
    weight, bias = params.encoder
    expected = np.diag(params.gain) @ np.tanh(
        np.asarray(weight).T @ np.asarray(x).T + bias[:, None]
    )
    np.testing.assert_allclose(psd.encode(params, x), expected.T, rtol=1e-12)


def test_inference_is_the_lasso_of_scikit_learn(params, x):
    """The minimizer of E, by coordinate descent on the stacked problem, one example at a time."""
    found = psd.infer(params, x, n_steps=2000, **JOINT)
    root = np.sqrt(COUPLING)
    stacked = np.concatenate([params.atoms, root * np.eye(K)])
    prediction = np.asarray(psd.encode(params, x))
    for i in range(len(x)):
        signal = np.concatenate([x[i], root * prediction[i]])
        peer = Lasso(WEIGHT / (2 * len(signal)), fit_intercept=False, tol=1e-12, max_iter=100_000)
        np.testing.assert_allclose(found[i], peer.fit(stacked, signal).coef_, atol=1e-8)


def test_inferred_codes_satisfy_the_optimality_conditions(params, x):
    h = psd.infer(params, x, n_steps=2000, **JOINT)

    def smooth(h):
        return psd.energy(params, x, h, l1_penalty=0.0, coupling=COUPLING).sum()

    slope = np.asarray(jax.grad(smooth)(h))
    used = np.asarray(h != 0)
    assert 0.2 < used.mean() < 0.95
    np.testing.assert_allclose(slope[used], -WEIGHT * np.sign(np.asarray(h))[used], atol=1e-9)
    assert (abs(slope[~used]) < WEIGHT).all()


def test_energy_is_twice_the_lasso_objective(params, x):
    h = jax.random.normal(jax.random.key(3), (6, K))
    signals, stacked, weight = psd.as_lasso(params, x, **JOINT)
    halves = objective.loss(signals, stacked, h, weight)
    np.testing.assert_allclose(psd.energy(params, x, h, **JOINT), 2 * halves, rtol=1e-12)


def test_ends_of_the_coupling(params, x):
    """Without it sparse coding, from any start; with a strong one the encoder prediction."""
    free = psd.infer(params, x, l1_penalty=WEIGHT, coupling=0.0, n_steps=4000)
    exact = solvers.fista(x, params.atoms, WEIGHT / 2, tolerance=1e-12, max_iterations=20_000)
    np.testing.assert_allclose(free, exact.codes, atol=1e-6)
    bound = psd.infer(params, x, l1_penalty=WEIGHT, coupling=1e7)
    np.testing.assert_allclose(bound, psd.encode(params, x), atol=1e-6)


def test_plain_steps_never_raise_the_energy(params, x):
    values = [
        psd.energy(params, x, psd.infer(params, x, n_steps=n, momentum=False, **JOINT), **JOINT)
        for n in range(6)
    ]
    prediction = psd.energy(params, x, psd.encode(params, x), **JOINT)
    np.testing.assert_allclose(values[0], prediction, rtol=1e-12)
    assert (np.diff(values, axis=0) < 0).all()


def test_step_moves_down_the_gradient_at_fixed_codes(params, x):
    """Plain gradient descent: what moves is the derivative by differences, atoms then rescaled."""
    rate = 1e-3
    optimizer = optax.sgd(rate)
    state = psd.State(params, optimizer.init(params))
    moved, metrics = psd.step(state, x, optimizer=optimizer, n_steps=5, **JOINT)
    h = psd.infer(params, x, n_steps=5, **JOINT)

    def value(params):
        return psd.energy(params, x, h, **JOINT).mean()

    assert float(metrics['energy']) == pytest.approx(float(value(params)), rel=1e-12)
    for field, at in (('gain', (3,)), ('atoms', (2, 4))):
        eps = np.zeros(getattr(params, field).shape)
        eps[at] = 1e-6
        up, down = (params._replace(**{field: getattr(params, field) + s * eps}) for s in (1, -1))
        slope = (value(up) - value(down)) / 2e-6
        old = np.array(getattr(params, field))
        old[at] -= rate * slope
        if field == 'gain':
            assert float(moved.params.gain[at]) == pytest.approx(old[at], rel=1e-9)
        else:
            gradient = np.asarray(jax.grad(value)(params).atoms)
            assert gradient[at] == pytest.approx(float(slope), rel=1e-6)
            expected = np.asarray(params.atoms) - rate * gradient
            expected /= np.linalg.norm(expected, axis=0)
            np.testing.assert_allclose(moved.params.atoms, expected, rtol=1e-12)
    assert not np.allclose(moved.params.encoder.weight, params.encoder.weight, atol=1e-9)


def test_uncoupled_codes_ignore_the_encoder_which_still_learns(params, x):
    optimizer = optax.sgd(0.1)
    state = psd.State(params, optimizer.init(params))
    moved, metrics = psd.step(state, x, optimizer=optimizer, n_steps=500, uncoupled=True, **JOINT)
    exact = solvers.fista(x, params.atoms, WEIGHT / 2, tolerance=1e-12, max_iterations=5000).codes
    distance = ((np.asarray(exact) - np.asarray(psd.encode(params, x))) ** 2).sum(1).mean()
    assert float(metrics['prediction']) == pytest.approx(distance, rel=1e-4)
    assert float(jnp.abs(moved.params.gain - params.gain).max()) > 1e-3


def planted(n=3000, d=12, k=16, active=2):
    """Signals that are sums of few atoms of a known dictionary."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(d, k))
    true /= np.linalg.norm(true, axis=0)
    codes = np.zeros((n, k))
    for row in codes:
        row[rng.permutation(k)[:active]] = rng.choice([-1, 1], active) * rng.uniform(
            0.6, 1.4, active
        )
    return true, (codes @ true.T).astype(np.float32)


LIGHT = {'l1_penalty': 0.2, 'coupling': 0.05}


@functools.cache
def alternated(n_steps):
    """The planted atoms, signals, and what alternation with that many steps a batch learns of them."""
    true, x = planted()
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 1500))
    first = psd.init(jax.random.key(0), jnp.asarray(x), 16, optimizer)
    run = functools.partial(psd.step, optimizer=optimizer, n_steps=n_steps, **LIGHT)
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.permutation(len(x)) for _ in range(50)]).reshape(-1, 100)
    state, metrics = jax.jit(lambda state: jax.lax.scan(run, state, jnp.asarray(x[rows])))(first)
    return true, jnp.asarray(x[:500]), first.params, state.params, np.asarray(metrics['energy'])


@pytest.fixture(scope='module')
def learned():
    return alternated(10)


@pytest.mark.slow
def test_alternation_recovers_a_planted_dictionary(learned):
    true, _, first, params, energies = learned
    assert energies[-50:].mean() < 0.75 * energies[:50].mean()
    np.testing.assert_allclose(jnp.linalg.norm(params.atoms, axis=0), 1, rtol=1e-5)
    begun, found = (abs(atoms.match(true, np.asarray(p.atoms)).cosine) for p in (first, params))
    assert (begun > 0.9).mean() < 0.5
    assert (found > 0.9).mean() > 0.8


def minimum(params, x):
    """The exact codes of E, and its mean there."""
    exact = solvers.fista(*psd.as_lasso(params, x, **LIGHT), tolerance=1e-5, max_iterations=2000)
    return exact, 2 * float(exact.objective.mean())


@pytest.mark.slow
def test_ten_steps_per_batch_learn_most_of_what_fifty_learn():
    """Means of the exact minimum of E over the signals, after training with each.

    The coupling is light here, so that steps are hard: on image patches ten are as good as fifty.
    """
    one, ten, fifty = (minimum(alternated(n)[3], alternated(n)[1])[1] for n in (1, 10, 50))
    assert abs(ten - fifty) < 0.05 * fifty, (one, ten, fifty)
    assert ten - fifty < 0.25 * (one - fifty), (one, ten, fifty)


def test_ten_steps_from_the_prediction_reach_the_minimum(learned):
    """The lecture's claim: a good prediction leaves about ten steps to do."""
    _, x, _, params, _ = learned
    exact, lowest = minimum(params, x)

    def gap(**options):
        h = psd.infer(params, x, **LIGHT, **options)
        return float(psd.energy(params, x, h, **LIGHT).mean()) / lowest - 1

    zeros = jnp.zeros_like(exact.codes)
    assert gap(n_steps=10) < 1e-2
    assert gap(n_steps=3) < 0.5 * gap(n_steps=3, start=zeros)


def test_pmap_is_jit(learned):
    _, x, _, params, _ = learned
    optimizer = optax.sgd(0.1)
    state = psd.State(params, optimizer.init(params))
    run = functools.partial(psd.step, optimizer=optimizer, **LIGHT)
    single, alone = jax.jit(run)(state, x[:64])
    several, apart = jax.pmap(
        functools.partial(run, reduce=Reduce('devices')), axis_name='devices', in_axes=(None, 0)
    )(state, x[:64].reshape(4, 16, -1))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[0], rtol=2e-4, atol=2e-6),
        (single, alone),
        (several, apart),
    )


def test_thresholding_encoder_has_zeros(params, x):
    code = psd.encode(params, x, lambda a: soft_threshold(a, 0.5))
    assert 0.1 < float((code == 0).mean()) < 0.9


def test_bad_input_is_refused(params, x):
    with pytest.raises(ValueError, match='do not match'):
        psd.infer(params, x[:, :5], **JOINT)
    with pytest.raises(ValueError, match='n_steps to be at least 0, got -1'):
        psd.infer(params, x, n_steps=-1, **JOINT)
    with pytest.raises(TypeError, match='floating'):
        psd.infer(params, jnp.ones((2, D), jnp.int32), **JOINT)
    with pytest.raises(ValueError, match='at least 1'):
        psd.init(jax.random.key(0), x, 0, optax.sgd(0.1))
