"""Figures of latent spaces, checked by their pixels and axes."""

import numpy as np
import pytest
from scipy import stats

from lecture4.figures import images as image_figures
from lecture4.figures import latent, style

GRAY = round(255 * style.BACKGROUND)
RNG = np.random.default_rng(0)


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3].astype(int)


def mosaic_part(image):
    gray = (image == GRAY).all(2)  # letters' edges may have that gray too, but no long line of it
    rows, columns = (np.flatnonzero(n > 0.8 * n.max()) for n in (gray.sum(1), gray.sum(0)))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.mark.parametrize('channels', [(), (1,), (3,)])
def test_a_grid_shows_every_pixel(channels):
    images = RNG.uniform(0, 0.5, size=(5, 4, 3, *channels))
    part = mosaic_part(pixels(image_figures.grid(images, 3, title='t')))
    zoom = part.shape[1] // (3 * 4 + 1)
    small = part[zoom // 2 :: zoom, zoom // 2 :: zoom]
    np.testing.assert_array_equal(part, small.repeat(zoom, 0).repeat(zoom, 1))
    for i, image in enumerate(images):
        top, left = 1 + i // 3 * 5, 1 + i % 3 * 4
        seen = small[top : top + 4, left : left + 3]
        expected = np.broadcast_to(255 * image.reshape(4, 3, -1), (4, 3, 3))
        assert abs(seen - expected).max() <= 1


def test_values_outside_are_clipped():
    tiles = image_figures.as_tiles(np.array([[[-3.0, 0.25], [7.0, np.nan]]]))
    np.testing.assert_array_equal(tiles[0, :, :, 0], [[0, 0.25], [1, 0]])


def test_labels_stay_inside_the_figure():
    figure = image_figures.grid(
        np.zeros((4, 5, 5)),
        2,
        row_labels=('first word', 'second'),
        column_labels=('a', 'b'),
        title='title',
    )
    image = pixels(figure)
    ink = (image < 100).all(2)
    assert not ink[[0, -1]].any() and not ink[:, [0, -1]].any()
    left = mosaic_columns(image)[0]
    extents = [text.get_window_extent() for text in figure.texts]
    assert all(e.x0 >= 0 and e.x1 <= image.shape[1] for e in extents)
    assert extents[1].x1 <= left


def mosaic_columns(image):
    n_gray = (image == GRAY).all(2).sum(0)
    columns = np.flatnonzero(n_gray > 0.8 * n_gray.max())
    return columns[0], columns[-1]


def test_reconstructions_are_under_their_images():
    x = RNG.uniform(size=(4, 3, 3))
    part = mosaic_part(pixels(image_figures.reconstructions(x, 1 - x, n=3)))
    zoom = part.shape[0] // 9
    small = part[zoom // 2 :: zoom, zoom // 2 :: zoom, 0]
    assert small.shape == (9, 13)
    assert abs(small[1:4, 1:4] + small[5:8, 1:4] - 255).max() <= 1
    with pytest.raises(ValueError, match='of one shape'):
        image_figures.reconstructions(x, x[:, :2])


def test_one_row_per_path():
    paths = np.zeros((2, 5, 3, 3))
    paths[0, 1] = 1
    part = mosaic_part(pixels(image_figures.interpolations(paths)))
    zoom = part.shape[0] // 9
    small = part[zoom // 2 :: zoom, zoom // 2 :: zoom, 0]
    assert small.shape == (9, 21)
    assert (small[1:4, 5:8] == 255).all() and (small == 255).sum() == 9


def test_the_plane_shows_the_chosen_coordinates():
    codes = RNG.normal(size=(300, 3)) + np.array([0, 0, 50])
    labels = np.repeat([0, 1, 2], 100)
    figure = latent.scatter(codes, labels, ('zero', 'one', 'two'), axes=(2, 0), radius=2.45)
    (axes,) = figure.axes
    offsets = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections])
    np.testing.assert_allclose(np.sort(offsets[:, 0]), np.sort(codes[:, 2]))
    np.testing.assert_allclose(np.sort(offsets[:, 1]), np.sort(codes[:, 0]))
    assert [text.get_text() for text in axes.texts] == ['zero', 'one', 'two']
    at = np.array([text.get_position() for text in axes.texts])
    np.testing.assert_allclose(at[1], np.median(codes[100:200][:, [2, 0]], axis=0))
    assert len(latent.scatter(codes, max_points=50).axes[0].collections[0].get_offsets()) == 50
    with pytest.raises(ValueError, match='with coordinates'):
        latent.scatter(codes[:, :1])
    with pytest.raises(ValueError, match='one label per code'):
        latent.scatter(codes, labels[:5])


def test_latent_variables_are_ranked_and_counted():
    figure = latent.kl_per_variable(np.array([0.5, 2.0, 0.0]), np.array([0.3, 0.9, 1e-5]))
    (axes,) = figure.axes
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], [2, 0.5, 0])
    assert '2 of 3 latent variables active' in axes.get_title(loc='left')


