"""Momentum against its recursion written out by hand; schedules at their boundaries."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4.train import optimizers


@pytest.mark.parametrize('convention', ['torch', 'caffe'])
def test_momentum_recursion_when_the_learning_rate_changes(convention):
    rates, gradients = [1.0, 1.0, 0.1, 0.1, 0.1], [1.0, -2.0, 0.5, 3.0, 1.0]
    optimizer = optimizers.sgd(lambda step: jnp.array(rates)[step], 0.9, convention)

    def body(carry, g):
        w, opt_state = carry
        update, opt_state = optimizer.update(g, opt_state)
        w = optax.apply_updates(w, update)
        return (w, opt_state), w

    start = jnp.float32(2.0)
    _, result = jax.lax.scan(body, (start, optimizer.init(start)), jnp.array(gradients))
    w, v, expected = 2.0, 0.0, []
    for rate, g in zip(rates, gradients, strict=True):
        if convention == 'torch':
            v = 0.9 * v + g
            w = w - rate * v
        else:
            v = 0.9 * v + rate * g
            w = w - v
        expected.append(w)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_schedule_drops_at_fractions_of_the_run():
    at = optimizers.piecewise_constant(0.4, 100, (0.5, 0.75))
    np.testing.assert_allclose(
        [at(n) for n in (0, 49, 50, 74, 75, 99)], [0.4, 0.4, 0.04, 0.04, 0.004, 0.004], rtol=1e-5
    )
    np.testing.assert_allclose(optimizers.piecewise_constant(0.3, 10, ())(9), 0.3)


@pytest.mark.parametrize('steps, boundary, first', [(2, 0.6, 2), (3, 0.5, 2), (100, 0.55, 55)])
def test_first_lower_rate_is_the_first_step_at_the_boundary(steps, boundary, first):
    at = optimizers.piecewise_constant(1.0, steps, (boundary,))
    assert (float(at(first - 1)), round(float(at(first)), 6)) == (1.0, 0.1)


def test_recipe_scales_decay_biases_and_rates_as_its_fields_say():
    recipe = optimizers.SGDRecipe(
        steps=10, learning_rate=0.5, momentum=0.0, weight_decay=0.1, weight_decay_mask='kernels',
        bias_lr_multiplier=2.0, schedule='staircase', decay_steps=0.1, decay_rate=0.5,
    )  # fmt: skip
    optimizer = optimizers.sgd_recipe(recipe)
    params = {'fc': {'kernel': jnp.float32(2), 'bias': jnp.float32(3)}}
    grads = jax.tree.map(jnp.ones_like, params)
    opt_state = optimizer.init(params)
    for rate in (0.5, 0.25, 0.125):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        assert float(updates['fc']['kernel']) == pytest.approx(-rate * 1.2)
        assert float(updates['fc']['bias']) == pytest.approx(-rate * 2)


def test_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="expected 'torch' or 'caffe', got 'nesterov'"):
        optimizers.sgd(0.1, 0.9, 'nesterov')


def test_weight_decay_mask_leaves_out_biases_and_scales():
    params = {'conv': {'kernel': 1, 'bias': 2}, 'bn': {'scale': 3, 'bias': 4}}
    kernels = optimizers.weight_decay_mask(params)
    assert kernels == {
        'conv': {'kernel': True, 'bias': False},
        'bn': {'scale': False, 'bias': False},
    }
    assert all(jax.tree.leaves(optimizers.weight_decay_mask(params, 'all')))


def test_gradients_of_biases_are_multiplied():
    grads = {'conv1': {'kernel': jnp.ones(2), 'bias': jnp.ones(3)}, 'bn': {'scale': jnp.ones(1)}}
    scaled, _ = optimizers.bias_lr_multiplier(2.0).update(grads, optax.EmptyState())
    assert scaled['conv1']['bias'][0] == 2 and scaled['conv1']['kernel'][0] == 1
    assert scaled['bn']['scale'][0] == 1
