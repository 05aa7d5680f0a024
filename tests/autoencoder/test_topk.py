import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lecture4.autoencoder import topk
from lecture4.autoencoder.network import Autoencoder, Dense
from lecture4.ops.reduce import Reduce


@pytest.mark.parametrize('k', [1, 3, 6])
def test_top_k_is_a_sort(k):
    h = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    expected = np.where(h >= np.sort(h, 1)[:, -k, None], h, 0)
    np.testing.assert_array_equal(topk.top_k(jnp.asarray(h), k), expected)


def test_top_k_keeps_k_of_equal_values_and_their_gradients():
    h = jnp.ones((2, 5))
    kept = topk.top_k(h, 2)
    assert kept.sum(1).tolist() == [2, 2]
    slope = jax.grad(lambda v: (topk.top_k(v, 2) * jnp.arange(1.0, 6)[None, :]).sum())(h)
    np.testing.assert_array_equal(slope, [[1, 2, 0, 0, 0]] * 2)


@pytest.mark.parametrize('k', [0, 7])
def test_k_outside_the_latent_dimension_is_refused(k):
    with pytest.raises(
        ValueError, match=f'expected k between 1 and the latent dimension 6, got {k}'
    ):
        topk.top_k(jnp.ones((2, 6)), k)


def problem(width=24, d=8, n=64):
    x = jax.random.normal(jax.random.key(0), (n, d)) + 1.0
    return x, topk.init_params(jax.random.key(1), x, width)


def kill(params, units, bias=-100.0):
    """Units that are never active."""
    (W, c) = params.encoder[0]
    return Autoencoder((Dense(W, c.at[units].set(bias)),), params.decoder)


def start(params, optimizer):
    zeros = jnp.zeros(params.encoder[0].bias.shape)
    return topk.State(params, optimizer.init(params), zeros, zeros)


