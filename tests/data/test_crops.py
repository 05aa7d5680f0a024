import numpy as np
import pytest
from PIL import Image

from lecture4.data.dataset import DataError
from lecture4.data.images import crops


def numbered(*shapes):
    """Float images in which every pixel and channel has a value of its own."""
    start, images = 0, []
    for shape in shapes:
        size = int(np.prod(shape))
        images.append(np.arange(start, start + size, dtype=np.float32).reshape(shape))
        start += size
    return tuple(images)


def test_grayscale_agrees_with_pillow():
    color = np.random.default_rng(0).integers(256, size=(40, 30, 3), dtype=np.uint8)
    gray = crops.to_grayscale(color[None])
    assert gray.shape == (1, 40, 30, 1) and gray.dtype == np.float32
    pillow = np.asarray(Image.fromarray(color).convert('L')) / 255
    assert abs(gray[0, ..., 0] - pillow).max() < 0.51 / 255  # Pillow rounds
    white = crops.to_grayscale(np.full((1, 1, 1, 3), 255, np.uint8))
    np.testing.assert_allclose(white, 1, atol=1e-6)


def test_grayscale_of_one_channel_floats_and_tuples():
    small = np.array([[0, 51, 255]], np.uint8)[..., None]
    one, other = crops.to_grayscale((small, np.full((2, 2, 3), -3.0, np.float32)))
    np.testing.assert_array_equal(one[0, :, 0], np.array([0, 51, 255], np.float32) / 255)
    np.testing.assert_allclose(other, np.full((2, 2, 1), -3), rtol=1e-6)  # no scaling of floats
    with pytest.raises(DataError, match='1 or 3 channels in the last axis, got 4'):
        crops.to_grayscale(np.zeros((1, 2, 2, 4), np.uint8))
    with pytest.raises(DataError, match='int64'):
        crops.to_grayscale(np.zeros((1, 2, 2, 1), np.int64))


@pytest.mark.parametrize('channels', [1, 3])
def test_patches_are_pieces_of_the_images_in_c_order(channels):
    images = numbered((6, 9, channels), (5, 5, channels))
    patches = crops.sample_patches(images, 50, 4, seed=1)
    assert patches.shape == (50, 16 * channels) and patches.dtype == np.float32
    for patch in patches.reshape(50, 4, 4, channels):
        i = 0 if patch[0, 0, 0] < images[0].size else 1
        row, column, _ = np.argwhere(images[i] == patch[0, 0, 0])[0]
        np.testing.assert_array_equal(patch, images[i][row : row + 4, column : column + 4])


def test_every_patch_is_as_likely_as_any_other():
    images = numbered((4, 5, 1), (3, 3, 1), (6, 3, 1))
    n = 9000
    corners = crops.sample_patches(images, n, 3, seed=0)[:, 0]
    values, counts = np.unique(corners, return_counts=True)
    num_positions = 6 + 1 + 4
    assert len(values) == num_positions
    assert (
        sum((counts - n / num_positions) ** 2 / (n / num_positions)) < 29.6
    )  # chi squared, 10 degrees, p = .001


def test_patches_scale_bytes_and_depend_on_the_seed_only():
    images = np.random.default_rng(0).integers(256, size=(2, 8, 8, 1), dtype=np.uint8)
    first = crops.sample_patches(images, 20, 3, seed=5)
    np.testing.assert_array_equal(first, crops.sample_patches(tuple(images), 20, 3, seed=5))
    assert (first != crops.sample_patches(images, 20, 3, seed=6)).any()
    assert first.max() <= 1
    assert set((first * 255).round().ravel()) <= set(images.ravel())
    assert crops.sample_patches(images, 0, 3, seed=0).shape == (0, 9)


@pytest.mark.parametrize('margin', [0, 3])
@pytest.mark.parametrize('kind', [tuple, np.stack])
def test_crops_of_the_two_halves_share_no_pixel(margin, kind):
    images = kind(numbered((7, 14, 1), (7, 14, 1)))
    left, right = crops.split_left_right(images, margin=margin)
    parts = [np.concatenate([np.ravel(image) for image in part]) for part in (left, right)]
    assert not set(parts[0]) & set(parts[1])
    assert sum(len(part) for part in parts) == 2 * 7 * (14 - margin)
    assert left[0].shape[1] + margin + right[0].shape[1] == 14
    train, _ = crops.random_crops(left, 30, 4, seed=0)
    test, _ = crops.random_crops(right, 30, 4, seed=0)
    assert not set(train.ravel()) & set(test.ravel())
    with pytest.raises(DataError, match='14 pixels wide'):
        crops.split_left_right(images, margin=13)


