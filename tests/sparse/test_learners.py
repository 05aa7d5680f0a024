"""All learners of dictionaries: one shape, states that are saved and resumed to the same bits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4.sparse.dictionary import lagrange_dual, learners, online, projected_gradient
from lecture4.train import checkpoint

OPTIMIZER = optax.adam(0.02)
LEARNERS = {
    'online': (online.init, online.step),
    'lagrange': (lagrange_dual.init, lagrange_dual.step),
    'gradient': (
        functools.partial(projected_gradient.init, optimizer=OPTIMIZER),
        functools.partial(projected_gradient.step, optimizer=OPTIMIZER),
    ),
}


def batch(n):
    """Signals [60, 9] of few atoms."""
    atoms = np.random.default_rng(0).standard_normal((12, 9)) / 3
    rng = np.random.default_rng(n + 1)
    codes = rng.standard_normal((60, 12)) * (rng.uniform(size=(60, 12)) < 0.2)
    return jnp.asarray(codes @ atoms, jnp.float32)


@pytest.mark.parametrize(
    'learner',
    ['online', *(pytest.param(n, marks=pytest.mark.slow) for n in ('lagrange', 'gradient'))],
)
def test_a_saved_state_resumes_to_the_same_bits(learner, tmp_path):
    init, step = LEARNERS[learner]
    step = jax.jit(functools.partial(step, penalty_weight=0.1))
    state = init(jax.random.key(0), batch(0), 10)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for n in range(4):
        if n == 2:
            checkpoints.save(2, state)
            checkpoints.wait()
        state, metrics = step(state, batch(n), jax.random.key(n))
        assert {'objective', 'reconstruction', 'density', 'dead', 'replaced'} <= set(metrics)
        assert all(value.shape == () for value in metrics.values())
    like = jax.tree.map(
        lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=v.sharding),
        init(jax.random.key(1), batch(9), 10),
    )
    restored = checkpoints.restore(like)
    checkpoints.close()
    assert restored is not None
    n, again = restored
    assert n == 2 and again.step == 2 and type(again) is type(state)
    for n in (2, 3):
        again, _ = step(again, batch(n), jax.random.key(n))
    for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)
    _, metrics = step(state, batch(5).at[3, 2].set(jnp.nan), jax.random.key(5))
    assert not np.isfinite(metrics['objective'])  # what a training loop stops at


def test_a_learner_by_name_is_its_module():
    optimizer = optax.sgd(0.1)
    for name, module in (('online', online), ('lagrange_dual', lagrange_dual)):
        init, step = learners.make(name, 10, 0.1)
        np.testing.assert_array_equal(
            init(jax.random.key(0), batch(0)).atoms,
            module.init(jax.random.key(0), batch(0), 10).atoms,
        )
        assert step.func is module.step and step.keywords == {'penalty_weight': 0.1}
    init, step = learners.make('projected_gradient', 10, 0.1, optimizer=optimizer, n_iterations=3)
    assert init(jax.random.key(0), batch(0)).atoms.shape == (9, 10)
    assert step.keywords == {'penalty_weight': 0.1, 'optimizer': optimizer, 'n_iterations': 3}
    with pytest.raises(ValueError, match='projected_gradient needs an optimizer'):
        learners.make('projected_gradient', 10, 0.1)
    with pytest.raises(ValueError, match="learner 'ksvd'; expected 'online'"):
        learners.make('ksvd', 10, 0.1)  # pyright: ignore[reportArgumentType]