def test_encoder_and_decoder_start_as_transposes():
    x, params = problem()
    np.testing.assert_allclose(params.encoder[0].weight, params.decoder[0].weight.T)
    np.testing.assert_allclose(jnp.linalg.norm(params.decoder[0].weight, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(params.decoder[0].bias, x.mean(0), rtol=1e-6)


def test_the_loss_is_its_formula():
    x, params = problem()
    (W, c), (U, b) = params.encoder[0], params.decoder[0]
    h = np.maximum((x - b[None, :]) @ W + c[None, :], 0)
    code = np.where(h >= np.sort(h, 1)[:, -3, None], h, 0)
    expected = ((x - code @ U - b[None, :]) ** 2).sum(1)
    value, (_, used, error) = jax.jit(topk.loss, static_argnums=2)(params, x, 3)
    np.testing.assert_allclose(error, expected, rtol=1e-5)
    assert float(value) == pytest.approx(float(expected.mean()), rel=1e-5)
    np.testing.assert_array_equal(used, (code > 0).any(0))


def test_dead_units_have_a_gradient_by_the_auxiliary_loss_only():
    x, params = problem()
    dead = jnp.zeros(24, bool).at[jnp.array([2, 5])].set(True)
    params = kill(params, jnp.array([2, 5]))

    def slope(dead):
        def value(p):
            return topk.loss(p, x, 3, dead=dead, k_auxiliary=2)[0]

        grads = jax.jit(jax.grad(value))(params)
        return np.asarray(abs(grads.decoder[0].weight).sum(1))

    assert (slope(None)[[2, 5]] == 0).all()
    assert (slope(dead)[[2, 5]] > 0).all()
    others = np.delete(np.arange(24), [2, 5])
    np.testing.assert_allclose(slope(dead)[others], slope(None)[others], rtol=1e-5)


def test_the_auxiliary_reconstruction_has_no_second_bias():
    """A dead unit that is exactly the residual's direction leaves nothing of it."""
    direction = jnp.array([0.0, 1, 0])
    # Unit 0 is alive and codes axis 0; unit 1, dead, would code axis 1, all of the residual.
    W = jnp.array([[1.0, 0], [0, 1], [0, 0]])
    bias = jnp.array([5.0, 7, 9])
    params = Autoencoder((Dense(W, jnp.zeros(2)),), (Dense(W.T, bias),))
    x = bias[None, :] + jnp.array([[2.0, 0, 0]]) + 0.5 * direction[None, :]
    value, (metrics, *_) = topk.loss(params, x, 1, dead=jnp.array([False, True]))
    assert float(metrics['reconstruction']) == pytest.approx(0.25)
    assert float(metrics['auxiliary']) == pytest.approx(0, abs=1e-12)
    assert float(value) == pytest.approx(0.25)


def test_idle_time_counts_examples_and_dead_units_are_counted():
    x, params = problem()
    optimizer = optax.sgd(0.0)
    state = start(kill(params, jnp.arange(20)), optimizer)
    step = jax.jit(
        lambda state: topk.step(state, x, jax.random.key(2), optimizer=optimizer, k=3, patience=100)
    )
    seen = []
    for _ in range(3):
        state, metrics = step(state)
        seen.append(float(metrics['dead']))
    assert state.idle[:20].tolist() == [192] * 20  # 3 batches of 64
    assert (state.idle[20:] == 0).all()
    assert seen == [0, 0, 20]


def test_idle_time_is_that_of_all_devices():
    """Four parts count the examples of all, and a unit used in some part is idle in none."""
    x, params = problem()
    optimizer = optax.sgd(0.0)
    state = start(kill(params, jnp.arange(20)), optimizer)
    step = functools.partial(topk.step, optimizer=optimizer, k=3, patience=100)
    values = topk.encode(state.params, x, 3)[:, 20]
    parts = x[jnp.argsort(values)].reshape(4, 16, 8)
    assert (values == 0).sum() >= 16  # the first part never uses unit 20
    step = functools.partial(step, reduce=Reduce('devices'))
    step = jax.jit(jax.vmap(step, in_axes=(None, 0, None), axis_name='devices'))
    state, _ = step(state, parts, jax.random.key(2))
    np.testing.assert_array_equal(state.idle, [[64] * 20 + [0] * 4] * 4)
    assert (state.since_revival == 64).all()


def test_gradients_along_decoder_rows_are_removed():
    x, params = problem()
    grads = jax.tree.map(jnp.ones_like, params)
    flat = topk.tangential(grads, params).decoder[0].weight
    np.testing.assert_allclose((flat * params.decoder[0].weight).sum(1), 0, atol=1e-6)
    optimizer = optax.adam(0.1)
    state = topk.init(jax.random.key(1), x, 24, optimizer)
    step = functools.partial(topk.step, optimizer=optimizer, k=3, patience=1e9)
    state, _ = jax.jit(step)(state, x, jax.random.key(0))
    np.testing.assert_allclose(
        jnp.linalg.norm(state.params.decoder[0].weight, axis=1), 1, rtol=1e-6
    )


def test_revival_aims_only_dead_units_at_the_worst_examples():
    x, params = problem()
    params = kill(params, jnp.arange(4))
    dead = jnp.arange(24) < 4
    error = jnp.zeros(64).at[7].set(1.0)
    new = jax.jit(topk.revive)(jax.random.key(0), params, x, error, dead)
    aim = np.asarray(x[7] - params.decoder[0].bias)
    aim = aim / np.linalg.norm(aim)
    np.testing.assert_allclose(new.decoder[0].weight[:4], np.tile(aim, (4, 1)), rtol=1e-5)
    typical = np.linalg.norm(params.encoder[0].weight[:, 4:], axis=0).mean()
    np.testing.assert_allclose(
        new.encoder[0].weight[:, :4],
        topk.REVIVAL_SCALE * typical * np.tile(aim, (4, 1)).T,
        rtol=1e-5,
    )
    assert (new.encoder[0].bias[:4] == 0).all()
    np.testing.assert_array_equal(new.decoder[0].weight[4:], params.decoder[0].weight[4:])
    np.testing.assert_array_equal(new.encoder[0].weight[:, 4:], params.encoder[0].weight[:, 4:])


def test_examples_are_sampled_in_proportion_to_squared_loss():
    x, params = problem(width=4000)
    error = jnp.zeros(64).at[:2].set(jnp.array([1.0, 3.0]))
    new = jax.jit(topk.revive)(jax.random.key(0), params, x, error, jnp.ones(4000, bool))
    aims = x[:2] - params.decoder[0].bias[None, :]
    aims = aims / jnp.linalg.norm(aims, axis=1, keepdims=True)
    second = (new.decoder[0].weight @ aims[1] > 0.999).mean()
    assert float(second) == pytest.approx(0.9, abs=0.02)


def test_a_step_revives_and_resets_adams_moments():
    x, params = problem()
    optimizer = optax.adam(1e-3)
    state = start(kill(params, jnp.arange(20)), optimizer)

    step = functools.partial(topk.step, optimizer=optimizer, k=3, patience=128, k_auxiliary=4)
    step = jax.jit(step, static_argnames='revive_dead')

    def run(state, n, revive_dead=False):
        for i in range(n):
            state, metrics = step(state, x, jax.random.key(i), revive_dead=revive_dead)
        return state, metrics

    state, _ = run(state, 3)
    assert (abs(state.opt_state[0].mu.decoder[0].weight[:20]).sum(1) > 0).any()
    state, metrics = run(state, 1, revive_dead=True)
    assert metrics['dead'] == 20
    assert (state.since_revival[:20] == 0).all()
    for moments in (state.opt_state[0].mu, state.opt_state[0].nu):
        assert (moments.decoder[0].weight[:20] == 0).all()
        assert (moments.encoder[0].weight[:, :20] == 0).all()
        assert (abs(moments.decoder[0].weight[20:]).sum(1) > 0).any()
    used = jax.jit(lambda p: topk.loss(p, x, 3)[1][1])(state.params)
    assert used[:20].sum() > 5  # they are active again


def test_revived_units_count_as_dead_until_they_are_used():
    x, params = problem()
    optimizer = optax.sgd(0.0)
    state = start(kill(params, jnp.arange(20)), optimizer)
    step = functools.partial(topk.step, optimizer=optimizer, k=3, patience=128, revive_dead=True)
    step = jax.jit(step)
    dead, revived = [], []
    for i in range(7):
        before = state
        state, metrics = step(state, x, jax.random.key(i))
        # A new aim is out of reach again: whatever the data, no example uses these units.
        state = state._replace(params=kill(state.params, jnp.arange(20)))
        dead.append(int(metrics['dead']))
        revived.append(int(jnp.sum(state.since_revival < before.since_revival)))
    assert dead == [0, 0, 20, 20, 20, 20, 20]
    assert revived == [0, 0, 20, 0, 0, 20, 0]


@pytest.mark.cases(1)
@pytest.mark.parametrize('k', [4, 16])
def test_most_revived_units_are_used_at_the_default_scale(k):
    """Half of the units start out of reach of sums of three of 32 sources."""
    rng = np.random.default_rng(0)
    sources = np.zeros((1024, 32), np.float32)
    for row in sources:
        row[rng.choice(32, 3, replace=False)] = rng.uniform(0.5, 1.5, 3)
    mixing = rng.normal(size=(32, 16)).astype(np.float32)
    x = jnp.asarray(sources @ (mixing / np.linalg.norm(mixing, axis=1, keepdims=True)))
    optimizer = optax.adam(3e-3)
    params = kill(topk.init_params(jax.random.key(7), x, 96), jnp.arange(48), -2.0)
    step = functools.partial(
        topk.step, optimizer=optimizer, k=k, patience=1280.0, auxiliary_weight=0.0
    )

    @functools.partial(jax.jit, static_argnames='revive')
    def run(state, revive):
        def body(state, n):
            key = jax.random.fold_in(jax.random.key(8), n)
            rows = jax.random.randint(key, (128,), 0, 1024)
            return step(state, x[rows], key, revive_dead=revive)

        return jax.lax.scan(body, state, jnp.arange(300))

    for revive, least, most in ((True, 36, 48), (False, 0, 0)):
        state, metrics = run(start(params, optimizer), revive)
        used = np.asarray(jax.jit(lambda p: topk.loss(p, x, k)[1][1])(state.params))[:48]
        assert least <= used.sum() <= most, (revive, used.sum())
    assert int(metrics['dead'][-1]) == 48


@pytest.mark.slow
def test_four_devices_count_and_update_as_one():
    """Idle counts, dead units and parameters under shard_map and pmap, by plain gradients."""
    x, params = problem()
    optimizer = optax.sgd(0.05)
    state = start(kill(params, jnp.arange(20)), optimizer)
    step = functools.partial(topk.step, optimizer=optimizer, k=3, patience=100)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ('devices',))
    spec = jax.sharding.PartitionSpec
    parallel = functools.partial(step, reduce=Reduce('devices'))
    by_shard_map = jax.jit(
        jax.shard_map(
            parallel, mesh=mesh, in_specs=(spec(), spec('devices'), spec()), out_specs=spec()
        )
    )

    def by_pmap(state, x, key):
        mapped = jax.pmap(parallel, axis_name='devices', in_axes=(None, 0, None))
        return jax.tree.map(lambda leaf: leaf[0], mapped(state, x.reshape(4, 16, 8), key))

    found = {'one': state, 'shard_map': state, 'pmap': state}
    steps = {'one': jax.jit(step), 'shard_map': by_shard_map, 'pmap': by_pmap}
    for name, run in steps.items():
        for i in range(3):
            found[name], metrics = run(found[name], x, jax.random.key(i))
        assert int(metrics['dead']) == 20
        assert found[name].idle[:20].tolist() == [192] * 20
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            found[name],
            found['one'],
        )


