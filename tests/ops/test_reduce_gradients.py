"""A mean of gradients over devices is the gradient of the whole batch under pmap, vmap, shard_map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from lecture4.ops.reduce import Reduce


def mean_gradient(params, x, reduce):
    def loss(params):
        return jnp.mean(jnp.sum((x * params['weight'][None, :] - 1) ** 2, axis=1))

    return reduce.mean(jax.grad(loss)(reduce.vary(params)))


@pytest.mark.parametrize('transform', ['pmap', 'vmap', 'shard_map', 'shard_map, unchecked'])
def test_mean_gradients_over_devices_are_the_whole_batchs(transform):
    params = {'weight': jnp.asarray([1.0, -2.0, 0.5])}
    x = jax.random.normal(jax.random.key(0), (8, 3))
    expected = mean_gradient(params, x, Reduce())
    run = functools.partial(mean_gradient, reduce=Reduce('devices'))
    if transform in ('pmap', 'vmap'):
        transform = jax.pmap if transform == 'pmap' else jax.vmap
        mapped = transform(run, axis_name='devices', in_axes=(None, 0))
        grads = jax.tree.map(lambda leaf: leaf[0], mapped(params, x.reshape(4, 2, 3)))
    else:
        grads = jax.jit(
            jax.shard_map(
                run,
                mesh=Mesh(np.array(jax.devices()[:4]), ('devices',)),
                in_specs=(PartitionSpec(), PartitionSpec('devices')),
                out_specs=PartitionSpec(),
                check_vma=transform == 'shard_map',
            )
        )(params, x)
    np.testing.assert_allclose(grads['weight'], expected['weight'], rtol=1e-6)
