"""Solvers and learners compile once, and run inside a user's shard_map, whose carries are typed.

Both are properties of the trace, found out without compiling: a call traces its compiled functions, a
second one finds them in JAX's cache; carries whose types differ are refused when a loop is traced.
"""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lecture4.ops.reduce import Reduce
from lecture4.sparse import implicit, lista, masked, recovery, solvers
from lecture4.sparse.dictionary import lagrange_dual, online, projected_gradient
from lecture4.sparse.objective import L1, LOG, NONNEGATIVE
from lecture4.sparse.solvers.pursuit import pursue
from tests.sparse.solving import METHODS, few, problem
from tests.tracing import traced

X, D = (jnp.asarray(v) for v in problem(n=4 * jax.device_count(), dtype=np.float32))
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
    'lagrange_dual.solve': lambda x, *_: lagrange_dual.solve(x.T @ x, x.T @ x).atoms,
    'online.update_atoms': lambda x, *_: online.update_atoms(jnp.eye(16), x.T @ x, x.T @ x),
    'denoise': lambda x, *_: recovery.denoise(x, D, 0.1, patch_size=4),
    'inpaint': lambda x, *_: recovery.inpaint(x, x > 0, D, 0.05, patch_size=4),
}
# A learned encoder is initialized outside of the compiled program; the others compile their own.
COMPILED = [name for name in FUNCTIONS if name not in ('lista', 'gradient of codes')]
N = jax.device_count()
MESH = jax.make_mesh((N,), ('i',), axis_types=(AxisType.Auto,))
SPLIT, SAME = PartitionSpec('i'), PartitionSpec()


def trace(function, *args):
    """Traces the function anew; compiled functions that it calls may be in the cache."""
    return jax.eval_shape(lambda *args: function(*args), *args)


def retraced(function, *args):
    """How many products a second call traces: none, where all are in compiled functions."""
    trace(function, *args)
    with mock.patch.object(jnp, 'matmul', wraps=jnp.matmul) as matmul:
        trace(function, *args)
    return matmul.call_count


@pytest.mark.cases(2)
@pytest.mark.parametrize('name', COMPILED)
def test_a_second_call_traces_nothing(name):
    """Weight and tolerance are arguments of the compiled function."""
    assert retraced(FUNCTIONS[name], X, 0.05, 1e-3) == 0


def test_a_static_option_that_is_new_at_every_call_is_noticed():
    def codes(x):
        penalty = L1._replace(prox=lambda v, t: L1.prox(v, t))
        return solvers.fista(x, D, 0.05, penalty=penalty).codes

    assert retraced(codes, X) > 0


@pytest.mark.parametrize('name', few('coordinate_descent', of=COMPILED))
def test_a_second_call_compiles_nothing(name):
    """With other signals, another weight and another tolerance."""
    other = 2 * X
    FUNCTIONS[name](X, 0.05, 1e-3)
    with traced() as events:
        FUNCTIONS[name](other, 0.1, 1e-4)
    assert events == []


def inside_shard_map(name):
    function = functools.partial(FUNCTIONS[name], weight=0.05, tolerance=1e-4)
    if name in ('pursue', 'matching_pursuit', 'approximate', 'lista') or '.' in name:

        def function(x):
            return FUNCTIONS[name](x, 0.05, None)

    elif name in ('denoise', 'inpaint'):
        function = FUNCTIONS[name]
    return function, jax.shard_map(function, mesh=MESH, in_specs=SPLIT, out_specs=SPLIT)


@pytest.mark.cases(2)
@pytest.mark.parametrize('name', FUNCTIONS)
def test_loops_run_inside_shard_map(name):
    function, sharded = inside_shard_map(name)
    outside, inside = trace(function, X), trace(sharded, X)
    # results that are no rows of X come once per device
    assert jax.tree.structure(inside) == jax.tree.structure(outside)
    for a, b in zip(jax.tree.leaves(inside), jax.tree.leaves(outside), strict=True):
        assert a.dtype == b.dtype and a.shape[1:] == b.shape[1:]


@pytest.mark.parametrize(
    'name', few('coordinate_descent in tiles', of=[n for n in FUNCTIONS if '.' not in n])
)
def test_results_inside_shard_map_are_those_outside(name):
    function, sharded = inside_shard_map(name)
    alone = jax.jit(function)
    whole = [alone(part) for part in X.reshape(N, -1, 16)]
    np.testing.assert_allclose(jax.jit(sharded)(X), jnp.concatenate(whole), rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize('name', few('fista', of=[n for n in FUNCTIONS if '.' not in n]))
def test_results_of_an_array_over_devices_are_those_of_one(name):
    """The compiler divides the program."""
    function, _ = inside_shard_map(name)
    whole = jax.jit(function)(X)
    rows = NamedSharding(MESH, SPLIT)
    divided = jax.jit(function, in_shardings=rows, out_shardings=rows)(jax.device_put(X, rows))
    np.testing.assert_allclose(divided, whole, rtol=1e-2, atol=2e-3)


STEPS = {
    'online': (online.init, online.step),
    'lagrange_dual': (lagrange_dual.init, lagrange_dual.step),
    'projected_gradient': (
        functools.partial(projected_gradient.init, optimizer=OPTIMIZER),
        functools.partial(projected_gradient.step, optimizer=OPTIMIZER),
    ),
}


@pytest.mark.parametrize('name', STEPS)
def test_a_second_step_traces_nothing(name):
    init, step = STEPS[name]
    state = init(jax.random.key(0), X, 10)

    def update(state, x, key, weight):
        return step(state, x, key, penalty_weight=weight)

    assert retraced(update, state, X, jax.random.key(1), 0.1) == 0


@pytest.mark.parametrize('name', STEPS)
def test_steps_run_inside_shard_map(name):
    state, sharded = sharded_step(name)
    new, _ = trace(sharded, state, X, jax.random.key(1))
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)


def sharded_step(name):
    init, step = STEPS[name]
    sharded = jax.shard_map(
        functools.partial(step, penalty_weight=0.1, reduce=Reduce('i')),
        mesh=MESH,
        in_specs=(SAME, SPLIT, SAME),
        out_specs=SAME,
    )
    return init(jax.random.key(0), X, 10), sharded


@pytest.mark.parametrize('name', few('online', of=STEPS))
def test_a_step_inside_shard_map_is_the_step_of_all(name):
    state, sharded = sharded_step(name)
    new, metrics = jax.jit(sharded)(state, X, jax.random.key(1))
    expected, expected_metrics = STEPS[name][1](state, X, jax.random.key(1), penalty_weight=0.1)
    np.testing.assert_allclose(new.atoms, expected.atoms, atol=1e-4)
    np.testing.assert_allclose(metrics['objective'], expected_metrics['objective'], rtol=1e-5)


@pytest.mark.slow
def test_each_device_may_learn_a_dictionary_of_its_own():
    """The Lagrange dual and block coordinate descent of statistics that differ between devices."""

    def learn(x):
        A, B = x.T @ x, x.T @ x
        best = lagrange_dual.solve(A, B)
        return (best.atoms + online.update_atoms(jnp.eye(16), A, B))[None]

    sharded = jax.jit(jax.shard_map(learn, mesh=MESH, in_specs=SPLIT, out_specs=SPLIT))(X)
    np.testing.assert_allclose(sharded[2], learn(X.reshape(N, -1, 16)[2])[0], atol=1e-3)
