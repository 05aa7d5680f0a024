"""Dictionaries of real patches: the objective falls, atoms keep their bound, devices agree."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy.optimize import minimize
from skimage import data
from sklearn.decomposition import MiniBatchDictionaryLearning

from lecture4.ops.reduce import Reduce
from lecture4.sparse import solvers
from lecture4.sparse.dictionary import init, online
from lecture4.sparse.objective import LOG

WEIGHT = 0.15


@functools.cache
def patches():
    """Patches [6000, 36] of two images, their means subtracted, of mean squared norm 1; shuffled."""
    rng = np.random.default_rng(0)
    rows = []
    for image in (data.camera(), data.coins()):
        i = rng.integers(0, image.shape[0] - 6, 3000)
        j = rng.integers(0, image.shape[1] - 6, 3000)
        rows += [image[a : a + 6, b : b + 6].ravel() for a, b in zip(i, j, strict=True)]
    x = np.asarray(rows, np.float32)
    x -= x.mean(1, keepdims=True)
    x /= np.sqrt((x * x).sum(1).mean())
    return x[rng.permutation(len(x))]


def held_out(D, x, penalty_weight=WEIGHT):
    codes = np.asarray(encode(x, D, penalty_weight).codes, np.float64)
    return (0.5 * ((x - codes @ D.T) ** 2).sum(1) + penalty_weight * abs(codes).sum(1)).mean()


encode = jax.jit(solvers.admm)
update = jax.jit(online.update_atoms)
update_blocks = jax.jit(online.update_atoms, static_argnames='block_size')
step = jax.jit(online.step, static_argnames=('penalty', 'n_iterations', 'block_size', 'reduce'))


def learn(n_steps, *, n_atoms=40, batch=200, norm_bound=1.0, penalty_weight=WEIGHT, **options):
    x = patches()
    state = online.init(jax.random.key(0), x[:500], n_atoms, norm_bound=norm_bound)
    history = []
    for t in range(n_steps):
        rows = slice(200 + t * batch % 5600, 200 + t * batch % 5600 + batch)
        state, metrics = step(
            state,
            x[rows],
            jax.random.key(t),
            penalty_weight=penalty_weight,
            norm_bound=norm_bound,
            **options,
        )
        history.append({name: float(v) for name, v in metrics.items()})
    return state, history


def surrogate(D, A, B):
    return 0.5 * np.trace(D.T @ D @ A) - np.trace(D.T @ B)


def statistics(seed, d=3, k=4):
    rng = np.random.default_rng(seed)
    codes, x = rng.standard_normal((20, k)), 2 * rng.standard_normal((20, d))
    return rng.standard_normal((d, k)), codes.T @ codes / 20, x.T @ codes / 20


def best_atom(D, j, A, B, norm_bound):
    def value(atom):
        moved = D.copy()
        moved[:, j] = atom
        return surrogate(moved, A, B)

    inside = {'type': 'ineq', 'fun': lambda atom: norm_bound - atom @ atom}
    options = {'ftol': 1e-15, 'maxiter': 200}
    return minimize(value, D[:, j], method='SLSQP', constraints=inside, options=options).x


# One pass over the atoms


@pytest.mark.parametrize('norm_bound', [0.3, 1.0, 1e4])
def test_every_atom_moves_to_the_minimum_of_the_surrogate(norm_bound, x64):
    """Against scipy's constrained minimizer of the surrogate by its definition, an atom at a time."""
    for seed in range(3):
        D, A, B = statistics(seed)
        D /= np.maximum(1, np.linalg.norm(D, axis=0) / norm_bound**0.5)
        slow = D.copy()
        for j in range(4):
            slow[:, j] = best_atom(slow, j, A, B, norm_bound)
        fast = np.asarray(online.update_atoms(jnp.asarray(D), A, B, norm_bound))
        np.testing.assert_allclose(fast, slow, atol=2e-5 * norm_bound**0.25)
        assert ((fast * fast).sum(0) <= norm_bound * (1 + 1e-12)).all()
        assert surrogate(fast, A, B) < surrogate(D, A, B)


def test_many_passes_reach_the_minimum_of_the_surrogate(x64):
    """Convex in D: unbounded it is B A^-1; bounded, no direction inside the balls descends."""
    D, A, B = statistics(5)
    free, bound = jnp.asarray(D), jnp.asarray(D)
    for _ in range(300):
        free = update(free, A, B, 1e6)
        bound = update(bound, A, B, 0.5)
    np.testing.assert_allclose(free, np.linalg.solve(A, B.T).T, atol=1e-9)
    slope, bound = np.asarray(bound) @ A - B, np.asarray(bound)
    energy = (bound * bound).sum(0)
    # At a minimum the slope of an atom points to the origin where the bound holds it, or is zero.
    multiplier = -(slope * bound).sum(0) / energy
    np.testing.assert_allclose(slope, -multiplier * bound, atol=1e-9)
    assert (multiplier > -1e-9).all() and (multiplier * (0.5 - energy) < 1e-9).all()
    assert (multiplier > 1e-3).any()


