"""A convolution for networks whose gradients are fast on a CPU too; on other devices it is XLA's.

XLA's CPU backend computes a gradient with respect to the kernel at a tenth of the speed of the
forward pass, and a 1 x 1 convolution at half the speed of the equivalent matrix product (measured in
tests/benchmarks/vision_speed.py). `conv_general_dilated` replaces lax's in flax's Conv:

    nn.Conv(64, (3, 3), conv_general_dilated=conv_cpu.conv_general_dilated)

With the optional packages of `lecture4[onednn]`, oneDNN computes what it is faster at: see ops/onednn.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lecture4.ops import onednn
from lecture4.ops.varying import vary_like, vary_together

NUMBERS = ('NHWC', 'HWIO', 'NHWC')
CHUNK_POSITIONS = 2048  # positions of the output in one matrix product
FEW_CHANNELS = 4


def conv_general_dilated(
    x: Float[Array, 'n *size c'],
    kernel: Float[Array, '*window c_in_group o'],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> Float[Array, 'n *out o']:
    """`lax.conv_general_dilated` of images [n, h, w, c] and kernels [kh, kw, c, o], same values.

    Gradient: reverse mode only, unless the kernel is as large as the image. Convolutions that are dilated or grouped,
    of another rank or layout, or with padding given as a string, are computed by lax.

    Args:
      x: Images.
      kernel: Filters.
      window_strides: This and the others as in lax.
      padding: (low, high) per axis, or a string.
      lhs_dilation: Dilation of the images.
      rhs_dilation: Dilation of the kernel.
      dimension_numbers: Layout.
      feature_group_count: Number of groups of channels.
      precision: Precision of the products.
    """
    is_nhwc = (
        x.ndim == 4 and _is_nhwc(dimension_numbers, x, kernel) and not isinstance(padding, str)
    )
    dilated = any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    if not is_nhwc or dilated or feature_group_count != 1:
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            precision=precision,
        )
    strides, pairs = tuple(window_strides), tuple((low, high) for low, high in padding)
    if kernel.shape[:2] == x.shape[1:3] and not any(map(any, pairs)):
        return _one_window(x, kernel, precision)
    # In a user's shard_map a custom gradient needs operands that both vary, or both do not.
    x, kernel = vary_together(x, kernel)
    return _conv(x, kernel, strides, pairs, precision)


def _is_nhwc(numbers, x, kernel):
    return numbers is not None and lax.conv_dimension_numbers(
        x.shape, kernel.shape, numbers
    ) == lax.conv_dimension_numbers(x.shape, kernel.shape, NUMBERS)


def _one_window(x, kernel, precision):
    """A kernel as large as the image is a dense layer, and computed faster as one on every device."""
    columns = kernel.reshape(-1, kernel.shape[-1])
    y = jnp.matmul(x.reshape(len(x), len(columns)), columns, precision=precision)
    return y[:, None, None, :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, kernel, strides, padding, precision):
    return _convolve(x, kernel, strides=strides, padding=padding, precision=precision)


@onednn.accelerated('forward')
def _convolve(x, kernel, *, strides, padding, precision):
    by_xla = functools.partial(_by_xla, strides=strides, padding=padding, precision=precision)
    if not _is_product(kernel, padding):
        return by_xla(x, kernel)

    def product(x, kernel):
        return jnp.tensordot(_strided(x, strides), kernel[0, 0], 1, precision=precision)

    return lax.platform_dependent(x, kernel, cpu=product, default=by_xla)


def _by_xla(x, kernel, strides, padding, precision):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=NUMBERS, precision=precision
    )


def _forward(x, kernel, strides, padding, precision):
    return _conv(x, kernel, strides, padding, precision), (x, kernel)


def _backward(strides, padding, precision, saved, g):
    x, kernel = saved

    def by_xla(x, kernel, g):
        forward = functools.partial(_by_xla, strides=strides, padding=padding, precision=precision)
        return jax.vjp(forward, x, kernel)[1](g)

    def on_cpu(x, kernel, g):
        options = {'strides': strides, 'padding': padding, 'precision': precision}
        dx = _input_gradient(g, kernel, size=x.shape[1:3], **options)
        return dx, _kernel_gradient(x, g, size=kernel.shape[:2], **options)

    return lax.platform_dependent(x, kernel, g, cpu=on_cpu, default=by_xla)


_conv.defvjp(_forward, _backward)


def _is_product(kernel, padding):
    return kernel.shape[:2] == (1, 1) and not any(map(any, padding))


def _strided(x, strides):
    return x[:, :: strides[0], :: strides[1]]


@onednn.accelerated('input_gradient')
def _input_gradient(g, kernel, *, size, strides, padding, precision):
    """The full convolution of g, with stride - 1 zeros between its values, with the kernel."""
    if _is_product(kernel, padding):
        small = jnp.tensordot(g, kernel[0, 0].T, 1, precision=precision)
        if strides == (1, 1):
            return small
        rows, columns = (
            (0, n - (m - 1) * s - 1, s - 1)
            for n, m, s in zip(size, g.shape[1:3], strides, strict=True)
        )
        zero = jnp.zeros((), small.dtype)
        return lax.pad(small, zero, [(0, 0, 0), rows, columns, (0, 0, 0)])
    pads = [
        (k - 1 - low, n + low - (m - 1) * s - 1)
        for k, n, m, s, (low, _) in zip(
            kernel.shape[:2], size, g.shape[1:3], strides, padding, strict=True
        )
    ]
    flipped = lax.rev(kernel, (0, 1)).swapaxes(2, 3)
    # Without the barrier XLA would, inside a loop, read the kernel transposed, which is its slowest way.
    flipped = lax.optimization_barrier(flipped)
    return lax.conv_general_dilated(
        g, flipped, (1, 1), pads, strides, dimension_numbers=NUMBERS, precision=precision
    )


@onednn.accelerated('kernel_gradient')
def _kernel_gradient(x, g, *, size, strides, padding, precision):
    """Sums of x's windows times g, as matrix products over a few images at a time.

    A chunk has to stay in the cache: CHUNK_POSITIONS or one image. Its windows are materialized, kh kw c numbers per
    position; or, if that is less, kw c numbers of x and kh o of g shifted by rows; or, with at most FEW_CHANNELS, one
    plane for each of the kh kw c numbers, since the numbers of one position would be copied one by one.
    """
    (kh, kw), c, o = size, x.shape[3], g.shape[3]
    n, *out = g.shape[:3]
    divisors = [m for m in range(1, n + 1) if n % m == 0]
    fitting = (m for m in divisors if m == 1 or m * out[0] * out[1] <= CHUNK_POSITIONS)
    chunk = max(fitting, default=1)  # of an empty batch
    planes = c <= FEW_CHANNELS
    by_rows = not planes and strides == (1, 1) and out[0] >= 14 and kw * c + kh * o < kh * kw * c
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    if by_rows:
        x = x[:, : out[0] + kh - 1]  # no window reaches beyond it

    def add(total, images):
        x, g = images
        if planes:
            rows = _slices(jnp.moveaxis(x, -1, 0), 2, kh, strides[0], out[0])
            rows = [a for row in rows for a in _slices(row, 3, kw, strides[1], out[1])]
            left = jnp.stack(rows).reshape(kh * kw * c, -1)
            return total + jnp.matmul(left, g.reshape(-1, o), precision=precision), None
        if by_rows:
            left = _shifted(x, 2, kw, 1, out[1])
            pads = [((0, 0), (i, kh - 1 - i), (0, 0), (0, 0)) for i in range(kh)]
            right = jnp.concatenate([jnp.pad(g, pad) for pad in pads], axis=-1)
        else:
            left = _shifted(x, 2, kw, strides[1], out[1])
            left, right = _shifted(left, 1, kh, strides[0], out[0]), g
        left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
        return total + jnp.matmul(left.T, right, precision=precision), None

    start = jnp.zeros((kw * c, kh * o) if by_rows else (kh * kw * c, o), g.dtype)
    chunks = tuple(a.reshape(n // chunk, chunk, *a.shape[1:]) for a in (x, g))
    total = lax.scan(add, vary_like(start, chunks), chunks)[0]
    return (
        total.reshape(kw, c, kh, o).transpose(2, 0, 1, 3)
        if by_rows
        else total.reshape(kh, kw, c, o)
    )


def _shifted(x, axis, n, stride, length):
    """[..., c] -> [..., n c]: the n strided slices that start at 0 .. n - 1 of an axis, concatenated."""
    return jnp.concatenate(_slices(x, axis, n, stride, length), axis=-1)


def _slices(x, axis, n, stride, length):
    last = (length - 1) * stride + 1
    return [lax.slice_in_dim(x, i, i + last, stride, axis) for i in range(n)]
