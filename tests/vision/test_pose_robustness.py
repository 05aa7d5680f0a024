"""Accuracies and rotations of made-up networks whose outputs are known; equivariance of a trained one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4.data.images import distort
from lecture4.vision import pose_robustness
from lecture4.vision import spatial_transformer as st


def run(images):
    """Predicts class 1 where the image is bright, and turns by its first pixel."""
    mean = np.mean(images, axis=(1, 2, 3))
    angle = -images[:, 0, 0, 0]  # counterclockwise on the screen is from y to x
    c, s, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    theta = np.stack([c, -s, zero, s, c, zero], axis=1)[:, None]
    return np.stack([0.5 - mean, mean - 0.5], axis=1), {'input/theta': theta}


def test_accuracies_are_fractions_for_each_pose_and_network():
    bright, dark = np.ones((3, 4, 4, 1)), np.zeros((3, 4, 4, 1))
    series = {'light': (np.array([0.0, 1.0]), [dark, bright])}
    measured = pose_robustness.accuracies({'A': run}, series, np.array([1, 1, 0]))
    values, lines = measured['light']
    np.testing.assert_array_equal(values, [0, 1])
    np.testing.assert_allclose(lines['A'], [1 / 3, 2 / 3])


def test_rotations_are_relative_and_counterclockwise():
    angles = np.array([-0.5, 0.0, 0.3, 3.5])
    posed = [np.full((2, 4, 4, 1), 0.2 + angle) for angle in angles]
    expected = np.rad2deg([-0.5, 0, 0.3, 3.5 - 2 * np.pi])
    turned = pose_robustness.rotations(run, np.rad2deg(angles), posed)
    np.testing.assert_allclose(turned, [expected] * 2, atol=1e-4)


def test_theta_of_a_trained_transformer_turns_with_its_input():
    """Trained to undo rotations of one shape, it samples a region that turns by as much as the input."""
    y, x = np.mgrid[-1:1:12j, -1:1:12j]
    shape = np.exp(-8 * ((x - 0.3) ** 2 + y**2)) + np.exp(-8 * (x**2 + (y - 0.3) ** 2))
    angles = np.linspace(-0.8, 0.8, 17).astype(np.float32)
    upright = np.tile(
        shape.astype(np.float32)[None, ..., None] / shape.max(), (len(angles), 1, 1, 1)
    )
    images = jax.jit(distort.place, static_argnums=2)(upright, distort.Pose(angles), 12)
    layer, optimizer = st.SpatialTransformer(st.LocalizationMLP((16,))), optax.adam(1e-2)

    @jax.jit
    def train(images):
        variables = layer.init(jax.random.key(0), images)

        def loss(variables):
            return jnp.mean((layer.apply(variables, images)[0] - upright) ** 2)

        def step(carry, _):
            variables, state = carry
            updates, state = optimizer.update(jax.grad(loss)(variables), state)
            return (optax.apply_updates(variables, updates), state), ()

        return jax.lax.scan(step, (variables, optimizer.init(variables)), length=800)[0][0]

    with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
        variables = train(images)

    @jax.jit
    def network(x):
        warped, theta = layer.apply(variables, x)
        return warped, {'input/theta': theta}

    posed = [images[i : i + 1] for i in range(len(angles))]
    turned = np.deg2rad(pose_robustness.rotations(network, np.rad2deg(angles), posed)[0])
    slope = np.polyfit(angles, turned, 1)[0]
    assert 0.8 < slope < 1.2 and np.abs(turned - angles).max() < 0.3
