"""Pictures recovered from few components: noise taken out, missing pixels filled in, patches stored.

A picture is cut into patches, every patch is explained by few atoms of a dictionary, and where
patches overlap their explanations are averaged. The mean of a patch is always kept apart: atoms
describe what varies. Pictures are grey, [h, w], as a rule with values in [0, 1].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lecture4.ops import patches
from lecture4.ops.linalg import lipschitz
from lecture4.ops.prox import require_floating, soft_threshold
from lecture4.sparse.dictionary import online
from lecture4.sparse.objective import (
    L1,
    check,
    check_positive,
    gap_of_residual,
    objective,
    product,
)
from lecture4.sparse.solvers.pursuit import TILE, pursue
from lecture4.sparse.solvers.solution import select


def cut(image, size, stride=1):
    """All patches of a picture [h, w] at multiples of stride, as signals [n, size^2].

    Errors  TypeError for integers; ValueError for another rank, or where no patch fits.
    """
    image = require_floating('image', image)
    if image.ndim != 2:
        raise ValueError(f'image has shape {image.shape}; a grey picture [h, w] is wanted')
    return patches.extract(image[None, :, :, None], size, stride).reshape(-1, size * size)


def learn(key, signals, n_atoms, *, weight, n_steps, batch_size=1024, init=None):
    """Atoms [d, n_atoms] for these very signals: n_steps of online learning on random batches.

    What `dictionary` does in a training loop, in one call, for pictures that bring their own
    dictionary. init [d, n_atoms] is where to start; random signals where None.

    Shapes  signals [n, d]; weight scalar, may be traced. Returns [d, n_atoms].
    Errors  as dictionary.step; ValueError where init is not [d, n_atoms].
    """
    order, first = jax.random.split(key)
    state = online.init(first, signals, n_atoms)
    if init is not None:
        if init.shape != state.atoms.shape:
            raise ValueError(f'init has shape {init.shape}, wanted {state.atoms.shape}')
        state = state._replace(atoms=init)

    def step(state, n):
        key = jax.random.fold_in(order, n)
        rows = jax.random.randint(key, (batch_size,), 0, signals.shape[0])
        return online.step(state, signals[rows], key, weight=weight)[0], None

    return lax.scan(step, state, jnp.arange(n_steps))[0].atoms


def denoise(image, D, sigma, *, size, stride=1, gain=1.1, share=0.0, max_atoms=32, tile=TILE):
    """A picture less its noise: overlapping patches, each explained as far as the noise allows.

    A patch is approximated until its residual is no more than noise, gain^2 sigma^2 a pixel, and
    the approximations are averaged, together with `share` copies of the noisy picture.

    Shapes  image [h, w]; D [size * size, k]; sigma scalar, the noise's standard deviation in the
            unit of the pixels (both may be traced). Returns [h, w].
    Domain  sigma >= 0, share >= 0. With stride > 1, pixels that no patch covers stay as they are.
    Errors  ValueError where the dictionary, the patches and the picture do not fit.
    Source  Elad & Aharon 2006, with gain 1.15 and share 30 / (255 sigma); atoms of BSD400 did better
            with 1.1 and 0 on pictures of BSD68. The dictionary is the caller's.
    """
    x = cut(image, size, stride)
    mean = jnp.mean(x, axis=1, keepdims=True)
    energy = jnp.asarray(gain * sigma, x.dtype) ** 2 * size * size
    found, _ = pursue(x - mean, D, energy, max_atoms=max_atoms, tile=tile)
    share = jnp.asarray(share, x.dtype)
    total = _paste(mean + found, image.shape, size, stride) + share * image
    covered = patches.counts(image.shape, size, stride).astype(x.dtype) + share
    return jnp.where(covered > 0, total / jnp.where(covered > 0, covered, 1), image)


def inpaint(image, known, D, weight, *, size, stride=1, max_iterations=200, tile=TILE):
    """A picture with its missing pixels filled in, by patches coded on their known pixels alone.

    Known pixels keep their values; a missing one is the mean of what the patches over it say, each
    counted by the number of pixels it knows. Where no patch knows any it is the picture's mean.

    Shapes  image, known [h, w], known bool; D [size * size, k]; weight scalar. Returns [h, w].
    Domain  weight > 0. What image holds where known is False is never looked at, and may be NaN.
    Errors  ValueError where the dictionary, the patches and the picture do not fit.
    Source  Mairal, Elad & Sapiro 2008, sections II and III (masked patches), with L1 codes.
    """
    image = jnp.where(known, image, 0)
    overall = jnp.sum(image) / jnp.maximum(jnp.sum(known, dtype=image.dtype), 1)
    x = cut(image, size, stride)
    seen = cut(jnp.where(known, 1, 0).astype(image.dtype), size, stride)

    def fill(part):
        x, seen = part
        count = jnp.sum(seen, axis=1, keepdims=True)
        mean = jnp.sum(x, axis=1, keepdims=True) / jnp.maximum(count, 1)
        found = masked_codes(
            x - mean, seen, D, weight, tolerance=1e-3, max_iterations=max_iterations
        )
        return (mean + product(found.codes, D.T)) * count, jnp.broadcast_to(count, x.shape)

    found, count = (
        _paste(part, image.shape, size, stride) for part in _by_tiles(fill, tile, x, seen)
    )
    return jnp.where(known, image, jnp.where(count > 0, found / jnp.maximum(count, 1), overall))


class Codes(NamedTuple):
    """Codes of partly seen signals with their certificate, as solvers.Solution has them."""

    codes: jax.Array  # [n, k]
    gap: jax.Array  # [n] duality gap divided by the objective
    objective: jax.Array  # [n]
    converged: jax.Array  # [n] bool


def masked_codes(x, seen, D, weight, *, tolerance=1e-4, max_iterations=1000, check_every=10):
    """L1 codes of signals of which only some values count: 0.5 |seen (x - D a)|^2 + weight |a|_1.

    Every signal has a dictionary of its own, its seen rows, so nothing is factorised: accelerated
    proximal gradient, with the momentum restarted signal by signal, until the duality gap of all is
    small. Through one iteration all signals share the two products with D.

    Shapes  x [n, d]; seen [n, d] of 0 and 1 (or weights in between, which multiply the residual);
            D [d, k]; weight scalar, [k] or [n, 1]. Returns Codes.
    Domain  weight > 0. Unseen values of x must be finite, and don't matter.
    Stop    each by its own gap <= tolerance * objective + rounding of |x|^2, or max_iterations.
    Errors  TypeError for integers; ValueError where sizes disagree or the weight is not positive.
    Source  Beck & Teboulle 2009; O'Donoghue & Candes 2015 (restart); the gap as in objective.
    """
    check_positive(weight)
    x, D, weight = check(x, D, weight)
    if seen.shape != x.shape:
        raise ValueError(f'seen has shape {seen.shape}, the signals {x.shape}; give one for each')
    x = x * seen
    L = lipschitz(D)
    L = jnp.where(L > 0, L, 1)
    rounding = 2 * jnp.finfo(x.dtype).eps * jnp.sum(x * x, axis=1)

    def residual(a):
        return x - seen * product(a, D.T)

    def step(_, state):
        a, y, t = state
        moved = soft_threshold(y + product(seen * residual(y), D) / L, weight / L)
        uphill = jnp.sum((y - moved) * (moved - a), axis=1, keepdims=True) > 0
        t_next = jnp.where(uphill, 1, 0.5 * (1 + jnp.sqrt(1 + 4 * t * t)))
        beta = jnp.where(uphill, 0, (t - 1) / t_next)
        return moved, moved + beta * (moved - a), t_next

    def certify(a):
        r = residual(a)
        value = objective(r, a, weight, L1)
        gap = gap_of_residual(r, product(seen * r, D), a, weight)
        return gap, value, gap <= tolerance * value + rounding

    def unfinished(carry):
        _, (gap, _, converged), count = carry
        return (count < max_iterations) & jnp.any(jnp.isfinite(gap) & ~converged)

    def block(carry):
        state, found, count = carry
        n_steps = jnp.minimum(check_every, max_iterations - count)
        moved = lax.fori_loop(0, n_steps, step, state)
        # A signal that is done stays as it is: how long others take is not its business.
        new = (moved, certify(moved[0]))
        return *select(~found[2], new, (state, found)), count + n_steps

    zero = jnp.zeros((x.shape[0], D.shape[1]), x.dtype)
    start = (zero, zero, jnp.ones((x.shape[0], 1), x.dtype))
    carry = (start, certify(zero), jnp.zeros((), jnp.int32))
    state, (gap, value, converged), _ = lax.while_loop(unfinished, block, carry)
    tiny = jnp.finfo(x.dtype).tiny
    return Codes(state[0], gap / jnp.maximum(value, tiny), value, converged)


def store(image, approximate_fn, *, size):
    """The picture as it comes back where each patch, side by side, is kept as its mean and few numbers.

    approximate_fn  signals [n, d] without mean -> what their few numbers make of them, [n, d].
    Shapes          image [h, w], of which rows and columns beyond whole patches are cut off.
                    Returns (restored, original), both of whole patches.
    """
    h, w = (length // size * size for length in image.shape)
    image = image[:h, :w]
    x = cut(image, size, size)
    mean = jnp.mean(x, axis=1, keepdims=True)
    return _paste(mean + approximate_fn(x - mean), image.shape, size, size), image


def largest(x, basis, n_nonzero):
    """Signals by their n_nonzero largest coefficients in an orthonormal basis: the best there are.

    Shapes  x [n, d]; basis [d, m] with orthonormal columns. Returns [n, d].
    """
    codes = product(x, basis)
    if n_nonzero < basis.shape[1]:
        at = lax.top_k(jnp.abs(codes), n_nonzero)[1]
        rows = jnp.arange(len(codes))[:, None]
        codes = jnp.zeros_like(codes).at[rows, at].set(codes[rows, at])
    return product(codes, basis.T)


def cosines(size, n_frequencies=None):
    """Discrete cosines of size x size patches without the constant one, unit norm and mean 0.

    With n_frequencies = size (None) the orthonormal basis of the cosine transform; with more, the
    frequencies lie closer: a redundant dictionary, what learned ones are measured against.

    Shapes  Returns [size^2, n_frequencies^2 - 1].
    Source  Elad & Aharon 2006, section V (16 frequencies for patches of 8 x 8).
    """
    n_frequencies = n_frequencies or size
    place = jnp.arange(size, dtype=jnp.float32)[None, :] + 0.5
    rows = jnp.cos(
        jnp.pi / n_frequencies * place * jnp.arange(n_frequencies, dtype=jnp.float32)[:, None]
    )
    D = jnp.kron(rows, rows)[1:].T
    D = D - jnp.mean(D, axis=0, keepdims=True)
    return D / jnp.linalg.norm(D, axis=0, keepdims=True)


def _paste(signals, shape, size, stride):
    """The sum of all patches where they came from: the adjoint of cut, [h, w]."""
    grid = patches.grid(shape, size, stride)
    laid = signals.reshape(1, *grid, size * size)
    return patches.reassemble(laid, (*shape, 1), size, stride)[0, :, :, 0]


def _by_tiles(fn, tile, *arrays):
    """What fn makes of the arrays' rows, `tile` of them at a time; it returns a row for each."""
    n = len(arrays[0])
    tile = max(min(tile, n), 1)
    n_tiles = -(-n // tile)
    padded = tuple(
        jnp.pad(a, ((0, n_tiles * tile - n), (0, 0))).reshape(n_tiles, tile, -1) for a in arrays
    )
    tiled = lax.map(fn, padded)
    return jax.tree.map(lambda a: a.reshape(n_tiles * tile, -1)[:n], tiled)
