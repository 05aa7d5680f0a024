"""How much a network's features care about small translations of a picture."""

import jax.numpy as jnp
import numpy as np


def shifted(x, pixels: int):
    """X moved right, down, left and up by so many pixels; zeros move in at the side left free.

    Shapes  x [n, h, w, c]. Returns [4, n, h, w, c].
    Errors  ValueError where pixels is negative or not below both sides, or x has another rank.
    """
    x = jnp.asarray(x)
    if x.ndim != 4 or not 0 <= pixels < min(x.shape[1:3]):
        raise ValueError(
            f'a shift of {pixels} does not fit x of shape {x.shape}; wanted [n, h, w, c], and 0 to '
            'less than h and w'
        )
    h, w = x.shape[1:3]
    wide = jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    starts = ((pixels, 0), (0, pixels), (pixels, 2 * pixels), (2 * pixels, pixels))
    return jnp.stack([wide[:, top : top + h, left : left + w] for top, left in starts])


def moved(features, still) -> float:
    """How far features lie from what they were, where 1 is as far as those of another picture.

    The mean distance |features_i - still_i|, over the mean of |still_i - still_j|, all pictures
    i != j. It does not change with the scale of the features, and so compares networks.

    Shapes  features, still [n, ...], the same pictures in the same order.
    Domain  n >= 2, and not all pictures' features equal; otherwise not-a-number or infinite.
    """
    features, still = (np.asarray(v, float).reshape(len(v), -1) for v in (features, still))
    apart = np.linalg.norm(features - still, axis=1).mean()
    n = len(still)
    squares = (still**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * still @ still.T, 0))
    np.fill_diagonal(distances, 0)
    with np.errstate(divide='ignore', invalid='ignore'):
        return float(apart / (distances.sum() / (n * (n - 1)) if n > 1 else np.nan))
