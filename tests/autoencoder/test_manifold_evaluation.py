"""Measures of maps whose field, tangents and walks are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.autoencoder import manifold, manifold_evaluation


def onto_circle(x):
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def test_the_closed_form_has_no_field_error_and_the_identity_has_no_field():
    clean = manifold.spaced_points(manifold.CIRCLE, 100)
    records = manifold_evaluation.denoising_records(
        {'identity': lambda x: x}, {'training': clean, 'few': clean[:20]}, clean, 0.1
    )
    names = [(r['denoiser'], r['points']) for r in records]
    assert names == [(d, p) for p in ('training', 'few') for d in ('identity', 'closed form')]
    identity, best = records[:2]
    assert best['field_error'] == 0 and identity['field_error'] == pytest.approx(1)
    assert identity['squared_error'] == pytest.approx(2 * 0.1**2, rel=0.3)
    assert best['squared_error'] < identity['squared_error']


def test_projection_onto_the_circle_knows_its_tangents():
    clean = manifold.spaced_points(manifold.CIRCLE, 100)
    found = manifold_evaluation.on_curve(
        onto_circle, manifold.CIRCLE, clean, n_steps=20, step_size=0.1, n_points=5
    )
    assert found.points.shape == found.directions.shape == (5, 2) and found.path.shape == (21, 2)
    assert found.metrics['tangent_error'] < 0.01
    assert found.metrics['singular_value_ratio'] == pytest.approx(0, abs=1e-6)
    assert found.metrics['walk_length'] == pytest.approx(20 * 0.1, rel=0.01)
    assert found.metrics['walk_distance'] < 2 * np.pi / 100 / 2 + 1e-3


def test_fields_are_those_of_the_map_and_of_the_data_near_them():
    clean = manifold.spaced_points(manifold.CIRCLE, 100)
    fields = manifold_evaluation.fields_on_grid(onto_circle, clean, 0.1, n=8, n_fine=20)
    distance = abs(np.linalg.norm(fields.points, axis=1) - 1)
    assert 0 < len(fields.points) < 64 and distance.max() < 0.36
    np.testing.assert_allclose(fields.autoencoder, fields.closed_form, atol=0.03)
    x, y, density = fields.density
    assert len(x) == len(y) == 20 and density.shape == (20, 20) and (density >= 0).all()


def test_images_of_a_plane_keep_their_directions_and_walks_stay_in_it():
    rng = np.random.default_rng(0)
    basis = jnp.asarray(np.linalg.qr(rng.normal(size=(9, 2)))[0].T, jnp.float32)
    clean = jnp.asarray(rng.normal(size=(40, 2)), jnp.float32) @ basis

    def project(x):
        return (x @ basis.T) @ basis

    found = manifold_evaluation.on_images(
        project, clean[:12], clean, k=2, n_steps=18, step_size=0.1, std=0.1
    )
    assert found.metrics['tangent_energy'] == pytest.approx(1, abs=1e-5)
    assert found.walks.shape == found.chains.shape == (6, 10, 9)
    for path in (found.walks, found.chains):
        flat = path.reshape(-1, 9)
        np.testing.assert_allclose(project(flat), flat, atol=1e-5)
    ends = np.asarray(found.walks[:, -1])
    nearest = np.linalg.norm(ends[:, None] - np.asarray(clean)[None], axis=2).min(1)
    assert found.metrics['nearest_distance'] == pytest.approx(nearest.mean(), rel=1e-3)
