"""Windows of learned shapes: Lloyd's steps never lose overlap, windows stay inside."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.vision.detection import window_shapes


def test_overlap_rises_to_the_true_shapes():
    rng = np.random.default_rng(0)
    true = np.array([[0.1, 0.4], [0.5, 0.2], [0.8, 0.9]], np.float32)
    sides = jnp.asarray(
        true[rng.integers(3, size=90)] * rng.uniform(0.97, 1.03, (90, 2)), jnp.float32
    )
    shapes = window_shapes.Shapes(jnp.array([[0.2, 0.4], [0.4, 0.3], [0.9, 0.9]]))
    step = jax.jit(window_shapes.step)
    means = []
    for _ in range(6):
        shapes, metrics = step(shapes, sides)
        means.append(float(metrics['mean_iou']))
    assert means[-1] > 0.95 and all(a <= b + 0.02 for a, b in itertools.pairwise(means))
    np.testing.assert_allclose(shapes.sides, true, atol=0.02)


def test_shapes_without_objects_stay_and_starts_are_objects():
    sides = jnp.full((4, 2), 0.3)
    shapes, _ = window_shapes.step(window_shapes.Shapes(jnp.array([[0.3, 0.3], [0.9, 0.1]])), sides)
    np.testing.assert_allclose(shapes.sides, [[0.3, 0.3], [0.9, 0.1]])
    assert window_shapes.init(jax.random.key(0), sides, 9).sides.shape == (9, 2)


def test_windows_lie_inside_and_are_spread():
    made = window_shapes.windows(np.array([[0.2, 0.5], [1.5, 0.1]]), 60, 90, 50)
    assert made.shape == (50, 4) and made.min() >= 0
    assert made[:, 2].max() <= 90 + 1e-4 and made[:, 3].max() <= 60 + 1e-4
    assert len(np.unique(np.round(made, 3), axis=0)) >= 25