def test_random_crops_have_their_image_index_and_dtype():
    images = numbered((6, 9, 1), (5, 5, 1), (8, 4, 1))
    cropped, index = crops.random_crops(images, 200, 4, seed=2)
    assert cropped.shape == (600, 4, 4, 1) and index.dtype == np.int32
    for crop, i in zip(cropped, index, strict=True):
        assert np.isin(crop, images[i]).all()
    assert len(np.unique(cropped[:200, 0, 0, 0])) == 3 * 6  # every position occurs
    assert crops.random_crops(np.zeros((2, 5, 5, 3), np.uint8), 1, 2, seed=0)[0].dtype == np.uint8


def test_grid_crops():
    images = numbered((5, 6, 1), (4, 2, 1))
    cropped, index = crops.grid_crops(images, 2, 2)
    np.testing.assert_array_equal(index, [0] * 6 + [1] * 2)
    np.testing.assert_array_equal(cropped[1], images[0][:2, 2:4])
    np.testing.assert_array_equal(cropped[3], images[0][2:4, :2])
    np.testing.assert_array_equal(cropped[7], images[1][2:4])
    assert len(np.unique(cropped)) == cropped.size
    assert len(crops.grid_crops(images, 2, 1)[0]) == 4 * 5 + 3


@pytest.mark.parametrize(
    'draw',
    [
        lambda images, size: crops.sample_patches(images, 2, size, 0),
        lambda images, size: crops.random_crops(images, 2, size, 0),
        lambda images, size: crops.grid_crops(images, size, 1),
    ],
)
def test_what_cannot_be_cropped_is_refused(draw):
    with pytest.raises(DataError, match=r'image 1 of 3 x 9 has no crop of 4 x 4'):
        draw(numbered((5, 5, 1), (3, 9, 1)), 4)
    with pytest.raises(DataError, match=r'image 1 has shape \(5, 5, 1\).*convert all to grayscale'):
        draw(numbered((5, 5, 3), (5, 5, 1)), 4)
    with pytest.raises(DataError, match='no images'):
        draw((), 4)


def test_images_are_split_and_the_last_ones_left_out():
    images = [np.full((2, 2, 1), i, np.float32) for i in range(6)]
    train, valid = crops.split_images(images, 2, 1)
    assert [part[0, 0, 0] for part in train] == [0, 1, 2]
    assert [part[0, 0, 0] for part in valid] == [3, 4]
    with pytest.raises(DataError, match=r'more than 6 images .*got 6: no training image is left'):
        crops.split_images(images, 4, 2)


def test_gray_centers_keep_sides_that_are_short():
    images = [np.arange(20.0).reshape(4, 5, 1), np.arange(6.0).reshape(2, 3, 1)]
    first, second = crops.gray_centers(images, 3)
    np.testing.assert_array_equal(first, images[0][:3, 1:4, 0])
    np.testing.assert_array_equal(second, images[1][:, :, 0])
    assert [image.shape for image in crops.gray_centers(images, 0)] == [(4, 5), (2, 3)]
    with pytest.raises(DataError, match='image 1 of 2 x 3 has no crop of 3 x 3'):
        crops.gray_centers(images, 3, 3)


def test_trimmed_images_lose_their_borders_and_small_ones_are_refused():
    image = np.arange(30.0, dtype=np.float32).reshape(5, 6, 1)
    (inner,) = crops.trim([image], 2)
    np.testing.assert_array_equal(inner, image[2:3, 2:4])
    with pytest.raises(DataError, match='image 0 of 5 x 6 has nothing left without a margin of 3'):
        crops.trim([image], 3)


def test_labeled_crops_of_halves_share_no_pixel_and_keep_labels():
    images = np.arange(2 * 2 * 4, dtype=np.float32).reshape(2, 2, 4, 1)
    (left, labels), (right, others) = crops.labeled_crops_of_halves(images, np.array([7, 8]), 2, 2)
    np.testing.assert_array_equal(left, images[:, :, :2])
    np.testing.assert_array_equal(right, images[:, :, 2:])
    assert labels.tolist() == others.tolist() == [7, 8]
