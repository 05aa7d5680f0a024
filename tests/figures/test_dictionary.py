"""Figures of dictionaries, checked by their pixels."""

import collections
import io
import subprocess
import sys

import matplotlib
import matplotlib._pylab_helpers
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lecture4.figures import dictionary, style

GRAY = round(255 * style.BACKGROUND)


def pixels(figure):
    """The screen as the reader sees it, [h, w, 3]."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3].astype(int)


def mosaic_part(image):
    """The rectangle that the gray background spans."""
    gray = (image == GRAY).all(2)
    rows, columns = np.flatnonzero(gray.any(1)), np.flatnonzero(gray.any(0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def noise(k, shape=(5, 4), seed=0):
    return np.random.default_rng(seed).standard_normal((int(np.prod(shape)), k))


@pytest.mark.parametrize(('k', 'columns', 'rows'), [(1, None, 1), (7, None, 3), (7, 4, 2)])
def test_every_atom_is_a_tile_on_gray(k, columns, rows):
    part = mosaic_part(pixels(dictionary.atoms(noise(k), (5, 4), columns=columns, title='t')))
    tiles, count = ndimage.label((part != GRAY).any(2))
    assert count == k
    boxes = ndimage.find_objects(tiles)
    assert len({box[0].start for box in boxes}) == rows
    sizes = {(box[0].stop - box[0].start, box[1].stop - box[1].start) for box in boxes}
    (size,) = sizes  # all equal: nothing is resampled
    zoom = size[0] // 5
    assert size == (5 * zoom, 4 * zoom) and zoom >= 4
    assert (part[0] == GRAY).all() and (part[:, 0] == GRAY).all() and (part[-1] == GRAY).all()


def test_pixels_are_exact_squares_of_the_atoms_values():
    D = noise(6)
    part = mosaic_part(pixels(dictionary.atoms(D, (5, 4), columns=3)))
    zoom = part.shape[1] // (3 * 5 + 1)
    small = part[zoom // 2 :: zoom, zoom // 2 :: zoom]
    np.testing.assert_array_equal(part, small.repeat(zoom, 0).repeat(zoom, 1))
    for j in range(6):
        top, left = 1 + j // 3 * 6, 1 + j % 3 * 5
        seen = small[top : top + 5, left : left + 4]
        want = 127.5 + 127.5 * D[:, j].reshape(5, 4, 1) / abs(D[:, j]).max()
        assert abs(seen - want).max() <= 1


def test_sign_is_visible_and_zero_is_mid_gray():
    atom = np.zeros((4, 4))
    atom[0], atom[3] = 1e-8, -1e-8
    D = np.stack([atom.ravel(), 1e12 * atom.ravel(), 0 * atom.ravel()], 1)
    part = mosaic_part(pixels(dictionary.atoms(D, (4, 4), columns=3)))
    zoom = part.shape[0] // 6
    small = part[zoom // 2 :: zoom, zoom // 2 :: zoom, 0]
    tiles = [small[1:5, 1 + 5 * j : 5 + 5 * j] for j in range(3)]
    assert (tiles[0][0] == 255).all() and (tiles[0][3] == 0).all()
    assert abs(tiles[0][1:3] - 127.5).max() <= 0.5
    np.testing.assert_array_equal(tiles[1], tiles[0])  # each atom by its own scale
    assert abs(tiles[2] - 127.5).max() <= 0.5  # a dead atom is flat


def test_order_and_n_choose_the_tiles():
    D = np.zeros((16, 4))
    D[np.arange(4), np.arange(4)] = 1  # atom j is white at its j-th pixel
    part = mosaic_part(
        pixels(dictionary.atoms(D, (4, 4), order=[2, 0, 3, 1], n=3, columns=3, title=''))
    )
    zoom = part.shape[0] // 6
    small = part[zoom // 2 :: zoom, zoom // 2 :: zoom, 0]
    assert [int(small[1, 1 + 5 * i : 5 + 5 * i].argmax()) for i in range(3)] == [2, 0, 3]


def test_color_atoms_keep_their_hue():
    atom = np.zeros((4, 4, 3))
    atom[:, :2, 0], atom[:, 2:, 2] = 1, -1
    part = mosaic_part(pixels(dictionary.atoms(atom.reshape(-1, 1), (4, 4, 3))))
    middle = part[part.shape[0] // 2]
    left, right = middle[part.shape[1] // 3], middle[2 * part.shape[1] // 3]
    assert abs(left - [255, 127.5, 127.5]).max() <= 0.5
    assert abs(right - [127.5, 127.5, 0]).max() <= 0.5


def test_saved_file_is_what_the_canvas_shows():
    figure = dictionary.atoms(noise(5), (5, 4), title='five atoms')
    shown = pixels(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format='png')
    saved = np.asarray(Image.open(stream).convert('RGB'))
    np.testing.assert_array_equal(saved, shown)
    assert (shown[:30] < 100).any()  # the title's ink


def test_the_canvas_has_exactly_the_requested_pixels():
    for n in range(101, 1400, 17):
        assert style.figure(n / style.DPI, 300 / style.DPI).canvas.get_width_height() == (n, 300)


def test_codes_are_drawn_as_sums():
    rng = np.random.default_rng(1)
    D = rng.standard_normal((36, 8))
    a = np.zeros((3, 8))
    a[0, [2, 5, 6]] = 0.8, -0.31, 0.001
    a[1, 7] = -2.5
    x = a @ D.T
    x[0] += 0.1
    figure = dictionary.codes(x, a, D, a @ D.T, (6, 6), n_atoms=2, title='sums')
    texts = collections.Counter(text.get_text() for text in figure.texts)
    for text in ('0.800', '0.310', '\N{MINUS SIGN}2.50', 'atom 2', 'atom 5', 'atom 7', '+ 1 more'):
        assert texts[text] == 1, text
    assert texts['atom 6'] == 0
    minus = '\N{MINUS SIGN}'
    assert (texts['='], texts['=' + minus], texts[minus], texts['+']) == (2, 0, 1, 0)
    missed = 0.36 / (x[0] ** 2).sum()
    assert texts[f'misses {missed:.0%}'] == 1 and texts['misses 0%'] >= 1
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(images) == 3 * 2 + 2 + 1
    gray = [image[:, :, 0] for image in images]
    scale = abs(x[0]).max()
    np.testing.assert_allclose(gray[0], 0.5 + 0.5 * x[0].reshape(6, 6) / scale)
    inside = np.clip((a @ D.T)[0].reshape(6, 6) / scale, -1, 1)
    np.testing.assert_allclose(gray[1], 0.5 + 0.5 * inside)
    for shown, j in ((gray[2], 2), (gray[3], 5), (gray[6], 7)):
        np.testing.assert_allclose(shown, 0.5 + 0.5 * (D[:, j] / abs(D[:, j]).max()).reshape(6, 6))
    stems = [axes for axes in figure.axes if not axes.images]
    heights = [axes.collections[1].get_offsets().tolist() for axes in stems]
    assert heights == [[[2, 0.8], [5, -0.31], [6, 0.001]], [[7, -2.5]], []]
    assert pixels(figure).shape[0] < pixels(figure).shape[1]


def test_texts_do_not_overlap_the_tiles():
    """Texts under tiles stay between the tiles of their row and the next."""
    rng = np.random.default_rng(2)
    D, a = rng.standard_normal((64, 30)), rng.standard_normal((4, 30))
    figure = dictionary.codes(a @ D.T, a, D, a @ D.T, (8, 8))
    figure.canvas.draw()
    boxes = [axes.bbox for axes in figure.axes if axes.images]
    for text in figure.texts:
        extent = text.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width
        assert not any(extent.overlaps(box) for box in boxes), text.get_text()


Fits = collections.namedtuple('Fits', 'orientation frequency r2 good')


def test_gabor_overview_places_every_atom():
    k = 9
    orientation, frequency = np.linspace(0, 3, k), np.linspace(0.05, 0.35, k)
    r2 = np.linspace(0.2, 0.99, k)
    orientation[0] = frequency[0] = np.nan  # a dead atom has no position
    good = r2 > 0.7
    D = noise(k, (6, 6))
    fitted = noise(k, (6, 6), seed=3)
    figure = dictionary.gabors(D, Fits(orientation, frequency, r2, good), fitted, (6, 6), n=2)
    polar = next(axes for axes in figure.axes if not axes.images)
    rings, dots = polar.collections
    np.testing.assert_allclose(dots.get_offsets(), np.stack([orientation, frequency], 1)[good])
    assert len(rings.get_offsets()) == (~good).sum()
    np.testing.assert_allclose(dots.get_sizes() / dots.get_sizes()[-1], r2[good] / r2[-1])
    pairs = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in pairs] == ['R² 0.990', 'R² 0.891']
    image = pairs[1].images[0].get_array()[:, :, 0]
    for left, values in ((1, D[:, k - 2]), (8, fitted[:, k - 2])):
        want = 0.5 + 0.5 * values.reshape(6, 6) / abs(values).max()
        np.testing.assert_allclose(image[1:7, left : left + 6], want)
    screen = pixels(figure)
    assert (abs(screen - [90, 163, 207]).max(2) < 60).sum() > 100  # the blue dots
    assert any('of 9 atoms' in text.get_text() for text in figure.texts)


def test_gabor_overview_without_a_good_fit():
    nothing = np.full(3, np.nan)
    fits = Fits(nothing, nothing, np.zeros(3), np.zeros(3, bool))
    figure = dictionary.gabors(noise(3, (4, 4)), fits, np.zeros((16, 3)), (4, 4))
    pixels(figure)
    assert not any(axes.images for axes in figure.axes)


def test_no_global_setting_changes():
    before = dict(matplotlib.rcParams)
    dictionary.atoms(noise(2), (5, 4))
    with pytest.raises(ValueError):
        dictionary.atoms(noise(2), (5, 5))
    assert dict(matplotlib.rcParams) == before
    assert not matplotlib._pylab_helpers.Gcf.figs
    code = 'import sys, lecture4.figures.dictionary, lecture4.figures.curves\n'
    code += "sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], timeout=60).returncode == 0


def test_errors_name_the_shapes():
    with pytest.raises(ValueError, match=r'\(5, 5\) does not hold the 20 rows'):
        dictionary.atoms(noise(2), (5, 5))
    with pytest.raises(ValueError, match='2 channels'):
        dictionary.atoms(noise(2), (5, 2, 2))
    with pytest.raises(ValueError, match='no atom to draw'):
        dictionary.atoms(noise(2), (5, 4), n=0)
    with pytest.raises(ValueError, match='columns'):
        dictionary.atoms(noise(1)[:, 0], (5, 4))
    x, a, D = np.ones((3, 20)), np.ones((3, 2)), noise(2)
    with pytest.raises(ValueError, match=r'codes \(3, 3\)'):
        dictionary.codes(x, np.ones((3, 3)), D, x, (5, 4))
    with pytest.raises(ValueError, match=r'reconstructions \(2, 20\)'):
        dictionary.codes(x, a, D, x[:2], (5, 4))
