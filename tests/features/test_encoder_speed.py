"""Learned encoders compared with stopped solvers: errors, speedups and curves of known accuracies."""

import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.features import encoder_speed
from lecture4.features.encoder_speed import Accuracy
from lecture4.sparse import objective

MEASURED = {
    ('learned', 0): Accuracy(0.3, 0.5, 2.0),
    ('learned', 1): Accuracy(0.1, 0.0, 4.0),
    ('FISTA', 1): Accuracy(0.4, 0.6, 6.0),
    ('ADMM', 1): Accuracy(0.3, 0.4, 10.0),
    ('FISTA', 8): Accuracy(0.2, 0.3, 30.0),
    ('ADMM', 8): Accuracy(0.01, 0.01, 50.0),
}


def test_speedups_are_over_solvers_of_no_larger_error():
    first, second = encoder_speed.speedups(MEASURED)
    assert first['layers'] == 0 and first['error'] == 0.3 and first['time'] == 2.0
    assert first['FISTA iterations'] == 8 and first['speedup_FISTA'] == 15
    assert first['ADMM iterations'] == 1 and first['speedup_ADMM'] == 5
    assert second['FISTA iterations'] == '> 8' and 'speedup_FISTA' not in second
    assert second['speedup_ADMM'] == 12.5


def test_curves_are_of_every_method_and_bounded_below():
    curves = encoder_speed.against_time(MEASURED, 'excess')
    assert list(curves) == ['learned', 'FISTA', 'ADMM']
    times, values = curves['learned']
    assert times.tolist() == [2, 4] and values.tolist() == [0.5, 1e-7]


def test_measured_errors_are_those_of_the_codes():
    rng = np.random.default_rng(0)
    D = jnp.asarray(np.linalg.qr(rng.standard_normal((6, 6)))[0], jnp.float32)
    x = jnp.asarray(rng.standard_normal((9, 6)), jnp.float32)
    exact = jnp.sign(x @ D) * jnp.maximum(jnp.abs(x @ D) - 0.3, 0)
    encoders = {('learned', 0): lambda x: 0.9 * exact} | encoder_speed.stopped_solvers(D, 0.3, (1,))
    assert list(encoders) == [('learned', 0), ('FISTA', 1), ('ADMM', 1)]
    measured = encoder_speed.measure(encoders, x, exact, D, 0.3, num_repeats=1)
    assert measured['learned', 0].error == pytest.approx(0.01, rel=1e-4)
    assert measured['FISTA', 1].error < 1e-4  # one step is enough for orthonormal atoms
    losses = [objective.loss(x, D, a, 0.3).mean() for a in (0.9 * exact, exact)]
    assert measured['learned', 0].excess == pytest.approx(
        float(losses[0] / losses[1]) - 1, rel=1e-3
    )
    assert all(accuracy.time > 0 for accuracy in measured.values())
