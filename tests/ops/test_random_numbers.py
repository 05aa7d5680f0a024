"""Random numbers: the values of jax.random, without its loop on CPUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import random_numbers


@pytest.mark.parametrize('shape', [(), (0,), (7,), (3, 5, 2), (100, 784)])
@pytest.mark.parametrize('seed', [0, 7, 2**31 - 1])
def test_uniform_and_normal_equal_those_of_jax(shape, seed):
    key = jax.random.key(seed)
    for name in ('uniform', 'normal'):
        found = getattr(random_numbers, name)(key, shape)
        expected = getattr(jax.random, name)(key, shape)
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float64])
def test_other_dtypes_equal_those_of_jax(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        for name in ('uniform', 'normal'):
            found = getattr(random_numbers, name)(jax.random.key(1), (50,), dtype)
            expected = getattr(jax.random, name)(jax.random.key(1), (50,), dtype)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize(
    'make', [jax.random.PRNGKey, lambda seed: jax.random.key(seed, impl='rbg')]
)
def test_other_keys_give_the_numbers_of_jax(make):
    np.testing.assert_array_equal(
        random_numbers.normal(make(3), (20,)), jax.random.normal(make(3), (20,))
    )


def test_transformed_calls_equal_those_of_jax():
    keys = jax.random.split(jax.random.key(2), 8)
    expected = np.stack([jax.random.uniform(key, (30,)) for key in keys])

    def draw(key):
        return random_numbers.uniform(key, (30,))

    np.testing.assert_array_equal(jax.vmap(draw)(keys), expected)
    np.testing.assert_array_equal(jax.lax.map(draw, keys), expected)
    mesh = jax.make_mesh((4,), ('data',))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
    np.testing.assert_array_equal(jax.jit(jax.vmap(draw), out_shardings=sharding)(keys), expected)


def test_on_cpus_no_loop_is_left_in_the_program():
    def loops(draw):
        return jax.jit(draw).lower(jax.random.key(0)).compile().as_text().count(' while(')

    assert loops(lambda key: jax.random.uniform(key, (64, 64))) > 0
    assert loops(lambda key: random_numbers.uniform(key, (64, 64))) == 0
