"""Codes of predictive sparse decomposition: records of a known order, exact methods at the minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.autoencoder import code_comparison, network, psd

TERMS = {'l1_penalty': 0.6, 'coupling': 0.7, 'activation': jnp.tanh}


@pytest.fixture(scope='module')
def problem():
    atoms = jax.random.normal(jax.random.key(0), (6, 8))
    atoms = atoms / jnp.linalg.norm(atoms, axis=0, keepdims=True)
    encoder = network.Dense(0.4 * jax.random.normal(jax.random.key(1), (6, 8)), jnp.zeros(8))
    params = psd.Params(atoms, encoder, jnp.ones(8))
    return params, jax.random.normal(jax.random.key(2), (5, 6))


@pytest.fixture(scope='module')
def records(problem):
    methods = code_comparison.encoders(n_steps=200, **TERMS)
    seconds = {name: 5e-6 * (i + 1) for i, name in enumerate(methods)}
    rows = code_comparison.compare_codes(methods, *problem, 'energy minimum', seconds, **TERMS)
    return {record['codes']: record for record in rows}


def test_records_of_codes_are_those_of_their_definition(problem, records):
    params, x = problem
    h = psd.encode(params, x)
    record, least = records['encoder'], records['energy minimum']['energy']
    energy = float(psd.energy(params, x, h, **TERMS).mean())
    assert record['energy'] == pytest.approx(energy, rel=1e-6)
    assert record['excess'] == pytest.approx(energy / least - 1, rel=1e-4)
    assert record['density'] == 1  # tanh has no zeros
    assert record['time_per_patch'] == pytest.approx(1)  # microseconds of 5e-6 s for 5 signals
    error = x - h @ params.atoms.T
    ratio = float((x * x).sum() / (error * error).sum())
    assert record['snr'] == pytest.approx(10 * np.log10(ratio), rel=1e-5)


def test_exact_methods_reach_the_minimum_of_their_objective(records):
    assert records['energy minimum']['excess'] == 0
    assert abs(records['inferred']['excess']) < 1e-4 < records['encoder']['excess']
    lasso = {name: record['lasso_excess'] for name, record in records.items()}
    assert max(lasso['sparse coding, ADMM'], lasso['sparse coding, coordinate descent']) < 1e-3
    assert min(lasso['encoder'], lasso['energy minimum']) > 1e-3
    assert min(record['excess'] for record in records.values()) > -1e-4


def test_excess_falls_with_steps_from_both_starts(problem, records):
    least = records['energy minimum']['energy']
    curves = code_comparison.excess_by_steps(*problem, (0, 3, 100), least, **TERMS)
    assert list(curves) == ['from the prediction', 'from zero']
    for steps, excess in curves.values():
        assert steps.tolist() == [0, 3, 100]
        assert excess[0] > excess[1] > excess[2] and abs(excess[2]) < 1e-4
    first = records['encoder']['excess']
    assert curves['from the prediction'][1][0] == pytest.approx(first, rel=1e-4)