@pytest.mark.cases(1)
@pytest.mark.parametrize('block_size', [3, 7, 40])
def test_blocks_never_raise_the_surrogate_and_reach_the_same_minimum(block_size, x64):
    """Also where codes are dense and atoms correlated, and where k is no multiple of the block."""
    for seed, dense in ((0, 0.3), (1, 1.0)):
        rng = np.random.default_rng(seed)
        codes = rng.standard_normal((60, 10)) * (rng.uniform(size=(60, 10)) < dense) + dense
        x = rng.standard_normal((60, 6))
        A, B = codes.T @ codes / 60, x.T @ codes / 60
        D = blocked = jnp.asarray(rng.standard_normal((6, 10)) / 3)
        value = surrogate(np.asarray(D), A, B)
        for _ in range(20):
            blocked = update_blocks(blocked, A, B, 0.5, block_size=block_size)
            lower = surrogate(np.asarray(blocked), A, B)
            assert lower <= value + 1e-12
            value = lower
        for _ in range(3000):
            D, blocked = (
                update(D, A, B, 0.5),
                update_blocks(blocked, A, B, 0.5, block_size=block_size),
            )
        assert surrogate(np.asarray(blocked), A, B) == pytest.approx(
            surrogate(np.asarray(D), A, B), rel=1e-6
        )


@pytest.mark.slow
def test_learning_by_blocks_is_as_good():
    x = patches()[:200]
    one, blocks = (held_out(np.asarray(learn(25, block_size=b)[0].atoms), x) for b in (1, 16))
    assert blocks < 1.01 * one


def test_an_atom_without_use_stays(x64):
    D, A, B = statistics(6)
    A[2], A[:, 2], B[:, 2] = 0, 0, 0
    moved = np.asarray(online.update_atoms(jnp.asarray(D), A, B, 100.0, block_size=2))
    np.testing.assert_array_equal(moved[:, 2], D[:, 2])
    assert (moved[:, [0, 1, 3]] != D[:, [0, 1, 3]]).all()


# Steps


@pytest.mark.slow
def test_objective_falls_on_patches_of_images():
    x = patches()[:200]
    values = [held_out(np.asarray(learn(n)[0].atoms), x) for n in (0, 1, 10, 60)]
    assert values[0] > values[1] > values[2] > values[3]
    assert values[3] < 0.9 * values[0]
    _, history = learn(60)
    first, last = (np.mean([h['objective'] for h in part]) for part in (history[:5], history[-5:]))
    assert last < 0.9 * first
    assert all(0 < h['density'] < 1 and h['reconstruction'] < h['objective'] for h in history)


def test_as_good_as_scikit_learn_after_the_same_signals():
    x = patches()
    train, test = x[200:5200], x[:200]
    start = online.init(jax.random.key(0), x[:500], 40)
    peer = MiniBatchDictionaryLearning(
        40,
        alpha=WEIGHT,
        max_iter=1,
        batch_size=200,
        fit_algorithm='cd',
        dict_init=np.asarray(start.atoms.T, np.float64),
        shuffle=False,
        tol=0,
        max_no_improvement=None,
    ).fit(train.astype(np.float64))
    theirs = held_out(peer.components_.T.astype(np.float32), test)
    ours = held_out(np.asarray(learn(25)[0].atoms), test)
    before = held_out(np.asarray(start.atoms), test)
    assert theirs < 0.95 * before  # the reference has learned
    assert ours < 1.01 * theirs


