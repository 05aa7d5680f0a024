"""Crops and patches of images, on the host: grayscale values, random patches, disjoint halves.

`images` are those of a Dataset: an array [n, h, w, c] or a sequence of arrays [h, w, c]. Every
random choice is a function of its seed alone.
"""

from typing import overload

import numpy as np
from jaxtyping import Float32, Int, Shaped

from lecture4.data.dataset import DataError, Images
from lecture4.ops.resize import center_crop

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, for the stored (gamma-coded) red, green and blue


def to_float(image: Shaped[np.ndarray, '*shape']) -> Float32[np.ndarray, '*shape']:
    """float32 of the same shape: uint8 0..255 becomes 0..1, floating-point values are unchanged.

    Raises:
      DataError: The dtype is another one.
    """
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image.astype(np.float32) / np.float32(255)
    if np.issubdtype(image.dtype, np.floating):
        return image.astype(np.float32)
    raise DataError(f'expected images of dtype uint8 or floating, got {image.dtype}; convert them')


@overload
def to_floats(images: np.ndarray) -> np.ndarray: ...
@overload
def to_floats(images: Images) -> np.ndarray | tuple[np.ndarray, ...]: ...
def to_floats(images: Images) -> np.ndarray | tuple[np.ndarray, ...]:
    """Each image by `to_float`, channels unchanged: an array, or a tuple of arrays."""
    if isinstance(images, np.ndarray):
        return to_float(images)
    return tuple(to_float(image) for image in images)


@overload
def to_grayscale(images: np.ndarray) -> np.ndarray: ...
@overload
def to_grayscale(images: Images) -> np.ndarray | tuple[np.ndarray, ...]: ...
def to_grayscale(images: Images) -> np.ndarray | tuple[np.ndarray, ...]:
    """Luma of each image, 0.299 red + 0.587 green + 0.114 blue, on the scale of `to_float`.

    Args:
      images: [n, h, w, c] or a sequence of [h, w, c], c 1 or 3; one channel is left unchanged.

    Returns:
      float32 [n, h, w, 1], or a tuple of [h, w, 1].

    Raises:
      DataError: The number of channels is not 1 or 3, or the dtype is another one.

    References:
      ITU-R BT.601; Pillow's convert('L') uses the same weights.
    """
    if isinstance(images, np.ndarray):
        return _luma(images)
    return tuple(_luma(image) for image in images)


def _luma(image):
    channels = np.shape(image)[-1]
    if channels not in (1, 3):
        raise DataError(f'expected images with 1 or 3 channels in the last axis, got {channels}')
    image = to_float(image)
    if channels == 1:
        return image
    return (image @ np.array(LUMA, np.float32))[..., None]


def sample_patches(
    images: Images, num_patches: int, patch_size: int, seed: int
) -> Float32[np.ndarray, '{num_patches} d']:
    """Random patches, uniform over all positions in all images.

    They are sampled with replacement; an image is chosen in proportion to its number of positions.

    Args:
      images: uint8 or float, all with c channels.
      num_patches: Number of patches.
      patch_size: Height and width of the patches in pixels.
      seed: Seed of the random choice.

    Returns:
      [num_patches, patch_size * patch_size * c]: patches [patch_size, patch_size, c] flattened in C
      order, on the scale of `to_float`.

    Raises:
      DataError: An image is smaller than the patch, or the channels differ.
    """
    shapes = _validate_shapes(images, patch_size)
    channels = shapes[0][2]
    counts = [(h - patch_size + 1) * (w - patch_size + 1) for h, w, _ in shapes]
    ends = np.cumsum(counts)
    positions = np.random.default_rng(seed).integers(ends[-1], size=num_patches)
    image_index = np.searchsorted(ends, positions, side='right')
    patches = np.empty((num_patches, patch_size, patch_size, channels), np.float32)
    for i in np.unique(image_index):
        rows = np.flatnonzero(image_index == i)
        top, left = np.divmod(
            positions[rows] - (ends[i] - counts[i]), shapes[i][1] - patch_size + 1
        )
        patches[rows] = to_float(_windows(images[i], patch_size)[top, left])
    return patches.reshape(num_patches, patch_size * patch_size * channels)


