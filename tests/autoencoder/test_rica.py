import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.autoencoder import rica, rica_units
from lecture4.autoencoder.rica import Stage

STAGE = Stage(field_size=3, num_filters=2, stride=2, pool_size=2, contrast_window=3)
SHAPE = (9, 7, 2)  # 4 x 3 places, 3 x 2 pools


def init(shape, stage, tied=False, dtype=jnp.float64):
    """A layer made from random numbers."""
    x = jax.random.normal(jax.random.key(7), (4, *shape), dtype)
    return rica.init(jax.random.key(0), x, stage, tied=tied)


@pytest.fixture
def layer(x64):
    return init(SHAPE, STAGE)


@pytest.fixture
def x(x64):
    return jax.random.normal(jax.random.key(1), (5, *SHAPE))


def by_hand(layer, x):
    """Every unit's receptive field, one after another, in loops."""
    x, W = np.asarray(x), np.asarray(layer.encoder)
    h = np.zeros((len(x), 4, 3, 2))
    for r, c, m in np.ndindex(4, 3, 2):
        field = x[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3]
        h[:, r, c, m] = (field * W[r, c, :, m].reshape(3, 3, 2)).sum((1, 2, 3))
    return h


def test_filters_are_local_and_not_shared(layer, x):
    np.testing.assert_allclose(
        rica.filter_responses(layer, x, STAGE), by_hand(layer, x), atol=1e-12
    )


def test_a_unit_depends_on_its_receptive_field_only(layer, x):
    stages = [STAGE, Stage(field_size=2, num_filters=3, pool_size=1, contrast_window=3)]
    inner = init((3, 2, 2), stages[1])

    def unit(x):  # without normalization between, whose windows reach further
        below = rica.l2_pool(rica.filter_responses(layer, x, STAGE), STAGE)
        return rica.filter_responses(inner, below, stages[1])[0, 1, 0, 2]

    seen = np.asarray(jax.jit(jax.grad(unit))(x[:1]))[0].any(-1)
    rows, cols = rica_units.receptive_field(stages, (1, 0))
    assert seen[rows, cols].all()
    assert seen.sum() == seen[rows, cols].size < seen.size


def test_tied_reconstruction_is_the_adjoint_of_the_filters(layer, x):
    tied = rica.Layer(layer.encoder, None)
    h = jax.random.normal(jax.random.key(3), (5, 4, 3, 2))
    one = jnp.vdot(rica.filter_responses(tied, x, STAGE), h)
    other = jnp.vdot(x, rica.reconstruct(tied, h, SHAPE, STAGE))
    assert float(one) == pytest.approx(float(other), rel=1e-12)