@pytest.mark.parametrize('norm_bound', [0.25, 16.0])
def test_norm_bound_is_a_change_of_scale(norm_bound):
    """Atoms of norm sqrt(C) with weight sqrt(C) w are those of norm 1 with w, times sqrt(C)."""
    unit, _ = learn(12)
    state, history = learn(12, norm_bound=norm_bound, penalty_weight=WEIGHT * norm_bound**0.5)
    energy = (np.asarray(state.atoms) ** 2).sum(0)
    assert (energy <= norm_bound * (1 + 1e-5)).all() and (energy > 0.9 * norm_bound).any()
    np.testing.assert_allclose(state.atoms, norm_bound**0.5 * unit.atoms, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(state.A, unit.A / norm_bound, rtol=1e-2, atol=1e-4 / norm_bound)
    assert history[-1]['objective'] == pytest.approx(learn(12)[1][-1]['objective'], rel=1e-4)


@pytest.mark.parametrize('forgetting', [0.0, 1.5])
def test_statistics_are_faded_sums_of_means(forgetting):
    x = patches()
    state = online.init(jax.random.key(0), x[:500], 40)
    A, B = np.zeros((40, 40)), np.zeros((36, 40))
    for t in range(4):
        batch = x[200 * t : 200 * t + (200 if t % 2 else 100)]  # of different sizes
        a = np.asarray(
            solvers.approximate(jnp.asarray(batch), state.atoms, WEIGHT, n_iterations=8), np.float64
        )
        keep = np.clip(1 - forgetting / (t + 1), 0, 1)
        A, B = keep * A + a.T @ a / len(a), keep * B + batch.T @ a / len(a)
        residual = ((batch - a @ np.asarray(state.atoms).T) ** 2).sum(1)
        value = (0.5 * residual + WEIGHT * abs(a).sum(1)).mean()
        old_atoms = state.atoms
        state, metrics = step(
            state, batch, jax.random.key(t), penalty_weight=WEIGHT, forgetting=forgetting
        )
        np.testing.assert_allclose(state.A, A, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state.B, B, rtol=1e-4, atol=1e-6)
        assert float(metrics['objective']) == pytest.approx(value, rel=1e-5)
        assert float(metrics['reconstruction']) == pytest.approx(0.5 * residual.mean(), rel=1e-5)
        assert float(metrics['density']) == pytest.approx((a != 0).mean(), rel=1e-5)
        assert metrics['replaced'] == 0 and state.step == t + 1
        np.testing.assert_allclose(state.atoms, update(old_atoms, state.A, state.B), atol=1e-6)


def test_a_repeated_batch_teaches_the_same():
    x = patches()
    state, _ = learn(2)
    once, _ = step(state, x[:100], jax.random.key(9), penalty_weight=WEIGHT)
    twice, _ = step(state, np.tile(x[:100], (2, 1)), jax.random.key(9), penalty_weight=WEIGHT)
    for one, two in zip(once, twice, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_learning_with_the_log_penalty():
    # Its codes are not sparse, but the objective still falls.
    _, history = learn(30, penalty=LOG)
    assert np.mean([h['objective'] for h in history[-5:]]) < 0.95 * history[0]['objective']


# Unused atoms


def test_unused_atoms_are_replaced_by_badly_coded_signals():
    """Signals of a subspace: an atom outside it, and one of zeros, are never used."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((20, 20)))[0].astype(np.float32)
    codes = rng.standard_normal((400, 6)) * (rng.uniform(size=(400, 6)) < 0.4)
    codes[:, 5] *= 4  # none of the first atoms lies here: these are the badly coded ones
    x = (codes @ basis[:, :6].T).astype(np.float32)
    state = online.init(jax.random.key(0), x, 7)
    atoms = np.concatenate([basis[:, :5], basis[:, 10:11], 0 * basis[:, :1]], axis=1)
    state = state._replace(atoms=jnp.asarray(atoms))
    before = held_out(atoms, x, 0.1)
    state, metrics = step(state, x, jax.random.key(1), penalty_weight=0.1)
    assert metrics['dead'] == 2 and metrics['replaced'] == 2
    new_atoms = np.asarray(state.atoms)[:, 5:]
    np.testing.assert_allclose(np.linalg.norm(new_atoms, axis=0), 1, rtol=1e-5)
    # The worst signals, with some noise that separates two atoms from equal signals.
    losses = np.asarray(encode(x, atoms, 0.1).objective)
    worst = x[np.argsort(-losses)[:2]]
    worst /= np.linalg.norm(worst, axis=1, keepdims=True)
    assert (np.abs((worst @ new_atoms).diagonal()) > 0.999).all()
    assert (abs(basis[:, 5] @ new_atoms) > 0.7).all()
    assert (state.A[5:] == 0).all() and (state.A[:, 5:] == 0).all() and (state.B[:, 5:] == 0).all()
    assert (state.usage[5:] > 0).all()
    # After some steps they are used.
    for t in range(20):
        state, metrics = step(state, x, jax.random.key(2 + t), penalty_weight=0.1)
    assert metrics['dead'] == 0 and (state.usage > 0.02).all()
    assert held_out(np.asarray(state.atoms), x, 0.1) < 0.7 * before


def test_a_replaced_atom_loses_its_statistics():
    """Of an atom that was used a little: A and B would pull the new one to where the old one was."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((20, 20)))[0].astype(np.float32)
    x = (rng.standard_normal((400, 6)) @ basis[:, :6].T).astype(np.float32)
    state = online.init(jax.random.key(0), x, 7)
    state = state._replace(
        atoms=jnp.asarray(np.concatenate([basis[:, :6], basis[:, 10:11]], axis=1)),
        A=jnp.full((7, 7), 0.01) + jnp.eye(7),
        B=jnp.full((20, 7), 0.1),
        usage=jnp.asarray([0.5] * 6 + [1e-3]),
        step=jnp.int32(50),
    )
    state, metrics = step(state, x, jax.random.key(1), penalty_weight=0.1)
    assert metrics['replaced'] == 1
    assert not state.A[6].any() and not state.A[:, 6].any() and not state.B[:, 6].any()
    assert (state.A[:6, :6] != 0).all() and (state.B[:, :6] != 0).all()


def test_replacement_waits_for_uses_and_is_limited_per_step():
    x = patches()
    state = online.init(jax.random.key(0), x[:500], 80)
    # 60 atoms that no signal uses: patches have no mean, these are constant.
    atoms = np.array(state.atoms)
    atoms[:, 20:] = 1 / 6
    state = state._replace(atoms=jnp.asarray(atoms))
    few, metrics = step(state, x[:5], jax.random.key(0), penalty_weight=1.0)
    assert metrics['replaced'] == 0
    many, metrics = step(state, x[:400], jax.random.key(0), penalty_weight=WEIGHT)
    assert metrics['dead'] == 60 and metrics['replaced'] == init.MAX_REPLACED == 32
    cosine = np.asarray(many.atoms[:, 20:52].T @ many.atoms[:, 20:52])
    assert abs(cosine - np.eye(32)).max() < 1 - 1e-6  # all different
    np.testing.assert_array_equal(many.atoms[:, 52:], atoms[:, 52:])
    _, metrics = step(many, x[400:800], jax.random.key(1), penalty_weight=WEIGHT)
    assert metrics['replaced'] == 28
    assert few.step == 1


def test_few_signals_offer_few_replacements():
    x = patches()
    state, _ = learn(3)
    state = state._replace(
        atoms=state.atoms.at[:, :30].set(1 / 6),
        usage=state.usage.at[:30].set(0),
        step=jnp.int32(1000),  # enough uses, by small batches
    )
    state, metrics = step(state, x[:5], jax.random.key(0), penalty_weight=WEIGHT)
    assert metrics['dead'] == 30 and metrics['replaced'] == 5
    assert np.isfinite(state.atoms).all()


# Initialization


def test_init_takes_each_signal_once():
    x = patches()[:60]
    state = online.init(jax.random.key(3), x, 50, norm_bound=4.0)
    np.testing.assert_allclose(np.linalg.norm(state.atoms, axis=0), 2, rtol=1e-5)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ np.asarray(state.atoms) / 2
    assert (cosine.max(0) > 1 - 1e-5).all()
    assert len(set(cosine.argmax(0))) == 50
    np.testing.assert_array_equal(
        state.atoms, online.init(jax.random.key(3), x, 50, norm_bound=4.0).atoms
    )
    other = online.init(jax.random.key(4), x, 50, norm_bound=4.0)
    assert set((unit @ np.asarray(other.atoms)).argmax(0)) != set(cosine.argmax(0))
    assert (state.A == 0).all() and (state.B == 0).all() and state.step == 0
    assert state.A.shape == (50, 50) and state.B.shape == (36, 50) and state.usage.shape == (50,)


def test_init_prefers_signals_that_are_not_zero():
    x = np.zeros((40, 9), np.float32)
    x[::4] = np.random.default_rng(4).standard_normal((10, 9))
    atoms = np.asarray(online.init(jax.random.key(0), x, 10).atoms)
    unit = x[::4] / np.linalg.norm(x[::4], axis=1, keepdims=True)
    assert sorted((unit @ atoms).argmax(0)) == list(range(10))


@pytest.mark.parametrize('kind', ['few', 'equal', 'zero', 'opposite'])
def test_init_adds_noise_where_signals_are_few_or_equal(kind):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((4, 9)).astype(np.float32)
    x = {
        'few': x,
        'equal': np.repeat(x[:1], 30, axis=0),
        'zero': 0 * x,
        'opposite': np.concatenate([x, -2 * x, x]),
    }[kind]
    atoms = np.asarray(online.init(jax.random.key(0), x, 12).atoms)
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=0), 1, rtol=1e-5)
    cosine = abs(atoms.T @ atoms)[np.triu_indices(12, 1)]
    assert cosine.max() < 0.99


