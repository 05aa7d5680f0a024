"""Galleries keep pixels and mark missing ones; curves show the numbers passed to them."""

import numpy as np
import pytest

from lecture4.figures import recovery, style


def screen(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3].astype(int)


def texts_inside(figure):
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0, text.get_text()
        assert box.x1 <= width and box.y1 <= height, text.get_text()


def test_a_small_image_is_magnified_by_whole_pixels():
    rng = np.random.default_rng(0)
    small = rng.uniform(size=(10, 12))
    figure = recovery.gallery({'a': [small, None]}, ['noisy', 'restored'], tile_size=60)
    (axes,) = figure.axes
    box = axes.get_window_extent()
    assert (box.height, box.width) == pytest.approx((50, 60))
    part = screen(figure)
    top = round(part.shape[0] - box.y1)
    seen = part[top : top + 50 : 5, round(box.x0) : round(box.x0) + 60 : 5]
    assert abs(seen - 255 * small[:, :, None]).max() <= 1
    texts_inside(figure)


def test_large_images_are_center_cropped_and_holes_marked():
    large = np.zeros((90, 61))
    large[45, 30] = np.nan
    large[0, 0] = 1
    figure = recovery.gallery(
        {'a': [large], 'b': [np.ones((20, 20, 3))]},
        ['holes'],
        notes={'a': ['20.1 dB'], 'b': ['']},
        tile_size=40,
        title='t',
    )
    first, second = figure.axes
    image = first.images[0].get_array()
    assert image.shape == (40, 40, 3) and np.count_nonzero(image.max(2)) == 1
    hole = np.argwhere(image[:, :, 0] > 0)[0]
    np.testing.assert_array_equal(hole, [20, 20])
    found = tuple(round(255 * v) for v in image[20, 20])
    assert '#{:02x}{:02x}{:02x}'.format(*found) == style.WARN
    assert (second.images[0].get_array() == 1).all()
    texts = [text.get_text() for text in figure.texts]
    assert texts.count('20.1 dB') == 1 and '' not in texts
    note = next(text for text in figure.texts if text.get_text() == '20.1 dB')
    boxes = [axes.get_window_extent() for axes in figure.axes]
    figure.canvas.draw()
    assert not any(note.get_window_extent().overlaps(box) for box in boxes)
    texts_inside(figure)


def test_rate_distortion_draws_means_at_the_counts():
    curves = {
        'learned': np.array([[30.0, 32], [33, 37], [40, 40]]),
        'DCT': np.array([28.0, 31, 39]),
    }
    figure = recovery.rate_distortion(curves, (1, 2, 8))
    (axes,) = figure.axes
    first, second = axes.lines
    np.testing.assert_array_equal(first.get_ydata(), [31, 35, 40])
    np.testing.assert_array_equal(second.get_xdata(), [1, 2, 8])
    figure.canvas.draw()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ['1', '2', '8']
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['learned', 'DCT']


def test_errors():
    with pytest.raises(ValueError, match='no row'):
        recovery.gallery({}, ['x'])
    with pytest.raises(ValueError, match="row 'a' has 1 images for 2 columns"):
        recovery.gallery({'a': [np.ones((3, 3))]}, ['x', 'y'])
    with pytest.raises(ValueError, match="row 'a' has 2 notes for 1 columns"):
        recovery.gallery({'a': [np.ones((3, 3))]}, ['x'], notes={'a': ['1', '2']})
    with pytest.raises(ValueError, match=r'\(3, 3, 2\)'):
        recovery.gallery({'a': [np.ones((3, 3, 2))]}, ['x'])
    with pytest.raises(ValueError, match=r"'DCT' has shape \(2,\).*3 counts"):
        recovery.rate_distortion({'DCT': np.array([1.0, 2])}, (1, 2, 3))
    with pytest.raises(ValueError, match='no curve'):
        recovery.rate_distortion({}, (1,))


def test_restorations_are_noted_with_their_psnr():
    truth = [np.full((6, 7), 0.5), np.full((6, 7), 0.25)]
    restored = [np.full((6, 7), 0.4), np.full((6, 7), 0.25)]
    known = [np.full((6, 7), np.nan), truth[1]]
    figure = recovery.restorations({'known': known, 'filled': restored}, truth, n=1, title='half')
    texts = [text.get_text() for text in figure.texts]
    assert {'half', 'known', 'filled', 'truth', 'image 1', '20.00 dB'} <= set(texts)
    assert len(figure.axes) == 3 and 'image 2' not in texts
