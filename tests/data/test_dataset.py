import numpy as np
import pytest

from lecture4.data.dataset import DataError, validate


def test_arrays_take_the_documented_form():
    data = validate('x', np.zeros((3, 4, 5)), np.array([[0], [2], [1]]), None)
    assert data.images.shape == (3, 4, 5, 1) and data.images.dtype == np.float32
    np.testing.assert_array_equal(data.labels, [0, 2, 1])
    assert data.labels.dtype == np.int32 and data.class_names == ('0', '1', '2')
    bare = validate('x', np.zeros((3, 4, 5, 3), np.uint8))
    assert bare.labels is None and bare.class_names == () and bare.images.dtype == np.uint8


def test_images_of_several_sizes_and_channels():
    gray, color = np.full((2, 3), 7, np.uint8), np.zeros((2, 3, 3), np.uint8)
    data = validate('x', [gray, color])
    assert isinstance(data.images, np.ndarray) and data.images.shape == (2, 2, 3, 3)
    assert (data.images[0] == 7).all()
    data = validate('x', [gray, gray[:1]])
    assert [image.shape for image in data.images] == [(2, 3, 1), (1, 3, 1)]
    with pytest.raises(DataError, match='some float'):
        validate('x', [gray, gray.astype(np.float32)])


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        (np.zeros((5, 16)), r'set: expected images of shape .* got \(16,\)'),
        (
            np.zeros((5, 3, 8, 8)),
            r'set: images have shape \(3, 8, 8\), channels first; store the channels last',
        ),
        (np.zeros((5, 8, 0)), r'got \(8, 0, 1\)'),
        (np.zeros((5, 8, 8), np.int32), 'got int32'),
        (np.zeros((5, 8, 8), bool), 'got bool'),
        (np.zeros((5, 8, 8), complex), 'got complex'),
        (np.zeros((0, 8, 8)), 'no images'),
        ([], 'no images'),
        ([np.zeros((4, 4)), np.zeros(4)], 'image 1: expected images of shape'),
        (np.full((2, 4, 4), 1e300), 'beyond the range of float32'),
    ],
)
def test_invalid_images_are_refused(images, message):
    with pytest.raises(DataError, match=message):
        validate('set', images)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_the_index(value):
    images = np.zeros((6, 4, 4), np.float32)
    images[[3, 5], 1, 2] = value
    with pytest.raises(DataError, match=r'2 of 6 images contain NaN or infinity.*index 3;'):
        validate('set', images)


@pytest.mark.parametrize(
    ('labels', 'class_names', 'message'),
    [
        ([0, 1], None, 'got 3 images, 2 labels'),
        ([0, 1, 2, 0], None, 'got 3 images, 4 labels'),
        ([0.0, 1.0, 2.0], None, 'dtype float64'),
        (np.eye(3, dtype=int), None, 'store class numbers'),
        ([0, -1, 2], None, 'got -1 to 2'),
        ([0, 1, 2], ('a', 'b'), 'expected labels from 0 to 1, got 0 to 2'),
        ([0, 2**40, 1], None, 'got 0 to 1099511627776'),
    ],
)
def test_invalid_labels_are_refused(labels, class_names, message):
    with pytest.raises(DataError, match=message):
        validate('set', np.zeros((3, 4, 4), np.uint8), np.array(labels), class_names)
