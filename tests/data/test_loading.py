"""Float images of a source, and the choice of classes."""

import numpy as np
import pytest

from lecture4.data import sources
from lecture4.data.dataset import DataError
from lecture4.data.images.loading import load_images


def test_classes_are_selected_and_renumbered():
    images, labels, class_names = load_images('digits', 'all', classes=(7, 2))
    everything, all_labels, _ = load_images('digits', 'all')
    assert class_names == ('2', '7')
    assert set(labels) == {0, 1} and labels.dtype == np.int32
    np.testing.assert_array_equal(images[labels == 1], everything[all_labels == 7])
    with pytest.raises(DataError, match='digits has 10 classes'):
        load_images('digits', classes=(3, 10))
    with pytest.raises(DataError, match='photos has 0 classes'):
        load_images('photos', classes=(0,))


def test_color_images_are_converted_unless_kept():
    stored = sources.load('photos').images
    color = load_images('photos', grayscale=False).images
    gray = load_images('photos').images
    for image, floats, luma in zip(stored, color, gray, strict=True):
        np.testing.assert_array_equal(floats, image.astype(np.float32) / np.float32(255))
        assert luma.shape == (*image.shape[:2], 1)
