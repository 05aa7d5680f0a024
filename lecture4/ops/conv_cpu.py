"""A network's convolution whose gradients are quick on a CPU too; elsewhere XLA's own.

XLA's CPU backend computes a gradient by the kernel at a tenth of the speed of the forward pass, and a
1 x 1 convolution at half the speed of the product of matrices that it is (measured in
tests/benchmarks/vision_speed.py). `conv_general_dilated` takes the place of lax's in flax's Conv:

    nn.Conv(64, (3, 3), conv_general_dilated=conv_cpu.conv_general_dilated)
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

NUMBERS = ('NHWC', 'HWIO', 'NHWC')
ROWS = 2048  # places in a part
FEW = 4  # channels


def conv_general_dilated(
    x,
    kernel,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count: int = 1,
    precision=None,
):
    """`lax.conv_general_dilated` of pictures [n, h, w, c] and kernels [kh, kw, c, o], same numbers.

    Grad    reverse mode only, unless the kernel is as large as the picture. Convolutions that are
            dilated or in groups, of another rank or layout, or with padding as a word, are lax's own.
    """
    plain = x.ndim == 4 and _is_nhwc(dimension_numbers, x, kernel) and not isinstance(padding, str)
    dilated = any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    if not plain or dilated or feature_group_count != 1:
        return lax.conv_general_dilated(
            x, kernel, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
            feature_group_count, precision=precision,
        )  # fmt: skip
    strides, padding = tuple(window_strides), tuple(tuple(sides) for sides in padding)
    if kernel.shape[:2] == x.shape[1:3] and not any(map(any, padding)):
        return _one_window(x, kernel, precision)
    return _conv(x, kernel, strides, padding, precision)


def _is_nhwc(numbers, x, kernel):
    return numbers is not None and lax.conv_dimension_numbers(
        x.shape, kernel.shape, numbers
    ) == lax.conv_dimension_numbers(x.shape, kernel.shape, NUMBERS)


def _one_window(x, kernel, precision):
    """A kernel as large as the picture is a dense layer, and quicker as such on every device."""
    columns = kernel.reshape(-1, kernel.shape[-1])
    y = jnp.matmul(x.reshape(len(x), len(columns)), columns, precision=precision)
    return y[:, None, None, :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, kernel, strides, padding, precision):
    by_xla = functools.partial(_by_xla, strides=strides, padding=padding, precision=precision)
    if not _is_product(kernel, padding):
        return by_xla(x, kernel)

    def product(x, kernel):
        return jnp.tensordot(_every(x, strides), kernel[0, 0], 1, precision=precision)

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
        if _is_product(kernel, padding):
            small = jnp.tensordot(g, kernel[0, 0].T, 1, precision=precision)
            dx = jax.vjp(lambda x: _every(x, strides), x)[1](small)[0]
        else:
            dx = _input_gradient(g, kernel, x.shape[1:3], strides, padding, precision)
        return dx, _kernel_gradient(x, g, kernel.shape, strides, padding, precision)

    return lax.platform_dependent(x, kernel, g, cpu=on_cpu, default=by_xla)


_conv.defvjp(_forward, _backward)


def _is_product(kernel, padding):
    return kernel.shape[:2] == (1, 1) and not any(map(any, padding))


def _every(x, strides):
    return x[:, :: strides[0], :: strides[1]]


def _input_gradient(g, kernel, size, strides, padding, precision):
    """The full convolution of g, spread by its stride, with the kernel."""
    sides = [
        (k - 1 - low, n + low - (m - 1) * s - 1)
        for k, n, m, s, (low, _) in zip(
            kernel.shape[:2], size, g.shape[1:3], strides, padding, strict=True
        )
    ]
    turned = lax.rev(kernel, (0, 1)).swapaxes(2, 3)
    # Inside a loop XLA would read the kernel transposed, by its slowest way, if it saw where it is from.
    turned = lax.optimization_barrier(turned)
    return lax.conv_general_dilated(
        g, turned, (1, 1), sides, strides, dimension_numbers=NUMBERS, precision=precision
    )


def _kernel_gradient(x, g, shape, strides, padding, precision):
    """Sums of x's windows times g, as products of matrices over a few pictures at a time.

    A part is to stay in the cache: ROWS places or one picture. Its windows are written out, kh kw c
    numbers a place; or, where that is less, kw c numbers of x beside kh o of g moved by rows; or, of
    FEW channels, a plane for each of the kh kw c: a place's numbers would be moved one by one.
    """
    kh, kw, c, o = shape
    n, *out = g.shape[:3]
    size = max(m for m in range(1, n + 1) if n % m == 0 and (m == 1 or m * out[0] * out[1] <= ROWS))
    planes = c <= FEW
    moved = not planes and strides == (1, 1) and out[0] >= 14 and kw * c + kh * o < kh * kw * c
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    if moved:
        x = x[:, : out[0] + kh - 1]  # what no window reaches is cut off

    def add(total, part):
        x, g = part
        if planes:
            rows = _slices(jnp.moveaxis(x, -1, 0), 2, kh, strides[0], out[0])
            rows = [a for row in rows for a in _slices(row, 3, kw, strides[1], out[1])]
            left = jnp.stack(rows).reshape(kh * kw * c, -1)
            return total + jnp.matmul(left, g.reshape(-1, o), precision=precision), None
        if moved:
            left = _shifted(x, 2, kw, 1, out[1])
            sides = [((0, 0), (i, kh - 1 - i), (0, 0), (0, 0)) for i in range(kh)]
            right = jnp.concatenate([jnp.pad(g, side) for side in sides], axis=-1)
        else:
            left = _shifted(x, 2, kw, strides[1], out[1])
            left, right = _shifted(left, 1, kh, strides[0], out[0]), g
        left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
        return total + jnp.matmul(left.T, right, precision=precision), None

    start = jnp.zeros((kw * c, kh * o) if moved else (kh * kw * c, o), g.dtype)
    parts = tuple(a.reshape(n // size, size, *a.shape[1:]) for a in (x, g))
    total = lax.scan(add, start, parts)[0]
    return total.reshape(kw, c, kh, o).transpose(2, 0, 1, 3) if moved else total.reshape(shape)


def _shifted(x, axis, n, stride, length):
    """[..., c] -> [..., n c]: the n strided slices that start at 0 .. n - 1 of an axis, side by side."""
    return jnp.concatenate(_slices(x, axis, n, stride, length), axis=-1)


def _slices(x, axis, n, stride, length):
    last = (length - 1) * stride + 1
    return [lax.slice_in_dim(x, i, i + last, stride, axis) for i in range(n)]
