"""Projections keep their sign, all tiles are drawn, integer maps are classes."""

import numpy as np
import pytest

from lecture4.figures import deconvnet

RNG = np.random.default_rng(0)


def test_projections_keep_their_sign_and_zero_is_gray():
    pixels = RNG.standard_normal((2, 4, 5, 3))
    pixels[1] = 0
    shown = deconvnet.signed_images(pixels)
    np.testing.assert_array_equal(shown > 0.5, pixels > 0)
    assert np.abs(shown[0] - 0.5).max() == pytest.approx(0.5) and (shown[1] == 0.5).all()


@pytest.mark.parametrize('size', [5, 300])
def test_every_feature_has_a_square_of_patches_and_of_projections(size):
    patches = np.full((9, size, size, 3), 0.25)
    figure = deconvnet.top_activations({f'map {i}': (patches, 1 - patches) for i in range(3)})
    images = [axes.images[0].get_array() for axes in figure.axes]
    assert len(images) == 6 and [text.get_text() for text in figure.texts] == [
        'map 0',
        'map 1',
        'map 2',
    ]
    for image, value in zip(images, (0.25, 1.0) * 3, strict=True):
        assert (np.abs(image - value) < 1e-9).mean() > 0.6
    width = figure.get_figwidth() * figure.dpi
    assert all(0 <= axes.get_position().x1 * width <= width for axes in figure.axes)
    with pytest.raises(ValueError, match='no feature to draw'):
        deconvnet.top_activations({})


def test_occlusion_has_color_bars_for_floating_point_maps_only():
    maps = {'probability': RNG.random((2, 3, 4)), 'prediction': RNG.integers(0, 9, (2, 3, 4))}
    figure = deconvnet.occlusion(RNG.random((2, 8, 8, 3)), maps, titles=['cat', 'dog'])
    titles = [axes.get_title('left') for axes in figure.axes if axes.get_title('left')]
    assert titles == ['cat', 'probability', 'prediction', 'dog', 'probability', 'prediction']
    assert len(figure.axes) == 6 + 2
