"""Figures of spatial transformers: drawn where the grid reads, refused where numbers do not fit."""

import io

import numpy as np
import pytest
from PIL import Image

from lecture4.figures import spatial_transformer as figures

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(3, 9, 9, 1))
SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)


def saved(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return np.asarray(Image.open(buffer))


def test_outlines_lie_on_the_pixels_that_are_read():
    made = figures.attended(IMAGES, np.stack([SQUARE * s for s in (1, 0.5, 0)]), IMAGES, '735')
    lines = [axes.lines[0].get_xydata() for axes in made.axes[:3]]
    np.testing.assert_allclose(lines[0], [[0, 0], [8, 0], [8, 8], [0, 8], [0, 0]])
    np.testing.assert_allclose(lines[1], [[2, 2], [6, 2], [6, 6], [2, 6], [2, 2]])
    np.testing.assert_allclose(lines[2], 4)
    assert [axes.get_title('center') for axes in made.axes[3:]] == ['7', '3', '5']
    assert saved(made).std() > 0


def test_wrong_predictions_have_another_color():
    made = figures.attended(
        IMAGES, np.stack([SQUARE] * 3), IMAGES, 'abc', is_correct=[True, False, True]
    )
    colors = [axes.title.get_color() for axes in made.axes[3:]]
    assert colors[0] == colors[2] != colors[1]


def test_meshes_have_a_line_for_each_row_and_column():
    mesh = np.stack(np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 4)), -1)
    made = figures.meshes(IMAGES, np.stack([mesh] * 3), ('a', 'b', 'c'))
    assert all(len(axes.lines) == 4 + 5 for axes in made.axes)


def test_robustness_is_in_percent():
    x = np.array([0.0, 30.0])
    made = figures.robustness({'angle': (x, {'CNN': [1.0, 0.5], 'ST-CNN': [1.0, 0.9]})})
    np.testing.assert_allclose(made.axes[0].lines[0].get_ydata(), [100, 50])
    with pytest.raises(ValueError, match='at least one panel'):
        figures.robustness({})


def test_equivariance_shows_the_line_that_undoes_rotations():
    angles = np.array([-40.0, 0.0, 40.0])
    made = figures.equivariance(angles, {'ST-CNN': angles + RNG.normal(size=(7, 3))})
    np.testing.assert_allclose(made.axes[0].lines[0].get_ydata(), angles)
    assert len(made.axes[0].lines) == 2


def test_downscaled_images_are_shown_at_the_size_of_the_input():
    small = IMAGES[:, ::4, ::4][:, :2, :2]
    made = figures.downscaled(IMAGES, small, 0 * small)
    assert [text.get_text() for text in made.texts] == ['input', '2 x 2 samples', 'antialiased']
    assert saved(made).std() > 0


def test_numbers_of_images_and_outlines_have_to_fit():
    with pytest.raises(ValueError, match='as many images'):
        figures.attended(IMAGES, SQUARE[None], IMAGES)
