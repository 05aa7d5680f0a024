"""The fits compile once, and run inside a user's shard_map, whose carries have to be typed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from lecture4.classifiers import newton, softmax, svm
from tests.tracing import traced

RNG = np.random.default_rng(0)
LABELS = np.arange(24) % 3
N = jax.device_count()
X = (RNG.standard_normal((N, 24, 5)) + 2 * np.eye(3, 5)[LABELS]).astype(np.float32)
FITS = {
    'svm.fit': svm.fit,
    'svm.fit_gram': svm.fit_gram,
    'hinge': functools.partial(svm.fit, loss='hinge'),
    'newton.fit': newton.fit,
    'newton.fit_gram': newton.fit_gram,
    'softmax.fit': softmax.fit,
    'softmax.fit_gram': softmax.fit_gram,
    'softmax with a scaled bias': functools.partial(softmax.fit, bias_scale=1.0),
}


def data(name):
    return jnp.asarray(X @ X.swapaxes(1, 2) if 'gram' in name else X)


@pytest.mark.cases(2)
@pytest.mark.parametrize('name', FITS)
def test_a_second_fit_traces_nothing(name):
    x = data(name)
    FITS[name](x[0], LABELS, n_classes=3, C=0.5)
    with traced() as events:
        FITS[name](x[1], LABELS, n_classes=3, C=2.0, tolerance=1e-3, max_iterations=9)
    assert not events


@pytest.mark.cases(2)
@pytest.mark.parametrize('name', FITS)
def test_a_fit_inside_shard_map_is_the_fit_alone(name):
    """One training set on each device; labels and C are the same on all."""
    x = data(name)
    mesh = jax.make_mesh((N,), ('i',), axis_types=(AxisType.Auto,))

    def one(part):
        fit = FITS[name](part[0], jnp.asarray(LABELS), n_classes=3)
        return jax.tree.map(lambda v: v[None], fit)

    split = PartitionSpec('i')
    fits = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=split, out_specs=split))(x)
    alone = FITS[name](x[3], LABELS, n_classes=3)
    np.testing.assert_allclose(fits.objective[3], alone.objective, rtol=1e-4)
    np.testing.assert_allclose(fits.weights[3], alone.weights, rtol=1e-2, atol=1e-2)
    assert fits.converged.all()
