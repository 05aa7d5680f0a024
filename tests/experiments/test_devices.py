"""Three steps of every experiment on four CPU devices give the state and metrics of one device."""

import jax
import numpy as np
import pytest

from lecture4.train import cli, experiment
from lecture4.train.sharding import device_mesh
from lecture4.train.step import compile_task
from tests.experiments import listing

FASTEST = ('linear', 'family', 'natural_image_bases')


def train(bound, n_devices):
    """(initial state, state after three steps, metrics of these)."""
    compiled = compile_task(bound, device_mesh(jax.devices()[:n_devices]))
    state = compiled.init()
    initial = jax.device_get(state)
    rows = []
    for n in range(3):
        state, metrics = compiled.run_steps(state, n, 1)
        rows.append(jax.device_get(metrics))
    return initial, jax.device_get(state), rows


@pytest.mark.cases(len(FASTEST))
@pytest.mark.parametrize('name', listing.first(*FASTEST))
def test_four_devices_train_as_one(name):
    this = listing.load(name)
    config = cli.parse(this, ['--preset', 'smoke', '--batch_size', '16'])
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        data = experiment.load(this, config)
        bound = experiment.build_bound(this, config, data)
        initial, one, metrics_of_one = train(bound, 1)
        _, four, metrics_of_four = train(bound, 4)

    for ours, theirs in zip(metrics_of_four, metrics_of_one, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours:
            np.testing.assert_allclose(ours[key], theirs[key], 2e-3, 1e-5, err_msg=key)
    moved = False
    leaves = zip(*map(jax.tree_util.tree_leaves_with_path, (initial, one, four)), strict=True)
    for (path, start), (_, expected), (_, actual) in leaves:
        # Adam divides gradients by their own size, so that rounding moves single numbers: norms are compared.
        start, expected, actual = (np.asarray(x, np.float64) for x in (start, expected, actual))
        change = np.linalg.norm(expected - start)
        moved |= change > 0
        error = np.linalg.norm(actual - expected)
        assert error <= 0.01 * change + 1e-6, jax.tree_util.keystr(path)
    assert moved