# Devices, jit, vmap


@pytest.mark.slow
def test_four_devices_learn_the_same_as_one():
    """Under pmap and over a mesh, through replacements, and with a different key on each device.

    Inside shard_map: test_transformations.
    """
    x = patches()
    start = online.init(jax.random.key(0), x[:500], 40)
    start = start._replace(atoms=start.atoms.at[:, 4].set(1 / 6))  # unused
    on_four = jax.pmap(
        functools.partial(online.step, penalty_weight=WEIGHT, reduce=Reduce('i')),
        axis_name='i',
        in_axes=(0, 0, 0),
    )
    mesh = jax.make_mesh((4,), ('i',), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec('i'))
    one = meshed = start
    several = jax.tree.map(lambda v: jnp.broadcast_to(v, (4, *v.shape)), start)
    for t in range(3):
        batch = x[200 * t : 200 * t + 200]
        key = jax.random.key(t)
        one, metrics = step(one, batch, key, penalty_weight=WEIGHT)
        same = jnp.broadcast_to(key, (4,))
        several, measured = on_four(several, batch.reshape(4, 50, 36), same)
        meshed, over_mesh = step(meshed, jax.device_put(batch, split), key, penalty_weight=WEIGHT)
        for name, value in metrics.items():
            np.testing.assert_allclose(measured[name], value, rtol=1e-4, err_msg=name)
            np.testing.assert_allclose(over_mesh[name], value, rtol=1e-4, err_msg=name)
        assert metrics['replaced'] == (1 if t == 0 else 0)
    for name in start._fields:
        single = getattr(one, name)
        for device in range(4):
            np.testing.assert_allclose(
                getattr(several, name)[device], single, rtol=1e-3, atol=1e-5, err_msg=name
            )
        np.testing.assert_allclose(getattr(meshed, name), single, rtol=1e-3, atol=1e-5)
    # Different keys must not make the devices differ.
    several = jax.tree.map(lambda v: jnp.broadcast_to(v, (4, *v.shape)), start)
    several, measured = on_four(
        several, x[:200].reshape(4, 50, 36), jax.random.split(jax.random.key(7), 4)
    )
    assert (measured['replaced'] == 1).all()
    for leaf in several:
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


