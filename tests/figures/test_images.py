"""Images in rows and grids, named curves, embeddings: checked by their pixels and artists."""

import numpy as np
import pytest

from lecture4.figures import embeddings, images, lines, style


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3]


def shades(figure):
    return set(np.unique(pixels(figure)))


def test_every_image_is_shown_in_whole_pixels_and_its_own_gray():
    x = np.linspace(0.1, 0.9, 3 * 2 * 4).reshape(3, 2, 4)
    screen = pixels(images.grid(x, columns=3))
    zoom = 12
    for i in range(3):
        top, left = 8 + zoom, 8 + zoom * (1 + 5 * i)
        part = screen[top : top + 2 * zoom, left : left + 4 * zoom, 0]
        np.testing.assert_array_equal(part, part[::zoom, ::zoom].repeat(zoom, 0).repeat(zoom, 1))
        np.testing.assert_allclose(part[::zoom, ::zoom], 255 * x[i], atol=1)


def test_values_outside_the_unit_interval_are_cut_not_rescaled():
    tiles = images.as_tiles(np.array([[[-1.0, 0.5, 2.0, np.nan]]]))
    np.testing.assert_array_equal(tiles[0, 0, :, 0], [0, 0.5, 1, 0])


def test_rows_are_named_in_order_with_notes_below():
    x = np.full((4, 5, 5), 0.5)
    figure = images.rows({'clean': x, 'a longer name': x}, notes={'clean': list('abcd')}, title='t')
    texts = [text.get_text() for text in figure.texts]
    assert texts == ['clean', 'a', 'b', 'c', 'd', 'a longer name', 't']
    box = figure.bbox
    for text in figure.texts:  # nothing is cut off at the edge
        extent = text.get_window_extent(figure.canvas.get_renderer())
        assert extent.x0 >= 0 and extent.x1 <= box.width and extent.y1 <= box.height
    clean, other = (text.get_position()[1] for text in figure.texts if len(text.get_text()) > 1)
    assert clean > other


@pytest.mark.parametrize('shape', [(3, 4), (2, 3, 4, 2), (0, 3, 4)])
def test_arrays_that_are_no_images_are_refused(shape):
    with pytest.raises(ValueError, match='expected images'):
        images.grid(np.zeros(shape))


def test_rows_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match='all of one shape'):
        images.rows({'a': np.zeros((2, 3, 3)), 'b': np.zeros((3, 3, 3))})
    with pytest.raises(ValueError, match='all of one shape'):
        images.rows({})


def test_a_name_has_one_color_in_all_panels_and_one_legend():
    x = np.arange(1, 20)
    figure = lines.panels(
        {
            'first': {'curves': {'a': (x, x), 'b': (x, x**2)}, 'yscale': 'log'},
            'second': {'curves': {'b': (x, x), 'c': (x, -x)}, 'lines': {'floor': 2.0}},
        }
    )
    pixels(figure)
    first, second = figure.axes
    colors = [{line.get_label(): line.get_color() for line in axes.lines} for axes in figure.axes]
    assert colors[0]['b'] == colors[1]['b']
    assert len({colors[0]['a'], colors[0]['b'], colors[1]['c']}) == 3
    assert first.get_yscale() == 'log' and second.get_yscale() == 'linear'
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['a', 'b', 'c']
    np.testing.assert_array_equal(first.lines[1].get_ydata(), x**2)


def test_errors_name_the_curve():
    with pytest.raises(ValueError, match=r"curve 'a': .* got \(3,\) and \(4,\)"):
        lines.panels({'p': {'curves': {'a': (np.arange(3), np.arange(4))}}})
    with pytest.raises(ValueError, match='no panel'):
        lines.panels({})


def test_embeddings_show_every_point_in_the_color_of_its_class():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=60)
    points = rng.normal(size=(60, 2))
    figure = embeddings.scatter(
        {'ours': points, 'PCA': -points}, labels, 'xyz', notes={'ours': '80%'}
    )
    pixels(figure)
    assert [axes.get_title('left') for axes in figure.axes] == ['ours\n80%', 'PCA']
    for c, dots in enumerate(figure.axes[0].collections):
        np.testing.assert_array_equal(dots.get_offsets(), points[labels == c])
    with pytest.raises(ValueError, match=r'ours: expected points \[60, 2\].* got \(60, 3\)'):
        embeddings.scatter({'ours': np.zeros((60, 3))}, labels, 'xyz')


def test_ten_classes_have_ten_colors():
    assert len(set(style.CLASS_COLORS)) == 10
    assert style.COLORS[0] in style.CLASS_COLORS


def test_signed_images_have_zero_at_mid_gray():
    gray = images.around_gray(np.array([[[-2.0, 0], [1, 2]], [[0, 0], [4, 0]]]))
    np.testing.assert_allclose(gray, [[[0, 0.5], [0.75, 1]], [[0.5, 0.5], [1, 0.5]]])


def test_spaced_images_are_the_first_the_last_and_between():
    assert images.spaced(np.arange(10), 4).tolist() == [0, 3, 6, 9]


def test_rows_of_vectors_are_rows_of_images():
    x = np.random.default_rng(0).uniform(size=(3, 20))
    one, other = images.vector_rows({'a': x}, (4, 5)), images.rows({'a': x.reshape(3, 4, 5)})
    assert one.get_size_inches().tolist() == other.get_size_inches().tolist()


def test_labels_of_classes_at_one_place_do_not_overlap():
    points = np.repeat([[0.0], [0.0], [0.0], [1.0]], 2, axis=1)
    names = ['a long name', 'another name', 'a third name', 'd']
    figure = embeddings.scatter({'map': points}, np.arange(4), names)
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    for i in range(len(boxes)):
        for j in range(i):
            assert not boxes[i].overlaps(boxes[j]), (names[i], names[j])
