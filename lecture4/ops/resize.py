"""Pictures at another size: whole, or boxes of them, by (antialiased) bilinear interpolation.

A picture covers [0, h] x [0, w], pixel i the interval from i to i + 1, as in Pillow and in torch with
align_corners=False.
"""

import jax


def shorter_side(shape, side: int) -> tuple[int, int]:
    """Height and width when the shorter of them is brought to `side`; the longer one is rounded down.

    Source  torchvision's Resize rounds so.
    """
    h, w = shape
    return (side, side * w // h) if h <= w else (side * h // w, side)


def whole(images, shape: tuple[int, int], antialias: bool = True):
    """Pictures at another height and width; unchanged where they have these already.

    antialias  where they shrink, a pixel is a mean over all that it covers; else of 4 neighbours.
    Shapes     images [n, h, w, c] float -> [n, *shape, c].
    """
    n, h, w, c = images.shape
    if (h, w) == tuple(shape):
        return images
    return jax.image.resize(images, (n, *shape, c), 'linear', antialias=antialias)


def boxes(images, corners, sizes, side: int, antialias: bool = True):
    """One box of every picture, stretched to side x side.

    Interpolation at a box's edge reads the picture beyond it: the result is a part of the resized
    picture, where Pillow's crop followed by resize repeats the edge.
    Shapes     images [n, h, w, c] float; corners (upper, left) and sizes (height, width) float
               [n, 2], in pixels and inside the picture. Returns [n, side, side, c].
    """

    def one(image, corner, size):
        scale = side / size
        shape = (side, side, image.shape[-1])
        return jax.image.scale_and_translate(
            image, shape, (0, 1), scale, -corner * scale, 'linear', antialias
        )

    return jax.vmap(one)(images, corners, sizes)
