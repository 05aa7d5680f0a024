"""Learned encoders: they start as ISTA and learn to do better."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4 import train
from lecture4.ops.reduce import Reduce
from lecture4.sparse import lista, solvers

WEIGHT = 0.1


def problem(n, d=16, k=24, seed=0):
    """Signals of few atoms, and their exact codes."""
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((d, k))
    D = jnp.asarray(D / np.linalg.norm(D, axis=0), jnp.float32)
    rng = np.random.default_rng(seed + 1)
    codes = rng.standard_normal((n, k)) * (rng.uniform(size=(n, k)) < 0.12)
    x = jnp.asarray(codes, jnp.float32) @ D.T
    x = x + 0.02 * jnp.asarray(rng.standard_normal((n, d)), jnp.float32)
    return x, D, solvers.fista(x, D, WEIGHT, tolerance=1e-6).codes


@pytest.mark.parametrize('n_layers', [0, 1, 4])
@pytest.mark.parametrize('tied', [True, False])
def test_an_untrained_encoder_is_ista(n_layers, tied):
    x, D, _ = problem(30)
    weight = jnp.linspace(0.05, 0.15, 24)
    encoder = lista.init(D, weight, n_layers, tied=tied)
    peer = solvers.ista(
        x, D, weight, max_iterations=n_layers + 1, check_every=n_layers + 1, tolerance=0.0
    )
    # Signals whose codes are zero take no iterations.
    assert set(np.asarray(peer.iterations).tolist()) == {0, n_layers + 1}
    np.testing.assert_allclose(lista.encode(encoder, x, n_layers), peer.codes, atol=1e-5)
    assert encoder.S.shape == (1 if tied else max(n_layers, 1), 24, 24)
    assert encoder.log_threshold.shape == (1 if tied else n_layers + 1, 24)


def fit(n_layers, tied, n_steps=150):
    x, D, codes = problem(2000)

    def loss(encoder, rows, key):
        return lista.loss(encoder, x[rows], codes[rows], n_layers), {}

    task = train.optimize(
        lambda key, batch: lista.init(D, WEIGHT, n_layers, tied=tied), loss, optax.adam(3e-3)
    )
    state = task.init(jax.random.key(0), None)
    step = jax.jit(functools.partial(task.step, reduce=Reduce()))
    for n in range(n_steps):
        rows = jnp.asarray(np.random.default_rng(n).integers(0, 2000, 100))
        state, _ = step(state, rows, jax.random.key(n))
    return state.params


@pytest.mark.slow
@pytest.mark.parametrize('tied', [True, False])
def test_learned_layers_beat_more_iterations_of_ista(tied):
    _, D, _ = problem(1)
    rng = np.random.default_rng(9)
    codes = rng.standard_normal((500, 24)) * (rng.uniform(size=(500, 24)) < 0.12)
    held_out = jnp.asarray(codes, jnp.float32) @ D.T
    exact = solvers.fista(held_out, D, WEIGHT, tolerance=1e-6).codes
    learned = lista.prediction_error(lista.encode(fit(2, tied), held_out, 2), exact)
    plain = {
        n: lista.prediction_error(
            solvers.ista(held_out, D, WEIGHT, max_iterations=n, check_every=n, tolerance=0.0).codes,
            exact,
        )
        for n in (3, 9)
    }
    assert learned < plain[9] < plain[3]
    assert float(learned) < 0.5 * float(plain[3])


@pytest.mark.slow
def test_gradients_pass_through_the_shared_layers(x64):
    x, D, codes = (np.float64(v) for v in problem(6, d=5, k=7))
    encoder = lista.init(jnp.asarray(D), WEIGHT, 2)

    def loss(encoder):
        return lista.loss(encoder, x, codes, 2)

    slopes = jax.grad(loss)(encoder)
    rng = np.random.default_rng(0)
    for name, slope in slopes._asdict().items():
        direction = rng.standard_normal(slope.shape)
        moved = [
            loss(encoder._replace(**{name: getattr(encoder, name) + sign * 1e-6 * direction}))
            for sign in (1, -1)
        ]
        assert float(jnp.sum(slope * direction)) == pytest.approx(
            float(moved[0] - moved[1]) / 2e-6, rel=1e-5
        )


def test_errors_name_what_is_expected():
    D = jnp.eye(4)
    with pytest.raises(ValueError, match='n_layers=-1'):
        lista.init(D, 0.1, -1)
    with pytest.raises(ValueError, match='n_layers=3 for an encoder of 2 layers'):
        lista.encode(lista.init(D, 0.1, 2, tied=False), jnp.ones((1, 4)), 3)
    with pytest.raises(ValueError, match='penalty weight of shape'):
        lista.init(D, jnp.ones((3, 1)), 2)
    assert lista.prediction_error(jnp.zeros((2, 3)), jnp.ones((2, 3))) == 1
