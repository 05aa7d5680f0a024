"""Convolution and cross-correlation in any number of dimensions, and their exact adjoints.

Channels come last: x [n, h, w, ..., c], kernels [kh, kw, ..., c / groups, o]. XLA's convolution
does the work. What networks call convolution is the cross-correlation; the true convolution turns
the kernel round first, and is what commutes.
"""

import jax.numpy as jnp
from jax import lax

from lecture4.ops.prox import require_floating
from lecture4.ops.receptive_field import Padding, Sides, Windows, windows


def cross_correlate(x, kernel, stride: Sides = 1, padding: Padding = 0, groups=1, precision=None):
    """y[i] = sum_f x[i * stride + f - padding] kernel[f], zeros outside x: a network's convolution.

    Shapes  x [n, *size, c] float, kernel [*window, c / groups, o] of the same dtype. Returns
            [n, *out, o], out = floor((size + padding - window) / stride) + 1.
            stride: a number, or one an axis; padding: a number, one an axis, or (low, high) an
            axis. Filter o sees the channels of its group only, c / groups in a row.
    Errors  TypeError for integers or two dtypes; ValueError, with the shapes, where channels do
            not fit (a guess where x is NCHW or the kernel OIHW), for a window that does not fit
            the padded input, a stride below 1, negative padding.
    Note    precision as in lax: float32 products are rounded to TF32 or bfloat16 on accelerators
            unless it is 'highest'.
    """
    x, kernel = _operands(x, kernel, groups)
    found = windows(x.shape[1:-1], kernel.shape[:-2], stride, padding, name='kernel')
    return lax.conv_general_dilated(
        x,
        kernel,
        found.stride,
        found.padding,
        dimension_numbers=_numbers(x.ndim),
        feature_group_count=groups,
        precision=precision,
    )


def convolve(x, kernel, stride: Sides = 1, padding: Padding = 0, groups=1, precision=None):
    """True convolution: cross-correlation with the kernel turned by 180 degrees, `flip(kernel)`.

    y[i] = sum_f x[i * stride + window - 1 - f - padding] kernel[f]; with stride 1 and padding
    window - 1 that is the full convolution, in which x and kernel may change places. Theano's
    conv2d is this one; Caffe, torch and JAX have the other.

    Shapes, errors  as `cross_correlate`.
    """
    return cross_correlate(x, flip(kernel), stride, padding, groups, precision)


def flip(kernel):
    """The kernel [*window, c, o] turned by 180 degrees: reversed along every window axis."""
    kernel = jnp.asarray(kernel)
    return lax.rev(kernel, range(kernel.ndim - 2))