@pytest.mark.slow
def test_dead_units_come_back_by_either_remedy():
    """Half of the units start dead; the data are sparse sums of more sources than the rest hold."""
    sources = jax.random.bernoulli(jax.random.key(5), 0.1, (2048, 32)).astype(jnp.float32)
    mixing = jax.random.normal(jax.random.key(6), (32, 16))
    x = sources @ mixing / 4
    # Out of reach of every example, but not of a thousand steps of Adam.
    params = kill(topk.init_params(jax.random.key(7), x, 40), jnp.arange(20), -2.5)
    assert not (topk.pre_activations(params, x)[:, :20] > 0).any()
    optimizer = optax.adam(3e-3)
    state = start(params, optimizer)
    step = functools.partial(topk.step, optimizer=optimizer, k=4, patience=2000.0, k_auxiliary=8)

    @functools.partial(jax.jit, static_argnames='revive')
    def run(state, auxiliary, revive):
        def body(state, n):
            rows = jax.random.randint(jax.random.fold_in(jax.random.key(8), n), (128,), 0, 2048)
            return step(state, x[rows], jax.random.key(n), auxiliary_weight=auxiliary)

        def block(state, n):
            state, _ = jax.lax.scan(body, state, 100 * n + jnp.arange(99))
            return step(
                state, x[:128], jax.random.key(n), auxiliary_weight=auxiliary, revive_dead=revive
            )

        return jax.lax.scan(block, state, jnp.arange(10))

    for means, auxiliary in (('auxiliary', 1.0), ('revival', 0.0), ('neither', 0.0)):
        found, _ = run(state, auxiliary, means == 'revival')
        used = topk.loss(found.params, x, 4)[1][1]
        n_back = int(used[:20].sum())
        assert n_back == 0 if means == 'neither' else n_back >= 15, (means, n_back)