@pytest.mark.slow
def test_vmap_over_weights_and_bounds_is_a_loop():
    x = patches()
    state, _ = learn(2)
    weights, bounds = jnp.asarray([0.05, 0.3]), jnp.asarray([1.0, 0.5])

    def one(weight, norm_bound):
        return online.step(
            state,
            jnp.asarray(x[:100]),
            jax.random.key(0),
            penalty_weight=weight,
            norm_bound=norm_bound,
        )

    together, metrics = jax.jit(jax.vmap(one))(weights, bounds)
    for i in range(2):
        alone, measured = step(
            state,
            x[:100],
            jax.random.key(0),
            penalty_weight=float(weights[i]),
            norm_bound=float(bounds[i]),
        )
        np.testing.assert_allclose(together.atoms[i], alone.atoms, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(metrics['objective'][i], measured['objective'], rtol=1e-5)


def test_errors_name_what_was_passed_and_what_is_expected():
    x = jnp.asarray(patches()[:50])
    key = jax.random.key(0)
    with pytest.raises(TypeError, match='signals has dtype int32'):
        online.init(key, x.astype(int), 4)
    with pytest.raises(ValueError, match=r'\(36,\); expected \[n, d\] with n, d >= 1'):
        online.init(key, x[0], 4)
    with pytest.raises(ValueError, match=r'\(0, 36\)'):
        online.init(key, x[:0], 4)
    with pytest.raises(ValueError, match='n_atoms=0; expected at least 1'):
        online.init(key, x, 0)
    state = online.init(key, x, 4)
    with pytest.raises(ValueError, match='no signals'):
        online.step(state, x[:0], key, penalty_weight=0.1)
    with pytest.raises(ValueError, match=r'\(50, 35\) and dictionary D \(36, 4\)'):
        online.step(state, x[:, 1:], key, penalty_weight=0.1)
    with pytest.raises(TypeError, match='x has dtype int32'):
        online.step(state, x.astype(int), key, penalty_weight=0.1)
    with pytest.raises(ValueError, match=r'penalty weight of shape \(5,\)'):
        online.step(state, x, key, penalty_weight=jnp.ones(5))