def adjoint(
    y, kernel, stride: Sides = 1, padding: Padding = 0, groups=1, size=None, precision=None
):
    """The adjoint of x -> cross_correlate(x, kernel, ...): <A x, y> = <x, A' y>.

    It is the full true convolution of y, spread by stride - 1 zeros, with the kernel: what carries
    a delta back to the input, and what is called transposed convolution or deconvolution. With
    size None it has the output size of torch.nn.functional.conv_transpose2d.

    Shapes  y [n, *out, o], kernel [*window, c / groups, o]. Returns [n, *size, c]; size None is
            the smallest that gives y, (out - 1) stride - padding + window; rows that the forward
            pass leaves unread (a ragged edge) get 0. A torch weight [o, c / groups, kh, kw] of
            conv_transpose2d is this kernel after transpose(2, 3, 1, 0).
    Errors  as `cross_correlate`, and ValueError where y is not the size that `size` gives.
    """
    y, kernel = _operands(y, kernel, groups, back=True)
    window = kernel.shape[:-2]
    if size is None:
        found = windows(window, window, stride, padding, name='kernel')
        sides = zip(y.shape[1:-1], window, found.stride, found.padding, strict=True)
        size = [(m - 1) * S - low - high + F for m, F, S, (low, high) in sides]
    found = _checked(y, size, window, stride, padding)
    *_, c, o = kernel.shape
    # [*window, c, groups, o / groups] -> [*window, o / groups, groups * c]
    turned = flip(kernel).reshape(*window, c, groups, o // groups)
    turned = jnp.moveaxis(turned, -1, -3).swapaxes(-1, -2).reshape(*window, o // groups, groups * c)
    return lax.conv_general_dilated(
        y,
        turned,
        (1,) * len(window),
        [
            (F - 1 - low, W + low - _reach(m, S))
            for W, F, S, (low, _), m in zip(*found, strict=True)
        ],
        lhs_dilation=found.stride,
        dimension_numbers=_numbers(y.ndim),
        feature_group_count=groups,
        precision=precision,
    )


def kernel_adjoint(x, y, window, stride: Sides = 1, padding: Padding = 0, groups=1, precision=None):
    """The adjoint of kernel -> cross_correlate(x, kernel, ...): the gradient by the kernel.

    It is the cross-correlation of x with y, spread by stride - 1 zeros, summed over the batch.

    Shapes  x [n, *size, c], y [n, *out, o], window one number an axis. Returns
            [*window, c / groups, o].
    Errors  as `cross_correlate`, and ValueError where x and y do not belong together.
    """
    x, y = require_floating('x', x), require_floating('y', y)
    found = _checked(y, x.shape[1:-1], window, stride, padding)
    if x.ndim != y.ndim or x.shape[0] != y.shape[0] or x.shape[-1] % groups or y.shape[-1] % groups:
        raise ValueError(
            f'x {x.shape} and y {y.shape} with {groups} groups do not belong together; wanted '
            '[n, *size, c] and [n, *out, o], c and o divisible by groups'
        )
    axes = tuple(range(1, x.ndim - 1))
    last = x.ndim - 1
    numbers = lax.ConvDimensionNumbers(  # x's channels stand for the batch, the batch for channels
        (last, 0, *axes), (last, 0, *axes), (last - 1, last, *range(last - 1))
    )
    return lax.conv_general_dilated(
        x,
        y,
        (1,) * len(axes),
        [
            (low, F - 1 + _reach(m, S) - W - low)
            for W, F, S, (low, _), m in zip(*found, strict=True)
        ],
        rhs_dilation=found.stride,
        dimension_numbers=numbers,
        batch_group_count=groups,
        precision=precision,
    )


def _reach(n, stride):
    """Length of n values with stride - 1 zeros between them."""
    return (n - 1) * stride + 1


def _checked(y, size, window, stride, padding) -> Windows:
    found = windows(size, window, stride, padding, name='kernel')
    if y.shape[1:-1] != found.out:
        raise ValueError(
            f'y has shape {y.shape}, but windows {found.window} with stride {found.stride} and '
            f'padding {found.padding} on an input of {found.size} give [n, {found.out}, o]'
        )
    return found


def _numbers(rank):
    axes = tuple(range(1, rank - 1))
    image = (0, rank - 1, *axes)
    return lax.ConvDimensionNumbers(image, (rank - 1, rank - 2, *range(rank - 2)), image)


def _operands(x, kernel, groups, back=False):
    """Both arrays, or an error that says which axis does not fit. `back`: x has o channels."""
    name = 'y' if back else 'x'
    x, kernel = require_floating(name, x), require_floating('kernel', kernel)
    if x.dtype != kernel.dtype:
        raise TypeError(
            f'{name} has dtype {x.dtype} and kernel {kernel.dtype}; convert one to the other'
        )
    if x.ndim != kernel.ndim or x.ndim < 3:
        raise ValueError(
            f'{name} has shape {x.shape} and kernel {kernel.shape}; wanted [n, h, w, c] and '
            '[kh, kw, c / groups, o] (one picture: x[None]; grey pictures: x[..., None])'
        )
    *_, c, o = kernel.shape
    if groups < 1 or o % groups:
        raise ValueError(f'groups is {groups}; it has to divide the {o} filters of the kernel')
    wanted = o if back else c * groups
    if x.shape[-1] == wanted:
        return x, kernel
    rank = x.ndim - 2
    hint = ''
    if x.shape[1] == wanted:
        order = ', '.join(map(str, (0, *range(2, x.ndim), 1)))
        hint = f'; {name} looks like channels first: use {name}.transpose({order})'
    elif not back and kernel.shape[1] * groups == x.shape[-1]:
        order = ', '.join(map(str, (*range(2, rank + 2), 1, 0)))
        hint = f'; the kernel looks like [o, c, ...]: use kernel.transpose({order})'
    raise ValueError(
        f'{name} of shape {x.shape} has {x.shape[-1]} channels (its last axis), the kernel of '
        f'shape {kernel.shape} with {groups} groups wants {wanted}{hint}'
    )
