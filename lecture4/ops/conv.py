"""Convolution and cross-correlation in any number of dimensions, and their exact adjoints.

Channels come last: x [n, h, w, ..., c], kernels [kh, kw, ..., c / groups, o]. Everything is computed by XLA's
convolution, unless `cross_correlate` is given another. The convolution of networks is the cross-correlation; the true
convolution flips the kernel first, and is commutative.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Shaped

from lecture4.ops.prox import require_floating
from lecture4.ops.receptive_field import Padding, PerAxis, Windows, windows


def cross_correlate(
    x: Float[ArrayLike, 'n *size c'],
    kernel: Float[ArrayLike, '*window c_in_group o'],
    stride: PerAxis = 1,
    padding: Padding = 0,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
    conv_general_dilated: Callable[..., Array] = lax.conv_general_dilated,
) -> Float[Array, 'n *out o']:
    """y[i] = sum_f x[i * stride + f - padding] kernel[f], zeros outside x: a network's convolution.

    out = floor((size + padding - window) / stride) + 1.

    Args:
      x: Input.
      kernel: Filters of x's dtype. Filter o reads only the channels of its group, c / groups consecutive ones.
      stride: Stride: one number, or one per axis.
      padding: Zeros added at the border: one number, one per axis, or (low, high) per axis.
      groups: Number of groups of channels.
      precision: As in lax: float32 products are rounded to TF32 or bfloat16 on accelerators unless
        it is 'highest'.
      conv_general_dilated: As in flax's Conv: `conv_cpu.conv_general_dilated` has fast gradients on a CPU, in reverse
        mode only.

    Raises:
      TypeError: An input is an integer array, or the dtypes differ.
      ValueError: The channels do not fit (the message has the shapes, and the transposition where x is NCHW or the
        kernel OIHW), a window does not fit the padded input, a stride is below 1, or padding is negative.
    """
    x, kernel = _operands(x, kernel, groups)
    placed = windows(x.shape[1:-1], kernel.shape[:-2], stride, padding, name='kernel')
    return conv_general_dilated(
        x,
        kernel,
        placed.stride,
        placed.padding,
        dimension_numbers=_numbers(x.ndim),
        feature_group_count=groups,
        precision=precision,
    )


def convolve(
    x: Float[ArrayLike, 'n *size c'],
    kernel: Float[ArrayLike, '*window c_in_group o'],
    stride: PerAxis = 1,
    padding: Padding = 0,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
) -> Float[Array, 'n *out o']:
    """True convolution: cross-correlation with the kernel rotated by 180 degrees, `flip(kernel)`.

    y[i] = sum_f x[i * stride + window - 1 - f - padding] kernel[f]; with stride 1 and padding
    window - 1 that is the full convolution, which is commutative in x and kernel. Theano's conv2d is a true
    convolution; those of Caffe, torch and JAX are cross-correlations.

    Args:
      x: This and the others as in `cross_correlate`.
      kernel: Filters.
      stride: Stride: one number, or one per axis.
      padding: Zeros added at the border: one number, one per axis, or (low, high) per axis.
      groups: Number of groups of channels.
      precision: As in lax.

    Raises:
      TypeError: As in `cross_correlate`.
      ValueError: As in `cross_correlate`.
    """
    return cross_correlate(x, flip(kernel), stride, padding, groups, precision)


def flip(kernel: Shaped[ArrayLike, '*window c o']) -> Shaped[Array, '*window c o']:
    """The kernel rotated by 180 degrees: reversed along every window axis."""
    kernel = jnp.asarray(kernel)
    return lax.rev(kernel, range(kernel.ndim - 2))


def adjoint(
    y: Float[ArrayLike, 'n *out o'],
    kernel: Float[ArrayLike, '*window c_in_group o'],
    stride: PerAxis = 1,
    padding: Padding = 0,
    groups: int = 1,
    size: Sequence[int] | None = None,
    precision: lax.PrecisionLike = None,
) -> Float[Array, 'n *size c']:
    """The adjoint of x -> cross_correlate(x, kernel, ...): <A x, y> = <x, A' y>.

    It is the full true convolution of y, with stride - 1 zeros between its values, with the kernel:
    it carries a delta back to the input, and is called transposed convolution or deconvolution. With size None it has
    the output size of torch.nn.functional.conv_transpose2d.

    Args:
      y: Array in the output space of the cross-correlation.
      kernel: Filters. A torch weight [o, c / groups, kh, kw] of conv_transpose2d is this kernel
        after transpose(2, 3, 1, 0).
      stride: This and the next two as in `cross_correlate`.
      padding: Zeros added at the border: one number, one per axis, or (low, high) per axis.
      groups: Number of groups of channels.
      size: Size (h, w, ...) of the input of the cross-correlation. None takes the smallest size that gives y, (out -
        1) stride - padding + window. Rows that the forward pass does not read (an incomplete window) get 0.
      precision: As in lax.

    Raises:
      TypeError: As in `cross_correlate`.
      ValueError: As in `cross_correlate`, and where y does not have the size that `size` gives.
    """
    y, kernel = _operands(y, kernel, groups, transposed=True)
    window = kernel.shape[:-2]
    if size is None:
        placed = windows(window, window, stride, padding, name='kernel')
        axes = zip(y.shape[1:-1], window, placed.stride, placed.padding, strict=True)
        size = [(m - 1) * S - low - high + F for m, F, S, (low, high) in axes]
    placed = _checked(y, size, window, stride, padding)
    *_, c, o = kernel.shape
    # [*window, c, groups, o / groups] -> [*window, o / groups, groups * c]
    flipped = flip(kernel).reshape(*window, c, groups, o // groups)
    flipped = jnp.moveaxis(flipped, -1, -3).swapaxes(-1, -2)
    return lax.conv_general_dilated(
        y,
        flipped.reshape(*window, o // groups, groups * c),
        (1,) * len(window),
        [
            (F - 1 - low, W + low - _dilated(m, S))
            for W, F, S, (low, _), m in zip(*placed, strict=True)
        ],
        lhs_dilation=placed.stride,
        dimension_numbers=_numbers(y.ndim),
        feature_group_count=groups,
        precision=precision,
    )


def kernel_adjoint(
    x: Float[ArrayLike, 'n *size c'],
    y: Float[ArrayLike, 'n *out o'],
    window: PerAxis,
    stride: PerAxis = 1,
    padding: Padding = 0,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
) -> Float[Array, '*window c_in_group o']:
    """The adjoint of kernel -> cross_correlate(x, kernel, ...): the gradient with respect to the kernel.

    It is the cross-correlation of x with y, with stride - 1 zeros between its values, summed over
    the batch.

    Args:
      x: Input of the cross-correlation.
      y: Array in its output space.
      window: Size of the kernel.
      stride: This and the others as in `cross_correlate`.
      padding: Zeros added at the border: one number, one per axis, or (low, high) per axis.
      groups: Number of groups of channels.
      precision: As in lax.

    Raises:
      TypeError: As in `cross_correlate`.
      ValueError: As in `cross_correlate`, and where x and y do not fit together.
    """
    x, y = require_floating('x', x), require_floating('y', y)
    placed = _checked(y, x.shape[1:-1], window, stride, padding)
    if x.ndim != y.ndim or x.shape[0] != y.shape[0] or x.shape[-1] % groups or y.shape[-1] % groups:
        raise ValueError(
            f'x {x.shape} and y {y.shape} with {groups} groups do not fit together; expected '
            '[n, *size, c] and [n, *out, o], c and o divisible by groups'
        )
    axes = tuple(range(1, x.ndim - 1))
    last = x.ndim - 1
    numbers = lax.ConvDimensionNumbers(  # x's channels serve as batch, the batch as channels
        (last, 0, *axes), (last, 0, *axes), (last - 1, last, *range(last - 1))
    )
    return lax.conv_general_dilated(
        x,
        y,
        (1,) * len(axes),
        [
            (low, F - 1 + _dilated(m, S) - W - low)
            for W, F, S, (low, _), m in zip(*placed, strict=True)
        ],
        rhs_dilation=placed.stride,
        dimension_numbers=numbers,
        batch_group_count=groups,
        precision=precision,
    )


def _dilated(n, stride):
    """Length of n values with stride - 1 zeros between them."""
    return (n - 1) * stride + 1


def _checked(y, size, window, stride, padding) -> Windows:
    placed = windows(size, window, stride, padding, name='kernel')
    if y.shape[1:-1] != placed.out:
        raise ValueError(
            f'y has shape {y.shape}, but windows {placed.window} with stride {placed.stride} and '
            f'padding {placed.padding} on an input of {placed.size} give [n, {placed.out}, o]'
        )
    return placed


def _numbers(rank):
    axes = tuple(range(1, rank - 1))
    image = (0, rank - 1, *axes)
    return lax.ConvDimensionNumbers(image, (rank - 1, rank - 2, *range(rank - 2)), image)


def _operands(x, kernel, groups, transposed=False):
    """Both arrays, after a check that names the axis that does not fit. `transposed`: x has o channels."""
    name = 'y' if transposed else 'x'
    x, kernel = require_floating(name, x), require_floating('kernel', kernel)
    if x.dtype != kernel.dtype:
        raise TypeError(
            f'{name} has dtype {x.dtype} and kernel {kernel.dtype}; convert one to the other'
        )
    if x.ndim != kernel.ndim or x.ndim < 3:
        raise ValueError(
            f'{name} has shape {x.shape} and kernel {kernel.shape}; expected [n, h, w, c] and '
            '[kh, kw, c / groups, o] (one image: x[None]; grayscale images: x[..., None])'
        )
    *_, c, o = kernel.shape
    if groups < 1 or o % groups:
        raise ValueError(f'groups is {groups}; it has to divide the {o} filters of the kernel')
    expected = o if transposed else c * groups
    if x.shape[-1] == expected:
        return x, kernel
    rank = x.ndim - 2
    hint = ''
    if x.shape[1] == expected:
        order = ', '.join(map(str, (0, *range(2, x.ndim), 1)))
        hint = f'; {name} seems to have channels first: use {name}.transpose({order})'
    elif not transposed and kernel.shape[1] * groups == x.shape[-1]:
        order = ', '.join(map(str, (*range(2, rank + 2), 1, 0)))
        hint = f'; the kernel seems to be [o, c, ...]: use kernel.transpose({order})'
    raise ValueError(
        f'{name} of shape {x.shape} has {x.shape[-1]} channels (its last axis), the kernel of '
        f'shape {kernel.shape} with {groups} groups expects {expected}{hint}'
    )
