"""Solvers and learners compile once, and run inside a user's shard_map, whose carries are typed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from lecture4.ops.reduce import Reduce
from lecture4.sparse import implicit, lista, masked, recovery, solvers
from lecture4.sparse.dictionary import lagrange_dual, online, projected_gradient
from lecture4.sparse.objective import LOG, NONNEGATIVE
from lecture4.sparse.solvers.pursuit import pursue
from tests.sparse.solving import METHODS, problem
from tests.tracing import traced

X, D = (jnp.asarray(v) for v in problem(n=16, dtype=np.float32))
OPTIMIZER = optax.sgd(0.1)


def solver(name, **options):
    """Solver of the rows of x with one dictionary, as (x, weight, tolerance) -> codes."""
    solve = getattr(solvers, name)

    def codes(x, weight, tolerance):
        return solve(x, D, weight, tolerance=tolerance, **options).codes

    return codes


FUNCTIONS = {method: solver(method) for method in METHODS}
FUNCTIONS |= {f'{method} in tiles': solver(method, tile=3) for method in METHODS}
FUNCTIONS |= {
    'encode': solver('encode'),
    'encode by admm': solver('encode', method='admm', max_iterations=20),
    'fista, log penalty from l1': solver('fista', penalty=LOG, init='l1'),
    'fista, bfloat16 and polish': solver('fista', bfloat16_iterations=3, polish=True),
    'nonnegative': solver('coordinate_descent', penalty=NONNEGATIVE),
    'stop by steps': solver('coordinate_descent', stop='step'),
    'path': lambda x, weight, tolerance: solvers.path(
        x, D, weight * jnp.asarray([2.0, 1.0]), tolerance=tolerance
    ).codes[1],
    'approximate': lambda x, weight, _: solvers.approximate(x, D, weight),
    'matching_pursuit': lambda x, weight, _: (
        solvers.matching_pursuit(x, D, 3, residual_energy=weight).codes
    ),
    'pursue': lambda x, weight, _: pursue(x, D, weight)[0],
    'masked_codes': lambda x, weight, tolerance: (
        masked.masked_codes(x, jnp.ones_like(x), D, weight, tolerance=tolerance).codes
    ),
    'gradient of codes': lambda x, weight, tolerance: jax.grad(
        lambda x: jnp.sum(implicit.codes(x, D, weight, tolerance=1e-6) ** 2)
    )(x),
    'lista': lambda x, weight, _: lista.encode(lista.init(D, weight, 2), x, 2),
}
# Numbers that are part of the program: a learned encoder is made outside.
COMPILED = [name for name in FUNCTIONS if name not in ('lista', 'gradient of codes')]


@pytest.mark.parametrize('name', COMPILED)
def test_a_second_call_traces_nothing(name):
    """With other signals, another weight and another tolerance."""
    FUNCTIONS[name](X, 0.05, 1e-3)
    with traced() as events:
        FUNCTIONS[name](2 * X, 0.1, 1e-4)
    assert [event for event in events if event[1] not in ('multiply', 'ones_like')] == []


@pytest.mark.parametrize('name', FUNCTIONS)
def test_results_inside_shard_map_are_those_outside(name):
    mesh = jax.make_mesh((4,), ('i',), axis_types=(AxisType.Auto,))
    split = PartitionSpec('i')
    function = functools.partial(FUNCTIONS[name], weight=0.05, tolerance=1e-4)
    if name in ('pursue', 'matching_pursuit', 'approximate', 'lista'):

        def function(x):
            return FUNCTIONS[name](x, 0.05, None)

    sharded = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split))(X)
    np.testing.assert_allclose(sharded, function(X), rtol=1e-2, atol=2e-3)


STEPS = {
    'online': (online.init, functools.partial(online.step, penalty_weight=0.1)),
    'lagrange_dual': (
        lagrange_dual.init,
        functools.partial(lagrange_dual.step, penalty_weight=0.1),
    ),
    'projected_gradient': (
        functools.partial(projected_gradient.init, optimizer=OPTIMIZER),
        functools.partial(projected_gradient.step, penalty_weight=0.1, optimizer=OPTIMIZER),
    ),
}


@pytest.mark.parametrize('name', STEPS)
def test_a_second_step_traces_nothing(name):
    init, step = STEPS[name]
    state = init(jax.random.key(0), X, 10)
    state, _ = step(state, X, jax.random.key(1))
    key = jax.random.key(2)
    with traced() as events:
        step(state, X, key)
    assert events == []


@pytest.mark.parametrize('name', STEPS)
def test_a_step_inside_shard_map_is_the_step_of_all(name):
    mesh = jax.make_mesh((4,), ('i',), axis_types=(AxisType.Auto,))
    init, step = STEPS[name]
    state = init(jax.random.key(0), X, 10)
    split, same = PartitionSpec('i'), PartitionSpec()
    sharded = jax.jit(
        jax.shard_map(
            functools.partial(step, reduce=Reduce('i')),
            mesh=mesh,
            in_specs=(same, split, same),
            out_specs=same,
        )
    )
    new, metrics = sharded(state, X, jax.random.key(1))
    expected, expected_metrics = step(state, X, jax.random.key(1))
    np.testing.assert_allclose(new.atoms, expected.atoms, atol=1e-4)
    np.testing.assert_allclose(metrics['objective'], expected_metrics['objective'], rtol=1e-5)


def test_each_device_may_learn_a_dictionary_of_its_own():
    """The Lagrange dual and block coordinate descent of statistics that differ between devices."""
    mesh = jax.make_mesh((4,), ('i',), axis_types=(AxisType.Auto,))
    split = PartitionSpec('i')

    def learn(x):
        A, B = x.T @ x, x.T @ x
        best = lagrange_dual.solve(A, B)
        return (best.atoms + online.update_atoms(jnp.eye(16), A, B))[None]

    sharded = jax.jit(jax.shard_map(learn, mesh=mesh, in_specs=split, out_specs=split))(X)
    np.testing.assert_allclose(sharded[2], learn(X[8:12])[0], atol=1e-3)


def test_images_are_recovered_inside_shard_map():
    """Without a second compilation outside of it."""
    mesh = jax.make_mesh((4,), ('i',), axis_types=(AxisType.Auto,))
    split = PartitionSpec('i')
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 9, 8)), jnp.float32)
    known = images > 0.3

    def recover(images, known):
        clean = recovery.denoise(images[0], D, 0.1, patch_size=4)
        filled = recovery.inpaint(images[0], known[0], D, 0.05, patch_size=4)
        return (clean + filled)[None]

    sharded = jax.jit(jax.shard_map(recover, mesh=mesh, in_specs=split, out_specs=split))
    alone = recover(images[3:], known[3:])
    np.testing.assert_allclose(sharded(images, known)[3], alone[0], atol=1e-3)
    with traced() as events:
        recovery.denoise(images[1], D, 0.2, patch_size=4, gain=1.2)
        recovery.inpaint(images[1], known[1], D, 0.1, patch_size=4)
    assert [event for event in events if 'getitem' not in str(event[1])] == []
