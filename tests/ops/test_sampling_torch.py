"""Samplers and grids against torch's, where it is installed: values and both gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import grids, sampling

torch = pytest.importorskip('torch')
PADDINGS = {'zeros': 'zeros', 'edge': 'border', 'reflect': 'reflection'}
KERNELS = {'bilinear': 'bilinear', 'nearest': 'nearest', sampling.cubic(): 'bicubic'}


def both(size, out, kernel, padding, align_corners, dtype):
    """(ours, torch's): values and gradients by images and grid, both with channels last."""
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, *size, 3)).astype(dtype)
    grid = rng.uniform(-1.6, 1.6, (2, *out, len(size))).astype(dtype)
    cotangents = rng.uniform(size=(2, *out, 3)).astype(dtype)

    @jax.jit
    def run(images, grid, cotangents):
        sample = functools.partial(
            sampling.grid_sample, kernel=kernel, padding=padding, align_corners=align_corners
        )
        values, vjp = jax.vjp(sample, images, grid)
        return values, *vjp(cotangents)

    def first(a):
        return torch.from_numpy(np.moveaxis(a, -1, 1).copy())

    theirs, points = first(images).requires_grad_(), torch.from_numpy(grid).requires_grad_()
    values = torch.nn.functional.grid_sample(
        theirs, points, KERNELS[kernel], PADDINGS[padding], align_corners
    )
    values.backward(first(cotangents))
    last = [np.moveaxis(a.detach().numpy(), 1, -1) for a in (values, theirs.grad)]
    return run(images, grid, cotangents), (*last, points.grad.numpy())


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('kernel', KERNELS, ids=KERNELS.get)
def test_equals_torch_in_float64(x64, kernel, padding, align_corners):
    ours, theirs = both((7, 9), (6, 5), kernel, padding, align_corners, np.float64)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('padding', PADDINGS)
def test_equals_torch_in_float32(padding, align_corners):
    ours, theirs = both((7, 9), (6, 5), 'bilinear', padding, align_corners, np.float32)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('kernel', ['bilinear', 'nearest'])
def test_volumes_equal_torch(x64, kernel, padding, align_corners):
    ours, theirs = both((3, 4, 5), (2, 4, 3), kernel, padding, align_corners, np.float64)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize('padding', PADDINGS)
def test_gradients_at_whole_positions_equal_torch(x64, padding):
    images = np.random.default_rng(0).uniform(size=(1, 5, 4, 1))
    grid = np.asarray(grids.grid(grids.affine(), grids.affine().identity[None], (5, 4)))
    _, vjp = jax.vjp(lambda g: sampling.grid_sample(images, g, padding=padding), jnp.asarray(grid))
    points = torch.from_numpy(grid.copy()).requires_grad_()
    torch.nn.functional.grid_sample(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), points, 'bilinear', PADDINGS[padding],
        align_corners=True,
    ).sum().backward()  # fmt: skip
    np.testing.assert_allclose(vjp(jnp.ones((1, 5, 4, 1)))[0], points.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize('size', [(5, 4), (3, 4, 5)], ids=str)
def test_affine_grid_equals_torch(x64, size, align_corners):
    axes = len(size)
    theta = np.random.default_rng(0).normal(size=(2, axes, axes + 1))
    theirs = torch.nn.functional.affine_grid(torch.from_numpy(theta), (2, 1, *size), align_corners)
    ours = grids.grid(grids.affine(axes), theta.reshape(2, -1), size, align_corners)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-12)