def test_pools_are_roots_of_sums_of_squares(layer, x):
    h = by_hand(layer, x)
    expected = np.zeros((5, 3, 2, 2))
    for r, c in np.ndindex(3, 2):
        expected[:, r, c] = np.sqrt(0.01 + (h[:, r : r + 2, c : c + 2] ** 2).sum((1, 2)))
    found = rica.l2_pool(jnp.asarray(h), STAGE, epsilon=0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize('tied', [True, False])
def test_loss_and_gradient_are_those_of_the_definition(x, tied):
    layer = init(SHAPE, STAGE, tied)

    @jax.jit
    def value_and_grad(layer):
        def value(layer):
            values = rica.loss(layer, x, STAGE, sparsity_penalty=0.3)[0]
            return values.mean(), values

        return jax.value_and_grad(value, has_aux=True)(layer)

    (_, values), grads = value_and_grad(layer)
    h = by_hand(layer, x)
    V = np.asarray(layer.encoder).swapaxes(2, 3) if tied else np.asarray(layer.decoder)
    back = np.zeros(x.shape)
    for r, c, m in np.ndindex(4, 3, 2):
        part = h[:, r, c, m, None, None, None] * V[r, c, m].reshape(3, 3, 2)
        back[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3] += part
    pools = np.asarray(rica.l2_pool(jnp.asarray(h), STAGE)).sum((1, 2, 3))
    expected = ((back - x) ** 2).sum((1, 2, 3)) + 0.3 * pools
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    direction = jax.tree.map(
        lambda w: np.random.default_rng(5).standard_normal(w.shape).astype(w.dtype), layer
    )
    up = jax.tree.map(lambda w, d: w + 1e-6 * d, layer, direction)
    down = jax.tree.map(lambda w, d: w - 1e-6 * d, layer, direction)
    slope = float((value_and_grad(up)[0][0] - value_and_grad(down)[0][0]) / 2e-6)
    inner = jax.tree.map(np.vdot, grads, direction)
    assert float(sum(jax.tree.leaves(inner))) == pytest.approx(slope, rel=1e-6)


@pytest.mark.cases(1)
@pytest.mark.parametrize('k', [5, 12])
def test_one_field_on_whitened_data_is_reconstruction_ica(x64, k):
    """E||W'Wx - x||^2 = ||W'W - I||^2 = ||W W' - I||^2 + d - k, exactly for whitened samples."""
    d, n = 9, 50
    x = np.random.default_rng(0).normal(size=(n, d))
    x = np.sqrt(n) * np.linalg.qr(x - x.mean(0))[0]  # covariance I to the last bit
    stage = Stage(field_size=3, num_filters=k, pool_size=1)
    layer = init((3, 3, 1), stage, tied=True)
    W = np.asarray(layer.encoder[0, 0]).T
    _, metrics = rica.loss(layer, jnp.asarray(x.reshape(n, 3, 3, 1)), stage)
    reached = float(metrics['reconstruction'])
    assert reached == pytest.approx(((W.T @ W - np.eye(d)) ** 2).sum(), rel=1e-10)
    assert reached == pytest.approx(((W @ W.T - np.eye(k)) ** 2).sum() + d - k, rel=1e-10)


def test_initial_filters_are_patches_scaled_to_reconstruct_best(x64):
    shape, stage = (8, 8, 1), Stage(field_size=4, num_filters=3, stride=2)
    x = np.random.default_rng(1).standard_normal((30, *shape))
    layer = jax.jit(lambda x: rica.init(jax.random.key(0), x, stage))(x)
    error_of = jax.jit(lambda layer: rica.loss(layer, x, stage)[1]['reconstruction'])
    pieces = np.asarray(x)[:, 2:6, 4:8].reshape(30, 16)
    filters = np.asarray(layer.encoder[1, 2]).T
    cosine = filters @ pieces.T / np.linalg.norm(filters, axis=1)[:, None]
    assert (cosine / np.linalg.norm(pieces, axis=1) > 0.99).sum(1).tolist() == [1, 1, 1]
    error = [error_of(layer._replace(encoder=s * layer.encoder)) for s in (0.97, 1, 1.03)]
    assert error[1] < min(error[0], error[2])


def test_layers_are_learned_one_by_one(x64):
    stages = (STAGE, Stage(field_size=2, num_filters=3, pool_size=1, contrast_window=3))
    found = rica.shapes(SHAPE, stages)
    assert found == [SHAPE, (3, 2, 2), (2, 1, 3)]
    layers = tuple(init(*sizes) for sizes in zip(found[:-1], stages, strict=True))
    x = jax.random.normal(jax.random.key(1), (5, *SHAPE))

    @jax.jit
    def run(layers):
        def values(layers):
            value = rica.layer_loss(layers, x, 1, stages)[0]
            return value.mean(), value

        grads, value = jax.grad(values, has_aux=True)(layers)
        outputs = rica.apply(layers, x, stages)
        return grads, value, outputs, rica.loss(layers[1], outputs[0]['contrast'], stages[1])[0]

    grads, value, outputs, expected = run(layers)
    assert not np.any(grads[0].encoder) and np.any(grads[1].encoder)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert outputs[1]['pooled'].shape == (5, 2, 1, 3)


def test_a_units_response_is_that_of_the_central_position(layer, x):
    outputs = jax.jit(lambda x: rica.apply((layer,), x, (STAGE,))[0])(x[:1])
    for kind, place in (('filters', (2, 1)), ('pooled', (1, 1))):
        value = jax.jit(rica_units.unit_response((layer,), (STAGE,), kind, 1))(x[0])
        assert float(value) == pytest.approx(abs(float(outputs[kind][(0, *place, 1)])), rel=1e-12)


def test_sublayer_outputs_are_those_of_apply_in_tiles(layer, x):
    outputs = rica_units.sublayer_outputs((layer,), x, (STAGE,), tile=3)
    assert list(outputs) == ['pixels', 'filters 1', 'pooled 1']
    expected = rica.apply((layer,), x, (STAGE,))[0]
    np.testing.assert_allclose(outputs['pooled 1'], expected['pooled'].reshape(5, -1), rtol=1e-12)
    np.testing.assert_array_equal(outputs['pixels'], x.reshape(5, -1))


def test_central_units_are_the_responses_of_each_sublayer(layer, x):
    units = rica_units.central_units((STAGE,))
    assert {name: n for name, (_, n) in units.items()} == {'filters 1': 2, 'pooled 1': 2}
    response, _ = units['pooled 1']
    expected = rica_units.unit_response((layer,), (STAGE,), 'pooled', 1)(x[0])
    assert float(response((layer,), 1, x[0])) == float(expected)
    field = rica_units.central_receptive_field((STAGE,), SHAPE)
    assert field == rica_units.receptive_field((STAGE,), (1, 1))


def test_stage_losses_are_means_of_the_layers_losses(layer, x):
    (loss,) = rica.stage_losses((STAGE,), (0.3,))
    value, parts = loss((layer,), x)
    values, expected = rica.layer_loss((layer,), x, 0, (STAGE,), sparsity_penalty=0.3)
    assert float(value) == float(values.mean()) and set(parts) == set(expected)
    metrics = rica.evaluate_layers([loss], (layer,), x)
    assert set(metrics) == {'loss/layer_1', 'reconstruction/layer_1', 'sparsity/layer_1'}
    assert float(metrics['loss/layer_1']) == float(value)


def test_contrast_normalization_is_the_definition_inside(layer, x):
    """Interior places, by the definition, with a window that holds the whole map."""
    stage = STAGE._replace(contrast_window=5)
    out = rica.apply((layer,), x, (stage,), min_std=0.01)[0]
    v = np.asarray(out['contrast'])
    sigma = 5 / 4
    g = np.exp(-0.5 * ((np.arange(3)[:, None] - np.arange(3)) / sigma) ** 2)
    G = [g[:n, :n] / g[:n, :n].sum(1, keepdims=True) for n in v.shape[1:3]]
    p = np.asarray(out['pooled'])

    def blur(a):
        return np.einsum('ij,kl,njlc->nik', G[0], G[1], a)[..., None] / a.shape[-1]

    centered = p - blur(p)
    expected = centered / np.maximum(0.01, np.sqrt(blur(centered**2)))
    np.testing.assert_allclose(v, expected, rtol=1e-9, atol=1e-12)


def test_bad_input_is_refused(x):
    with pytest.raises(ValueError, match='layer 2 does not fit'):
        rica.shapes(SHAPE, (STAGE, Stage(field_size=4, num_filters=1)))
    with pytest.raises(ValueError, match='num_filters to be at least 1, got 0'):
        init(SHAPE, STAGE._replace(num_filters=0))
    layer = init(SHAPE, STAGE, dtype=jnp.float32)
    with pytest.raises(ValueError, match='expected images of the size'):
        rica.filter_responses(layer, jnp.ones((1, 11, 7, 2), jnp.float32), STAGE)
    with pytest.raises(TypeError, match='floating'):
        rica.filter_responses(layer, jnp.ones((1, *SHAPE), jnp.int32), STAGE)
