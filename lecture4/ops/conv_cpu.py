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

    Grad    reverse mode only. Convolutions that are dilated or in groups, of another rank or layout,
            or with padding as a word, are lax's own.
    """
    plain = x.ndim == 4 and _is_nhwc(dimension_numbers, x, kernel) and not isinstance(padding, str)
    dilated = any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    if not plain or dilated or feature_group_count != 1:
        return lax.conv_general_dilated(
            x, kernel, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
            feature_group_count, precision=precision,
        )  # fmt: skip
    strides, padding = tuple(window_strides), tuple(tuple(sides) for sides in padding)
    return _conv(x, kernel, strides, padding, precision)


def _is_nhwc(numbers, x, kernel):
    return numbers is not None and lax.conv_dimension_numbers(
        x.shape, kernel.shape, numbers
    ) == lax.conv_dimension_numbers(x.shape, kernel.shape, NUMBERS)


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

    def product(x, kernel, g):
        small = jnp.tensordot(g, kernel[0, 0].T, 1, precision=precision)
        dx = jax.vjp(lambda x: _every(x, strides), x)[1](small)[0]
        dk = jnp.tensordot(_every(x, strides), g, [(0, 1, 2)] * 2, precision=precision)
        return dx, dk[None, None]

    def picture_by_picture(x, kernel, g):
        forward = functools.partial(_by_xla, strides=strides, padding=padding, precision=precision)
        dx = jax.vjp(lambda x: forward(x, kernel), x)[1](g)[0]

        def add(total, pair):
            windows = _windows(pair[0], kernel.shape[:2], strides, padding, g.shape[1:3])
            flat = pair[1].reshape(-1, kernel.shape[3])
            return total + jnp.matmul(windows.T, flat, precision=precision), None

        start = jnp.zeros((kernel[..., 0].size, kernel.shape[3]), kernel.dtype)
        return dx, lax.scan(add, start, (x, g))[0].reshape(kernel.shape)

    on_cpu = product if _is_product(kernel, padding) else picture_by_picture
    return lax.platform_dependent(x, kernel, g, cpu=on_cpu, default=by_xla)


_conv.defvjp(_forward, _backward)


def _is_product(kernel, padding):
    return kernel.shape[:2] == (1, 1) and not any(map(any, padding))


def _every(x, strides):
    return x[:, :: strides[0], :: strides[1]]


def _windows(x, window, strides, padding, out):
    """What the kernel meets at every place of one picture: [h, w, c] -> [h' w', kh kw c]."""
    x = jnp.pad(x, (*padding, (0, 0)))
    last = [(m - 1) * s + 1 for m, s in zip(out, strides, strict=True)]
    parts = [
        x[i : i + last[0] : strides[0], j : j + last[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]
    return jnp.concatenate(parts, axis=-1).reshape(out[0] * out[1], -1)