def test_arrows_are_drawn_at_their_length():
    points = RNG.normal(size=(6, 2))
    fields = {'ours': RNG.normal(size=(6, 2)), 'theirs': RNG.normal(size=(6, 2))}
    marks = np.linspace(-1, 1, 5)
    density = marks, marks, RNG.uniform(size=(5, 5))
    figure = latent.vector_fields(points, fields, data=points, density=density, scale=0.5)
    for axes, (name, field) in zip(figure.axes, fields.items(), strict=True):
        (quiver,) = (found for found in axes.collections if hasattr(found, 'U'))
        np.testing.assert_allclose(np.stack([quiver.U, quiver.V], 1), 0.5 * field)
        assert axes.get_title(loc='left') == name and quiver.scale == 1
    with pytest.raises(ValueError, match=r'points \[n, 2\]'):
        latent.vector_fields(points, {'ours': points[:2]})


def test_tangents_are_centered_lines_of_one_length():
    points = RNG.normal(size=(4, 2))
    directions = points / np.linalg.norm(points, axis=1, keepdims=True)
    figure = latent.tangents(points, directions, length=0.4, path=points, title='t')
    lines = [line.get_xydata() for line in figure.axes[0].lines]
    assert len(lines) == 4
    for line, point, direction in zip(lines, points, directions, strict=True):
        np.testing.assert_allclose(line.mean(0), point)
        np.testing.assert_allclose(line[1] - line[0], 0.4 * direction)
    pixels(figure)
    with pytest.raises(ValueError, match=r'points \[n, 2\]'):
        latent.tangents(points, directions[:2])


def test_the_latent_grid_is_equidistant_by_rank():
    codes = latent.latent_grid(5, max_std=2.0).reshape(5, 5, 2)
    np.testing.assert_allclose(codes[0, 0], [-2, 2])  # top left
    np.testing.assert_allclose(codes[2, 2], 0, atol=1e-12)
    steps = np.diff(stats.norm.cdf(codes[0, :, 0]))
    np.testing.assert_allclose(steps, steps[0])


def test_errors():
    with pytest.raises(ValueError, match='n >= 1'):
        image_figures.grid(np.zeros((0, 3, 3)), 2)
    with pytest.raises(ValueError, match='1 or 3'):
        image_figures.grid(np.zeros((2, 3, 3, 2)), 2)
    with pytest.raises(ValueError, match='give one for each'):
        image_figures.grid(np.zeros((4, 3, 3)), 2, row_labels=('one',))


def test_gallery_of_a_plane_has_codes_and_the_decoded_plane():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(20, 2))
    figures = latent.gallery(
        rng.uniform(size=(20, 16)),
        means=means,
        decode=lambda z: np.clip(np.tile(z[:, :1, None], (1, 4, 4)), 0, 1),
        samples=rng.uniform(size=(20, 16)),
        paths=rng.normal(size=(3, 5, 2)),
        kl=np.array([1.0, 2.0]),
        labels=np.arange(20) % 2,
        class_names=('a', 'b'),
    )
    names = ['reconstructions', 'samples', 'interpolations', 'units', 'plane', 'decoded_plane']
    assert list(figures) == names
    assert figures['plane'][0].axes[0].get_xlabel() == 'z2'  # of the largest divergence
