"""Best stimuli, tuning curves and invariant paths of units whose optimum is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.features import unit_stimuli


@pytest.fixture(scope='module')
def filters():
    return jax.random.normal(jax.random.key(0), (2, 6, 6, 1))


def response(filters, unit, x):
    return jnp.sum(filters[unit] * x)


def test_best_stimulus_of_a_linear_unit_is_its_filter(filters):
    crops = jax.random.normal(jax.random.key(1), (10, 6, 6, 1))
    units = {'filters 1': (response, 2)}
    stimuli, tunings = unit_stimuli.search_all(units, filters, crops, max_units=9, num_steps=60)
    best, curves = stimuli['filters 1'], tunings['filters 1']
    assert best.shape == (2, 6, 6, 1)
    np.testing.assert_allclose(np.linalg.norm(best.reshape(2, -1), axis=1), 6, rtol=1e-5)
    expected = 6 * filters / jnp.linalg.norm(filters.reshape(2, -1), axis=1).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(best, expected, atol=2e-3)
    assert set(curves) == set(unit_stimuli.TRANSFORMS)
    for name, unchanged in (('shift, pixels', 0), ('rotation, degrees', 0), ('scale', 1)):
        amounts, values = curves[name]
        assert values[np.argmin(abs(amounts - unchanged))] == pytest.approx(1, abs=1e-4)
        assert values.max() < 1 + 1e-4


def test_paths_begin_at_the_best_stimulus_and_differ_in_curvature():
    weight = jnp.zeros((6, 6, 1)).at[0, 0, 0].set(3.0).at[1, 1, 0].set(2.9)

    def energy(x):  # hardly falls from pixel (0, 0) towards (1, 1), and to 0 towards the others
        return jnp.sum(weight * x * x)

    best = jnp.zeros((6, 6, 1)).at[0, 0, 0].set(1.0)
    angles = np.array([0.0, 0.5])
    field = (slice(0, 3), slice(0, 2))
    paths = unit_stimuli.invariant_paths(energy, best, angles, field)
    assert list(paths) == ['flattest', '2nd', '3rd', 'steepest']
    for stimuli, relative in paths.values():
        assert stimuli.shape == (2, 3, 2, 1) and relative[0] == pytest.approx(1)
        np.testing.assert_allclose(stimuli[0], best[:3, :2], atol=1e-6)
    flattest, steepest = (paths[name][1][1] for name in ('flattest', 'steepest'))
    assert flattest == pytest.approx(1 - np.sin(0.5) ** 2 * 0.1 / 3, abs=1e-4)
    assert steepest == pytest.approx(np.cos(0.5) ** 2, abs=1e-4)
