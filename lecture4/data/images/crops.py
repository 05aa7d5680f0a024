"""Crops and patches of pictures, on the host: grey values, random patches, disjoint halves.

`images` is what a Dataset holds: an array [n, h, w, c] or a tuple of arrays [h, w, c]. Every draw
is a function of its seed alone.
"""

import numpy as np

from lecture4.data.dataset import DataError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of the stored (gamma-coded) red, green and blue


def to_float(image) -> np.ndarray:
    """Float32 of the same shape: uint8 0..255 becomes 0..1, floating values stay as they are."""
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image.astype(np.float32) / np.float32(255)
    if np.issubdtype(image.dtype, np.floating):
        return image.astype(np.float32)
    raise DataError(f'images have dtype {image.dtype}, wanted uint8 or a float type; convert them')


def floats(images):
    """Each picture by `to_float`, channels as they are: an array, or a tuple of arrays."""
    if isinstance(images, tuple | list):
        return tuple(to_float(image) for image in images)
    return to_float(images)


def grey(images):
    """Luma of each picture, 0.299 red + 0.587 green + 0.114 blue, on the scale of `to_float`.

    Shapes  images [n, h, w, c] -> float32 [n, h, w, 1]; a tuple of [h, w, c] -> a tuple of
            float32 [h, w, 1]. One channel passes through.
    Errors  DataError for other than 1 or 3 channels, or another dtype.
    Source  ITU-R BT.601; Pillow's convert('L') uses the same weights.
    """
    if isinstance(images, tuple | list):
        return tuple(_grey(image) for image in images)
    return _grey(images)


def _grey(image):
    channels = np.shape(image)[-1]
    if channels not in (1, 3):
        raise DataError(f'images have {channels} channels, wanted 1 or 3 in the last axis')
    image = to_float(image)
    if channels == 1:
        return image
    return (image @ np.array(LUMA, np.float32))[..., None]


def sample_patches(images, n: int, size: int, seed: int) -> np.ndarray:
    """`n` patches of `size` x `size`, each equally likely among all there are in all pictures.

    Drawn with replacement; a picture comes up in proportion to its number of positions.
    Shapes  float32 [n, size * size * c], a patch [size, size, c] in C order, scale of `to_float`.
    Errors  DataError where a picture is smaller than the patch or the channels differ.
    """
    sizes = _sizes(images, size)
    places = [(h - size + 1) * (w - size + 1) for h, w, _ in sizes]
    ends = np.cumsum(places)
    draws = np.random.default_rng(seed).integers(ends[-1], size=n)
    chosen = np.searchsorted(ends, draws, side='right')
    patches = np.empty((n, size, size, sizes[0][2]), np.float32)
    for i in np.unique(chosen):
        here = np.flatnonzero(chosen == i)
        rows, columns = np.divmod(draws[here] - (ends[i] - places[i]), sizes[i][1] - size + 1)
        patches[here] = to_float(_windows(images[i], size)[rows, columns])
    return patches.reshape(n, size * size * sizes[0][2])


def halves(images, *, margin: int = 0):
    """The left and the right part of every picture, `margin` columns between them dropped.

    Crops of the one and of the other share no pixel, whatever the margin; a margin also parts them
    by that many pixels, where neighbours are alike. An odd column goes to the right part.

    Shapes  [n, h, w, c] -> two arrays [n, h, about (w - margin) / 2, c]; a tuple -> two tuples.
    Errors  DataError where a picture is not at least margin + 2 wide.
    """
    if not isinstance(images, tuple | list):
        left, right = _cut(np.shape(images)[2], margin)
        return images[:, :, :left], images[:, :, right:]
    cuts = [_cut(image.shape[1], margin) for image in images]
    return (
        tuple(image[:, :left] for image, (left, _) in zip(images, cuts, strict=True)),
        tuple(image[:, right:] for image, (_, right) in zip(images, cuts, strict=True)),
    )


def _cut(width, margin):
    if margin < 0 or width < margin + 2:
        raise DataError(f'a picture {width} wide has no two parts with {margin} columns between')
    left = (width - margin) // 2
    return left, left + margin


def random_crops(images, n: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` crops of each picture at uniform positions, and which picture each is from.

    Shapes  crops [len(images) * n, size, size, c] in the pictures' own dtype, picture by picture;
            sources int32 [len(images) * n]: `labels[sources]` are the crops' labels.
    Errors  DataError where a picture is smaller than the crop or the channels differ.
    """
    rng = np.random.default_rng(seed)
    crops = []
    for image, (h, w, _) in zip(images, _sizes(images, size), strict=True):
        rows, columns = rng.integers(h - size + 1, size=n), rng.integers(w - size + 1, size=n)
        crops.append(_windows(image, size)[rows, columns])
    return np.concatenate(crops), np.repeat(np.arange(len(crops), dtype=np.int32), n)


def grid_crops(images, size: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """All crops at multiples of `stride`, row by row; no pixel twice where stride >= size.

    Shapes  crops [m, size, size, c] in the pictures' own dtype; sources int32 [m].
    Errors  DataError where a picture is smaller than the crop or the channels differ.
    """
    if stride < 1:
        raise DataError(f'stride {stride} has to be at least 1')
    sizes = _sizes(images, size)
    crops = [
        _windows(image, size)[::stride, ::stride].reshape(-1, size, size, shape[2])
        for image, shape in zip(images, sizes, strict=True)
    ]
    counts = [len(part) for part in crops]
    return np.concatenate(crops), np.repeat(np.arange(len(crops), dtype=np.int32), counts)


def _sizes(images, size):
    """The pictures' shapes, checked against the crop's size."""
    sizes = [np.shape(image) for image in images]
    if not sizes:
        raise DataError('there is no picture to take crops from')
    for i, shape in enumerate(sizes):
        if len(shape) != 3 or shape[2] != sizes[0][2]:
            raise DataError(
                f'picture {i} has shape {shape} and picture 0 {sizes[0]}, wanted [height, width, '
                'channels] with as many channels; use grey(images) for one channel each'
            )
        if size < 1 or min(shape[:2]) < size:
            raise DataError(
                f'picture {i} of {shape[0]} x {shape[1]} has no crop of {size} x {size}; '
                'take a smaller crop or leave the picture out'
            )
    return sizes


def _windows(image, size):
    """View [h - size + 1, w - size + 1, size, size, c] of all crops; nothing is copied."""
    view = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))
    return view.transpose(0, 1, 3, 4, 2)


def resize(images, side: int) -> np.ndarray:
    """Grey pictures brought to `side` x `side` pixels by antialiased bilinear resampling.

    Shapes  images [n, h, w, 1] or a tuple of [h, w, 1] -> float32 [n, side, side, 1], on the scale
            of `to_float`; pictures that are not square are stretched.
    Errors  DataError for other than one channel, or side below 1.
    """
    from PIL import Image

    if side < 1:
        raise DataError(f'side {side} has to be at least 1')
    resized = np.empty((len(images), side, side, 1), np.float32)
    for picture, target in zip(images, resized, strict=True):
        if picture.ndim != 3 or picture.shape[2] != 1:
            raise DataError(f'a picture has shape {picture.shape}, wanted [h, w, 1]; use grey')
        image = Image.fromarray(to_float(picture[:, :, 0]))
        target[:, :, 0] = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    return resized