def split_images(
    images: Images, num_valid: int, num_excluded: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Training images and validation images; the latter are the last ones that are not excluded.

    Args:
      images: [n, h, w, c], or a sequence of n arrays [h, w, c].
      num_valid: Number of validation images, >= 1.
      num_excluded: Number of images at the end that are in neither part.

    Raises:
      DataError: No training image is left.
    """
    num_train = len(images) - num_valid - num_excluded
    if num_train < 1:
        raise DataError(
            f'expected more than {num_valid + num_excluded} images ({num_valid} to validate on, '
            f'{num_excluded} excluded), got {len(images)}: no training image is left; use a larger set'
        )
    usable = list(images)[: num_train + num_valid]
    return usable[:num_train], usable[num_train:]


def gray_centers(
    images: Images, crop_size: int, min_size: int = 1
) -> list[Shaped[np.ndarray, '_h _w']]:
    """The centers of images with one channel, without the channel axis.

    Args:
      images: [n, h, w, 1], or a sequence of arrays [h, w, 1].
      crop_size: Height and width in pixels; shorter sides are kept; 0 takes whole images.
      min_size: Smallest height and width of a crop.

    Raises:
      DataError: A crop is smaller than min_size.
    """
    crops = [
        center_crop(image, [min(crop_size or side, side) for side in image.shape[:2]])
        for image in images
    ]
    _validate_shapes(crops, min_size)
    return [np.asarray(crop)[..., 0] for crop in crops]


def split_left_right(images: Images, *, margin: int = 0) -> tuple[Images, Images]:
    """The left and the right part of every image, with `margin` columns between them dropped.

    Crops of the left and of the right parts never share pixels; a margin also separates them by a number of pixels,
    because neighboring pixels are similar. An odd column belongs to the right part.

    Args:
      images: [n, h, w, c], or a sequence of [h, w, c].
      margin: Number of pixels, >= 0.

    Returns:
      Two arrays [n, h, about (w - margin) / 2, c], or two tuples.

    Raises:
      DataError: An image is less than margin + 2 wide.
    """
    if isinstance(images, np.ndarray):
        left, right = _middle(np.shape(images)[2], margin)
        return images[:, :, :left], images[:, :, right:]
    middles = [_middle(image.shape[1], margin) for image in images]
    return (
        tuple(image[:, :left] for image, (left, _) in zip(images, middles, strict=True)),
        tuple(image[:, right:] for image, (_, right) in zip(images, middles, strict=True)),
    )


def _middle(width, margin):
    if margin < 0 or width < margin + 2:
        raise DataError(
            f'an image {width} pixels wide has no left and right part with {margin} columns between '
            'them; use a smaller margin'
        )
    left = (width - margin) // 2
    return left, left + margin


def trim(images: Images, margin: int) -> tuple[Shaped[np.ndarray, '_h _w _c'], ...]:
    """Images without `margin` pixels along their borders, which periodic filters distort.

    Args:
      images: [n, h, w, c], or a sequence of [h, w, c].
      margin: Number of pixels, >= 0.

    Raises:
      DataError: An image is not larger than twice the margin.
    """
    for i, image in enumerate(images):
        if margin < 0 or min(image.shape[:2]) <= 2 * margin:
            raise DataError(
                f'image {i} of {image.shape[0]} x {image.shape[1]} has nothing left without a margin '
                f'of {margin} pixels; use a smaller one'
            )
    return tuple(
        image[margin : len(image) - margin, margin : image.shape[1] - margin] for image in images
    )


def random_crops(
    images: Images, crops_per_image: int, crop_size: int, seed: int
) -> tuple[Shaped[np.ndarray, 'm {crop_size} {crop_size} c'], Int[np.ndarray, ' m']]:
    """Crops of each image at uniform positions, and the index of each crop's image.

    Args:
      images: [n, h, w, c], or a sequence of n arrays [h, w, c].
      crops_per_image: Number of crops per image.
      crop_size: Height and width of the crops in pixels.
      seed: Seed of the positions.

    Returns:
      The m = n * crops_per_image crops in the images' dtype, image by image, and the index of each crop's image:
      `labels[index]` are the crops' labels.

    Raises:
      DataError: An image is smaller than the crop, or the channels differ.
    """
    rng = np.random.default_rng(seed)
    crops = []
    for image, (h, w, _) in zip(images, _validate_shapes(images, crop_size), strict=True):
        top = rng.integers(h - crop_size + 1, size=crops_per_image)
        left = rng.integers(w - crop_size + 1, size=crops_per_image)
        crops.append(_windows(image, crop_size)[top, left])
    index = np.repeat(np.arange(len(crops), dtype=np.int32), crops_per_image)
    return np.concatenate(crops), index


def grid_crops(
    images: Images, crop_size: int, stride: int
) -> tuple[Shaped[np.ndarray, 'm {crop_size} {crop_size} c'], Int[np.ndarray, ' m']]:
    """All crops at multiples of `stride`, row by row; they are disjoint if stride >= crop_size.

    Args:
      images: [n, h, w, c], or a sequence of n arrays [h, w, c].
      crop_size: Height and width of the crops in pixels.
      stride: Distance between crops in pixels, >= 1.

    Returns:
      The crops in the images' dtype, and the index of each crop's image.

    Raises:
      DataError: An image is smaller than the crop, or the channels differ.
    """
    if stride < 1:
        raise DataError(f'expected a stride of at least 1, got {stride}')
    shapes = _validate_shapes(images, crop_size)
    crops = [
        _windows(image, crop_size)[::stride, ::stride].reshape(-1, crop_size, crop_size, shape[2])
        for image, shape in zip(images, shapes, strict=True)
    ]
    counts = [len(part) for part in crops]
    return np.concatenate(crops), np.repeat(np.arange(len(crops), dtype=np.int32), counts)


def labeled_crops_of_halves(
    images: Images, labels: Int[np.ndarray, ' n'], crop_size: int, stride: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Crops of the left and of the right half of every image with its label; they share no pixel.

    Args:
      images: As in `grid_crops`.
      labels: Labels of the images.
      crop_size: As in `grid_crops`.
      stride: As in `grid_crops`.

    Returns:
      (crops [m, crop_size, crop_size, c], labels [m]) of the left halves, and of the right ones.

    Raises:
      DataError: As in `split_left_right` and `grid_crops`.
    """
    left, right = (grid_crops(half, crop_size, stride) for half in split_left_right(images))
    return (left[0], labels[left[1]]), (right[0], labels[right[1]])


def _validate_shapes(images, crop_size):
    """The shapes of the images, after a check that all have the channels of the first and fit a crop."""
    shapes = [np.shape(image) for image in images]
    if not shapes:
        raise DataError('there are no images to take crops from')
    for i, shape in enumerate(shapes):
        if len(shape) != 3 or shape[2] != shapes[0][2]:
            raise DataError(
                f'image {i} has shape {shape} and image 0 {shapes[0]}; expected [height, width, '
                'channels] with equal channels; convert all to grayscale or all to color'
            )
        if crop_size < 1 or min(shape[:2]) < crop_size:
            raise DataError(
                f'image {i} of {shape[0]} x {shape[1]} has no crop of {crop_size} x {crop_size}; '
                'take a smaller crop or leave the image out'
            )
    return shapes


def _windows(image, size):
    """View [h - size + 1, w - size + 1, size, size, c] of all crops; nothing is copied."""
    view = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))
    return view.transpose(0, 1, 3, 4, 2)


def resize(images: Images, image_size: int) -> Float32[np.ndarray, 'n {image_size} {image_size} 1']:
    """Grayscale images resized to a square by antialiased bilinear interpolation.

    Args:
      images: [n, h, w, 1], or a sequence of [h, w, 1]; images that are not square are stretched.
      image_size: Height and width of the result, >= 1.

    Returns:
      Images on the scale of `to_float`.

    Raises:
      DataError: The number of channels is not 1, or image_size is below 1.
    """
    from PIL import Image

    if image_size < 1:
        raise DataError(f'expected an image_size of at least 1, got {image_size}')
    resized = np.empty((len(images), image_size, image_size, 1), np.float32)
    for image, target in zip(images, resized, strict=True):
        if image.ndim != 3 or image.shape[2] != 1:
            raise DataError(
                f'expected images of shape [height, width, 1], got {image.shape}; use to_grayscale'
            )
        plane = Image.fromarray(to_float(image[:, :, 0]))
        plane = plane.resize((image_size, image_size), Image.Resampling.BILINEAR)
        target[:, :, 0] = np.asarray(plane)
    return resized
