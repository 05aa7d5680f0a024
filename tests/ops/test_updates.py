"""One optimizer step: equal to optax by hand, under strict promotion, with a line search."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4.ops.updates import apply_gradients

PARAMS = {'weight': jnp.asarray([[1.0, -2.0], [0.5, 3.0]]), 'bias': jnp.asarray([0.1, 0.2])}
GRADS = {'weight': jnp.asarray([[0.5, 1.0], [-1.0, 2.0]]), 'bias': jnp.asarray([1.0, -1.0])}


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    'optimizer', [optax.sgd(0.1, momentum=0.9), optax.adam(0.1), optax.adadelta(1.0)]
)
def test_two_steps_equal_optax_by_hand(optimizer):
    params, opt_state = PARAMS, optimizer.init(PARAMS)
    expected, expected_state = PARAMS, optimizer.init(PARAMS)
    for _ in range(2):
        params, opt_state = apply_gradients(optimizer, GRADS, opt_state, params)
        with jax.numpy_dtype_promotion('standard'):
            updates, expected_state = optimizer.update(GRADS, expected_state, expected)
        expected = jax.tree.map(jnp.add, expected, updates)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    jax.tree.map(np.testing.assert_array_equal, opt_state, expected_state)


def test_adam_steps_under_strict_promotion_and_jit():
    optimizer = optax.adam(0.1)
    step = jax.jit(functools.partial(apply_gradients, optimizer))
    params, _ = step(GRADS, optimizer.init(PARAMS), PARAMS)
    # Adam's first step is the sign of the gradient times the learning rate.
    moved = jax.tree.map(lambda p, g: p - 0.1 * jnp.sign(g), PARAMS, GRADS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, moved)


def test_parameters_keep_their_dtype():
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 10))
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    grads = jax.tree.map(lambda g: g.astype(jnp.bfloat16), GRADS)
    moved, _ = apply_gradients(optimizer, grads, optimizer.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype('bfloat16')}


def test_a_line_search_receives_its_arguments():
    def value_fn(params):
        return jnp.sum((params['weight'] - 1) ** 2) + jnp.sum(params['bias'] ** 2)

    optimizer = optax.lbfgs()

    @jax.jit
    def step(params):
        value, grads = jax.value_and_grad(value_fn)(params)
        search = {'value': value, 'grad': grads, 'value_fn': value_fn}
        moved, _ = apply_gradients(optimizer, grads, optimizer.init(params), params, **search)
        return value, value_fn(moved)

    value, after = step(PARAMS)
    assert after < value
