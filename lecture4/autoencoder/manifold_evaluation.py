"""Evaluation of an autoencoder on the manifold of its data: denoising field, tangents and walks."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lecture4.autoencoder import manifold
from lecture4.ops import random_numbers
from lecture4.ops.losses import squared_error

Map = Callable[[Any], Any]  # [n, d] -> [n, d]


def denoising_records(
    denoisers: Mapping[str, Map],
    points: Mapping[str, Float[Array, '_n d']],
    clean: Float[Array, 'm d'],
    std: float,
) -> list[dict[str, Any]]:
    """Errors of denoisers at noisy points, and of their fields relative to the closed form.

    The closed form, the best denoiser of the training set, is included; set i of `points` uses the noise of key i.

    Args:
      denoisers: Name -> denoiser.
      points: Name -> clean points.
      clean: The training set.
      std: Standard deviation of the noise.

    Returns:
      A record per denoiser and kind of points: `denoiser`, `points`, `squared_error` (summed over
      coordinates) and `field_error` (`manifold.field_error` of r(x) - x).
    """

    @jax.jit
    def measure(key, x):
        noisy = x + std * random_numbers.normal(key, x.shape, x.dtype)
        best = manifold.denoiser(noisy, clean, std)
        denoised = {denoiser: r(noisy) for denoiser, r in denoisers.items()}
        return {
            denoiser: {
                'squared_error': squared_error(x, y).mean(),
                'field_error': manifold.field_error(y - noisy, best - noisy),
            }
            for denoiser, y in {**denoised, 'closed form': best}.items()
        }

    records = []
    for i, (name, x) in enumerate(points.items()):
        measured = measure(jax.random.key(i), x)
        for denoiser in (*denoisers, 'closed form'):
            errors = {kind: float(value) for kind, value in measured[denoiser].items()}
            records.append({'denoiser': denoiser, 'points': name, **errors})
    return records


class OnCurve(NamedTuple):
    """Tangents and a walk of an autoencoder of points on a curve.

    Attributes:
      points: Points at which tangents are computed, at equal distances on the curve.
      directions: First right singular vectors of the Jacobian at these points.
      path: A walk along such directions.
      metrics: `tangent_error`, the median angle in degrees between directions and true tangents;
        `singular_value_ratio`, second over first, mean; `walk_length`; `walk_distance`, the largest
        distance of the walk from a training point.
    """

    points: Float[Array, 'n 2']
    directions: Float[Array, 'n 2']
    path: Float[Array, 'time 2']
    metrics: dict[str, float]


def on_curve(
    reconstruct: Map,
    curve: manifold.Curve,
    clean: Float[Array, 'm 2'],
    *,
    n_steps: int,
    step_size: float,
    n_points: int = 25,
) -> OnCurve:
    """Tangents of a curve from an autoencoder's Jacobian, and a walk that the autoencoder keeps on the curve.

    Args:
      reconstruct: The autoencoder.
      curve: The curve.
      clean: The training points.
      n_steps: Number of steps of the walk.
      step_size: Length of a step.
      n_points: Number of tangents.
    """

    @jax.jit
    def run():
        t = manifold.evenly_spaced(curve, n_points)
        points = curve.point(t)
        directions, values = manifold.tangents(reconstruct, points, 1)
        angles = manifold.angle_between(directions, manifold.tangent(curve, t)[:, None])
        options = {'n_steps': n_steps, 'step_size': step_size}
        path = manifold.tangent_walk(reconstruct, points[:1], **options)[:, 0]
        metrics = {
            'singular_value_ratio': (values[:, 1] / values[:, 0]).mean(),
            'walk_length': jnp.linalg.norm(jnp.diff(path, axis=0), axis=1).sum(),
            'walk_distance': jnp.linalg.norm(path[:, None] - clean[None], axis=2).min(1).max(),
        }
        return points, directions[:, 0], path, angles, metrics

    points, directions, path, angles, others = run()
    metrics = {'tangent_error': float(np.median(np.degrees(angles)))}
    metrics |= {name: float(value) for name, value in others.items()}
    return OnCurve(points, directions, path, metrics)


class Fields(NamedTuple):
    """Denoising fields on a grid in the plane, where the smoothed density is not negligible.

    Attributes:
      points: Positions.
      autoencoder: r(x) - x at the positions.
      closed_form: s^2 grad log p_s(x) at the positions.
      density: (x [w], y [h], p_s [h, w]) on a finer grid.
    """

    points: Float[np.ndarray, 'n 2']
    autoencoder: Float[np.ndarray, 'n 2']
    closed_form: Float[np.ndarray, 'n 2']
    density: tuple[Float[Array, ' w'], Float[Array, ' h'], Float[np.ndarray, 'h w']]


def fields_on_grid(
    reconstruct: Map,
    clean: Float[Array, 'm 2'],
    std: float,
    *,
    reach: float = 1.35,
    n: int = 25,
    n_fine: int = 120,
) -> Fields:
    """The field of an autoencoder and the closed form, at grid points that the noise can reach.

    Args:
      reconstruct: The autoencoder.
      clean: The training points.
      std: Standard deviation of the noise; points farther than 3.5 standard deviations from their posterior mean are
        left out.
      reach: Extent of the grid, -reach to reach in both directions.
      n: Number of grid points per row.
      n_fine: Number of points per row of the density's grid.
    """
    marks, fine = jnp.linspace(-reach, reach, n), jnp.linspace(-reach - 0.05, reach + 0.05, n_fine)
    grid, dense = (jnp.stack(jnp.meshgrid(a, a), axis=-1).reshape(-1, 2) for a in (marks, fine))

    @jax.jit
    def fields(grid, dense):
        best = manifold.denoiser(grid, clean, std) - grid
        return best, reconstruct(grid) - grid, manifold.log_density(dense, clean, std)

    best, field, log_density = map(np.asarray, fields(grid, dense))
    near = np.linalg.norm(best, axis=1) < 3.5 * std
    density = np.exp(log_density).reshape(n_fine, n_fine)
    return Fields(np.asarray(grid)[near], field[near], best[near], (fine, fine, density))


class OnImages(NamedTuple):
    """Tangents and walks of an autoencoder of images.

    Attributes:
      directions: [n, k, d], the directions to which the reconstruction is most sensitive at each image.
      walks: Ten positions at equal distances of each walk along the tangents.
      chains: Ten positions of each Markov chain that alternates noise and denoising.
      metrics: `tangent_energy`, the fraction of the squared Jacobian in the directions;
        `nearest_distance`, the mean distance of the walks' ends to the nearest training image.
    """

    directions: Float[Array, 'n k d']
    walks: Float[Array, 'm 10 d']
    chains: Float[Array, 'm 10 d']
    metrics: dict[str, float]


def on_images(
    reconstruct: Map,
    x: Float[Array, 'n d'],
    clean: Float[Array, 'm d'],
    *,
    k: int,
    n_steps: int,
    step_size: float,
    std: float,
) -> OnImages:
    """Tangents of the first 10 images from an autoencoder's Jacobian; walks and chains from the first 6.

    Args:
      reconstruct: The autoencoder.
      x: Held-out images.
      clean: The training images.
      k: Number of tangent directions.
      n_steps: Number of steps of the walks.
      step_size: Length of a step.
      std: Standard deviation of the chains' noise.
    """
    directions, values = manifold.tangents(reconstruct, x[:10], k)
    walk = manifold.tangent_walk(reconstruct, x[:6], n_steps=n_steps, step_size=step_size, k=k)
    chain = manifold.random_walk(jax.random.key(3), reconstruct, x[:6], n_steps=9, std=std)
    squares = jnp.stack([((end[None] - clean) ** 2).sum(1).min() for end in walk[-1]])
    metrics = {
        'tangent_energy': float((values[:, :k] ** 2).sum() / (values**2).sum()),
        'nearest_distance': float(jnp.sqrt(jnp.maximum(squares, 0)).mean()),
    }
    walk = walk[np.linspace(0, n_steps, 10).astype(int)]
    return OnImages(directions, walk.swapaxes(0, 1), chain.swapaxes(0, 1), metrics)
