"""Random changes of a batch of pictures, on the device: pure functions of (key, batch).

Each is drawn anew for every picture of the batch, and may be called inside a compiled step (as
`Data.prepare` is). Pictures are floats [n, h, w, c]; sizes are static, so nothing is compiled twice.
"""

import jax
import jax.numpy as jnp


def flip(key, images):
    """Every picture mirrored left to right with probability 1/2.

    Shapes  images [n, h, w, c] -> the same.
    """
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_crop(key, images, side: int):
    """A part of side x side of every picture, all positions equally likely.

    Shapes  images [n, h, w, c] -> [n, side, side, c].
    Errors  ValueError where a side of the pictures is below `side`.
    """
    n, h, w, channels = images.shape
    if not 1 <= side <= min(h, w):
        raise ValueError(
            f'pictures of {h} x {w} have no crop of {side} x {side}; use 1 to {min(h, w)}'
        )
    corners = jax.random.randint(key, (n, 2), 0, jnp.array([[h - side + 1, w - side + 1]]))

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), (side, side, channels))

    return jax.vmap(cut)(images, corners)


def pad_and_crop(key, images, padding: int = 4):
    """Every picture shifted by up to `padding` pixels each way; zeros move in.

    Zeros are to be the mean colour, so normalise first.
    Shapes  square images [n, s, s, c] -> the same.
    Errors  ValueError where the pictures are not square.
    Source  He et al. 2016, section 4.2.
    """
    _, h, w, _ = images.shape
    if h != w:
        raise ValueError(f'pictures of {h} x {w}; crop them square first')
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return random_crop(key, jnp.pad(images, border), h)
