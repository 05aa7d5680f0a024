"""Poolings compared with loops over windows, and counts with those of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import receptive_field
from lecture4.vision import pooling_sizes

X = np.random.default_rng(0).normal(size=(2, 7, 7, 3)).astype(np.float32)


@pytest.mark.parametrize('pooling', pooling_sizes.poolings((2, 3)), ids=lambda p: p.name)
def test_poolings_are_those_of_a_loop_over_windows(pooling):
    reduce = {'max': np.max, 'mean': np.mean, 'subsample': lambda w, axis: w[:, 0, 0]}
    w, s = pooling.window, pooling.stride
    n = -(-max(7 - w, 0) // s) + 1 if pooling.kind != 'subsample' else -(-7 // s)
    result = np.asarray(pooling(jnp.asarray(X)))
    assert result.shape == (2, n, n, 3)
    for i in range(n):
        for j in range(n):
            part = X[:, i * s : i * s + w, j * s : j * s + w]
            expected = reduce[pooling.kind](part, axis=(1, 2))
            np.testing.assert_allclose(result[:, i, j], expected, rtol=1e-5, atol=1e-6)


def test_overlap_is_that_of_alexnet_and_none_at_width_2():
    names = [pooling.name for pooling in pooling_sizes.poolings((2, 3))]
    expected = ['max-1-1', 'max-2-2', 'mean-2-2', 'subsample-2-2']
    assert names == [*expected, 'max-3-2', 'max-3-3', 'mean-3-2', 'mean-3-3', 'subsample-3-3']


@pytest.mark.parametrize('pooling', pooling_sizes.poolings((3,)), ids=lambda p: p.name)
def test_counts_are_those_of_the_network(pooling):
    network = pooling_sizes.Network(pooling, 4, 3, 10)
    variables = jax.jit(network.init)(jax.random.key(0), X)
    rows = receptive_field.summarize(network.stack(), X.shape[1:])
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert receptive_field.totals(rows)[0] == count


def test_few_labels_train_the_network_on_their_images_alone():
    labels = np.arange(20) % 2
    x = np.zeros((20, 4, 4, 1), np.float32)
    x[labels == 1, :2] = 1
    network = pooling_sizes.Network(pooling_sizes.Pooling('max', 2, 2), 2, 3, 2)
    options = {'num_trials': 2, 'steps': 60, 'batch_size': 8, 'learning_rate': 0.05}
    records, variables = pooling_sizes.few_label_records(
        'network', network, (x, labels), (x, labels), num_labels=(10, 99), **options
    )
    assert [record['num_labels'] for record in records] == [10, 20]
    assert all((record['accuracy'] == 1).all() for record in records)
    # All 20 images but one class in the batches: the other class is never predicted.
    rows = np.zeros((60, 8), np.int32)
    only_first = pooling_sizes.fit(network, x, labels, rows, learning_rate=0.05)
    predicted = np.asarray(network.apply(only_first, x)[0]).argmax(1)
    assert (predicted == 0).all() and variables is not None
