import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.autoencoder import rica
from lecture4.features import stimulus

D = 6


@pytest.fixture
def form(x64):
    """A quadratic form x'Ax + b'x: its optima on a sphere are known."""
    A = jax.random.normal(jax.random.key(0), (D, D))
    return A + A.T


def test_optimal_stimulus_of_a_quadratic_form_is_its_first_eigenvector(form):
    starts = jax.random.normal(jax.random.key(1), (5, 2, 3))

    def response(x):
        return x.reshape(-1) @ form @ x.reshape(-1)

    optimum = stimulus.maximize(response, starts, norm=2.0, n_steps=400)
    values, vectors = np.linalg.eigh(form)
    assert float(optimum.responses[0]) == pytest.approx(4 * values[-1], rel=1e-10)
    assert abs(np.asarray(optimum.stimuli[0]).ravel() @ vectors[:, -1]) == pytest.approx(
        2, rel=1e-6
    )
    assert float(optimum.gradient_norms[0]) < 1e-4
    np.testing.assert_allclose(
        jnp.linalg.norm(optimum.stimuli.reshape(5, -1), axis=1), 2, rtol=1e-12
    )
    assert (np.diff(optimum.responses) <= 0).all()


def test_optimal_stimulus_of_a_filter_is_the_filter_and_responses_never_fall(x64):
    w = jax.random.normal(jax.random.key(0), (D,))

    def response(x):
        return jnp.tanh(w @ x)

    starts = jax.random.normal(jax.random.key(1), (1, D))
    reached = [
        float(stimulus.maximize(response, starts, n_steps=n).responses[0]) for n in (1, 3, 9, 99)
    ]
    assert (np.diff(reached) >= 0).all()
    optimum = stimulus.maximize(response, starts, n_steps=99).stimuli[0]
    np.testing.assert_allclose(optimum, w / jnp.linalg.norm(w), atol=1e-5)


@pytest.mark.slow
def test_optimal_stimulus_of_a_pooled_unit_is_that_of_its_quadratic_form(x64):
    """sqrt(e + sum (w'x)^2) over a pool: the first eigenvector of sum w w', all pixels together."""
    shape, stage = (6, 5, 1), rica.Stage(field_size=3, num_filters=2, pool_size=2)
    examples = jax.random.normal(jax.random.key(2), (4, *shape))
    layer = rica.init(jax.random.key(0), examples, stage)

    def response(x):
        return rica.l2_pool(rica.filter_responses(layer, x[None], stage), stage)[0, 1, 0, 1]

    form = np.zeros((30, 30))
    for r, c in ((1, 0), (1, 1), (2, 0), (2, 1)):
        w = np.zeros((6, 5))
        w[r : r + 3, c : c + 3] = np.asarray(layer.encoder[r, c, :, 1]).reshape(3, 3)
        form += np.outer(w.ravel(), w.ravel())
    starts = jax.random.normal(jax.random.key(1), (4, *shape))
    optimum = stimulus.maximize(response, starts, n_steps=600)
    highest = np.sqrt(rica.EPSILON + np.linalg.eigvalsh(form)[-1])
    assert float(optimum.responses[0]) == pytest.approx(highest, rel=1e-8)


def test_invariant_directions_of_a_quadratic_form_are_its_eigenvalue_gaps(form):
    values, vectors = np.linalg.eigh(form)
    x = jnp.asarray(1.5 * vectors[:, -1]).reshape(3, 2)

    def response(x):
        return x.reshape(-1) @ form @ x.reshape(-1)

    curvature, directions = stimulus.invariant_directions(response, x)
    expected = 2 * (values[:-1] - values[-1])
    np.testing.assert_allclose(curvature, expected[::-1], rtol=1e-9)
    cosines = abs(np.asarray(directions).reshape(5, 6) @ vectors[:, :-1][:, ::-1])
    np.testing.assert_allclose(cosines, np.eye(5), atol=1e-9)


def test_great_circles_keep_the_norm_and_curvature_predicts_the_response(form):
    w = jnp.linspace(0.5, 2.0, D)

    def response(x):
        return jnp.exp(-jnp.sum(w * (x - 1.0) ** 2)) + 0.1 * x @ form @ x

    optimum = stimulus.maximize(response, jnp.ones((1, D)), norm=1.3, n_steps=4000)
    x = optimum.stimuli[0]
    curvature, directions = jax.jit(lambda x: stimulus.invariant_directions(response, x))(x)
    respond = jax.jit(jax.vmap(response))
    assert (np.asarray(curvature) < 1e-9).all()
    for i in (0, D - 2):
        stimuli = stimulus.great_circle(x, directions[i], jnp.array([-1e-3, 0.0, 1e-3]))
        np.testing.assert_allclose(jnp.linalg.norm(stimuli, axis=1), 1.3, rtol=1e-12)
        values = respond(stimuli)
        second = (values[0] - 2 * values[1] + values[2]) / 1e-6
        assert float(second) == pytest.approx(1.3**2 * float(curvature[i]), rel=1e-4)


def test_images_are_translated_rotated_and_scaled():
    x = np.random.default_rng(0).normal(size=(7, 7, 2)).astype(np.float32)
    rotated = stimulus.rotate(jnp.asarray(x), jnp.float32(np.pi / 2))
    np.testing.assert_allclose(rotated, np.rot90(x), atol=1e-5)
    moved = np.asarray(stimulus.translate(jnp.asarray(x), jnp.float32(2), jnp.float32(-1)))
    np.testing.assert_allclose(moved[2:, :-1], x[:-2, 1:], atol=1e-6)
    assert not moved[:2].any() and not moved[:, -1].any()
    half = stimulus.translate(jnp.asarray(x), jnp.float32(0), jnp.float32(0.5))
    np.testing.assert_allclose(half[:, 1:], (x[:, 1:] + x[:, :-1]) / 2, atol=1e-6)
    large = stimulus.scale(jnp.asarray(x), jnp.float32(2))
    np.testing.assert_allclose(large[1::2, 1::2], x[2:5, 2:5], atol=1e-6)


def test_tuning_is_the_response_to_changed_stimuli_over_the_original():
    amounts = jnp.array([0.5, 1.0, -2.0])
    curve = stimulus.tuning_curve(jnp.sum, jnp.array([1.0, 2.0]), lambda x, t: t * x, amounts)
    np.testing.assert_allclose(curve, amounts, rtol=1e-6)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match='n_steps=0; expected at least 1'):
        stimulus.maximize(jnp.sum, jnp.ones((1, 2)), n_steps=0)
