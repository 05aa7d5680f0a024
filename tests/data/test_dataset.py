import numpy as np
import pytest

from lecture4.data.dataset import DataError, checked


def test_arrays_take_the_stated_form():
    data = checked('x', np.zeros((3, 4, 5)), np.array([[0], [2], [1]]), None)
    assert data.images.shape == (3, 4, 5, 1) and data.images.dtype == np.float32
    np.testing.assert_array_equal(data.labels, [0, 2, 1])
    assert data.labels.dtype == np.int32 and data.names == ('0', '1', '2')
    bare = checked('x', np.zeros((3, 4, 5, 3), np.uint8))
    assert bare.labels is None and bare.names == () and bare.images.dtype == np.uint8


def test_pictures_of_several_sizes_and_kinds():
    grey, colour = np.full((2, 3), 7, np.uint8), np.zeros((2, 3, 3), np.uint8)
    data = checked('x', [grey, colour])
    assert isinstance(data.images, np.ndarray) and data.images.shape == (2, 2, 3, 3)
    assert (data.images[0] == 7).all()
    data = checked('x', [grey, grey[:1]])
    assert [image.shape for image in data.images] == [(2, 3, 1), (1, 3, 1)]
    with pytest.raises(DataError, match='some float'):
        checked('x', [grey, grey.astype(np.float32)])


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        (np.zeros((5, 16)), r'set: images have shape \(16,\)'),
        (np.zeros((5, 3, 8, 8)), r'set: images have shape \(3, 8, 8\), channels first.*transpose'),
        (np.zeros((5, 8, 0)), r'images have shape \(8, 0, 1\)'),
        (np.zeros((5, 8, 8), np.int32), 'dtype int32'),
        (np.zeros((5, 8, 8), bool), 'dtype bool'),
        (np.zeros((5, 8, 8), complex), 'dtype complex'),
        (np.zeros((0, 8, 8)), 'no picture'),
        ([], 'no picture'),
        ([np.zeros((4, 4)), np.zeros(4)], 'picture 1: images have shape'),
        (np.full((2, 4, 4), 1e300), 'beyond float32'),
    ],
)
def test_wrong_images_are_named(images, message):
    with pytest.raises(DataError, match=message):
        checked('set', images)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_not_a_number_is_named_with_its_index(value):
    images = np.zeros((6, 4, 4), np.float32)
    images[[3, 5], 1, 2] = value
    with pytest.raises(DataError, match=r'2 of 6 images hold NaN or infinity.*number 3 '):
        checked('set', images)


@pytest.mark.parametrize(
    ('labels', 'names', 'message'),
    [
        ([0, 1], None, '3 images and 2 labels'),
        ([0, 1, 2, 0], None, '3 images and 4 labels'),
        ([0.0, 1.0, 2.0], None, 'dtype float64'),
        (np.eye(3, dtype=int), None, 'argmax'),
        ([0, -1, 2], None, 'run from -1 to 2'),
        ([0, 1, 2], ('a', 'b'), 'wanted 0 to 1'),
        ([0, 2**40, 1], None, 'run from 0 to 1099511627776'),
    ],
)
def test_wrong_labels_are_named(labels, names, message):
    with pytest.raises(DataError, match=message):
        checked('set', np.zeros((3, 4, 4), np.uint8), np.array(labels), names)
