"""Figures of what drives units: signals keep their sign, all tiles are drawn, whole numbers are classes."""

import numpy as np
import pytest

from lecture4.figures import deconvnet

RNG = np.random.default_rng(0)


def test_signals_keep_their_sign_and_zero_is_grey():
    pixels = RNG.standard_normal((2, 4, 5, 3))
    pixels[1] = 0
    shown = deconvnet.signal(pixels)
    np.testing.assert_array_equal(shown > 0.5, pixels > 0)
    assert np.abs(shown[0] - 0.5).max() == pytest.approx(0.5) and (shown[1] == 0.5).all()


@pytest.mark.parametrize('side', [5, 300])
def test_a_square_of_patches_and_one_of_projections_a_unit(side):
    patches = np.full((9, side, side, 3), 0.25)
    figure = deconvnet.strongest({f'map {i}': (patches, 1 - patches) for i in range(3)})
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    assert len(pictures) == 6 and [text.get_text() for text in figure.texts] == [
        'map 0',
        'map 1',
        'map 2',
    ]
    for picture, value in zip(pictures, (0.25, 0.75) * 3, strict=True):
        assert (np.abs(picture - value) < 1e-9).mean() > 0.6
    width = figure.get_figwidth() * figure.dpi
    assert all(0 <= axes.get_position().x1 * width <= width for axes in figure.axes)
    with pytest.raises(ValueError, match='no unit to draw'):
        deconvnet.strongest({})


def test_occlusion_draws_a_row_a_picture_and_bars_for_numbers_only():
    maps = {'probability': RNG.random((2, 3, 4)), 'answer': RNG.integers(0, 9, (2, 3, 4))}
    figure = deconvnet.occlusion(RNG.random((2, 8, 8, 3)), maps, titles=['cat', 'dog'])
    titles = [axes.get_title('left') for axes in figure.axes if axes.get_title('left')]
    assert titles == ['cat', 'probability', 'answer', 'dog', 'probability', 'answer']
    assert len(figure.axes) == 6 + 2
