"""Names from data are drawn as they are, in every figure."""

import io
import os
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from lecture4.figures import (
    classification,
    contraction,
    curves,
    deconvnet,
    descriptions,
    detection,
    dictionary,
    embeddings,
    feature_maps,
    images,
    label_efficiency,
    latent,
    layers,
    lines,
    recovery,
    spatial_transformer,
    style,
    text,
    variants,
)
from lecture4.ops.receptive_field import Layer, summarize

RNG = np.random.default_rng(0)
NAMES = (
    '$a$',
    'Ba$$in',
    'US$ and CA$',
    r'\$5 of $x_1',
    r'$\frac{1}$',
    os.fsdecode(b'caf\xe9'),
    'a\tb',
)


def screen(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


@pytest.mark.parametrize('name', NAMES[:5])
def test_dollar_signs_are_drawn_not_interpreted(name):
    def draw(text, **options):
        made = style.figure(2, 1)
        made.text(0.1, 0.5, text, **options)
        return screen(made)

    np.testing.assert_array_equal(draw(style.plain_text(name)), draw(name, parse_math=False))


def test_a_notebook_shows_a_figure_as_png():
    content = style.figure(2, 1)._repr_png_()
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == 'PNG' and image.size == (2 * style.DPI, style.DPI)


def test_characters_that_cannot_be_drawn_become_escapes():
    assert style.plain_text(os.fsdecode(b'caf\xe9')) == r'caf\xe9'
    assert style.plain_text('a\tb\ud800') == r'a\tb\ud800'
    assert style.plain_text('génial\n日本 😀') == 'génial\n日本 😀'
    assert style.plain_text(3) == '3'


def all_figures(name):
    x, x5 = np.arange(1.0, 4), np.arange(5.0)
    tiles, labels = RNG.random((3, 4, 4)), np.array([0, 1, 2])
    names, points = [name, name + '1', 'z'], RNG.random((3, 2))
    records = [{'step': i, f'recall/{name}': i, f'eval/recall/{name}': i} for i in range(3)]
    summary = summarize((Layer(name, 'conv', 2, 3),), (8, 8, 1))
    fits = SimpleNamespace(**dict.fromkeys(('orientation', 'frequency', 'r2'), np.ones(3)))
    fits.good = np.ones(3, bool)
    examples = label_efficiency.Examples(tiles, (name, '?', '1'), name)
    yield classification.confusion_matrix(np.eye(3), names, title=name)
    yield classification.top_losses(tiles[..., None], np.eye(3), labels[::-1].copy(), names)
    yield contraction.jacobian_panels({name: x}, {name: (x, x)}, {name: x / 5})
    yield curves.learning_curves(records, title=name, labels={'recall': name})
    yield curves.label_curve({name: RNG.random((2, 3))}, (1, 2), title=name, xlabel=name)
    yield curves.atom_usage(x / 5, title=name)
    yield deconvnet.top_activations({name: (tiles[..., None], tiles[..., None])})
    yield deconvnet.occlusion(tiles, {name: tiles}, titles=names)
    yield dictionary.atoms(RNG.normal(size=(16, 3)), (4, 4), title=name)
    yield dictionary.codes(
        np.ones((1, 4)), np.ones((1, 3)), np.ones((4, 3)), np.ones((1, 4)), (2, 2), title=name
    )
    yield dictionary.gabors(np.ones((4, 3)), fits, np.ones((4, 3)), (2, 2), title=name)
    yield embeddings.scatter({name: points}, labels, names, notes={name: name})
    yield feature_maps.filters(RNG.normal(size=(3, 3, 1, 2)), title=name)
    yield feature_maps.activations(tiles, {name: tiles[..., None]})
    yield images.rows({name: tiles}, notes={name: names}, title=name)
    yield images.grid(tiles, 3, title=name, row_labels=[name], column_labels=names)
    yield label_efficiency.data_table({name: [examples, name]}, [name, name], title=name)
    yield latent.scatter(points, labels, names, title=name)
    yield latent.kl_per_variable(x, x, title=name)
    yield latent.vector_fields(points, {name: points}, title=name)
    yield latent.tangents(points, points, title=name)
    yield layers.network(summary, title=name)
    panel = {'curves': {name: (x5, x5), 'b': (x5, x5)}, 'lines': {name: 2.0}, 'xlabel': name}
    yield lines.panels({name: panel | {'ylabel': name}})
    yield recovery.gallery({name: [tiles[0]]}, [name], notes={name: [name]}, title=name)
    yield recovery.rate_distortion({name: x}, (1, 2, 4), title=name, xlabel=name)
    boxes = [np.array([[1.0, 1.0, 5.0, 5.0]])]
    one = [np.array([1])]
    yield detection.detections(
        [tiles[0]], boxes, one, [np.array([0.5])], [np.array([True])], [name],
        missed=boxes, missed_labels=one, title=name,
    )  # fmt: skip
    yield descriptions.samples([tiles[0]], [[(name, name)]], title=name)
    outlines, meshes = np.zeros((3, 4, 2)), np.zeros((3, 2, 2, 2))
    pixels = tiles[..., None]
    yield spatial_transformer.attended(pixels, outlines, pixels, names)
    yield spatial_transformer.meshes(pixels, meshes, names)
    yield spatial_transformer.robustness({name: (x, {name: x / 5})})
    yield spatial_transformer.equivariance(x, {name: tiles[:, 0, :3]})
    yield text.top_ngrams({name: [(name, [(name, 1.0)])]}, title=name)
    yield variants.learning_curves([(name, name, records)], f'recall/{name}', label=name)
    yield variants.against({name: [(name, 1.0, 0.1), ('b', 2.0, 0.1)], 'b': []}, name, name)


def texts(figure):
    figure.canvas.draw()
    return {artist.get_text() for artist in figure.findobj(Text)}


@pytest.mark.cases(1)
@pytest.mark.parametrize('name', NAMES, ids=range(len(NAMES)))
def test_every_figure_draws_names_from_data(name):
    for figure in all_figures(name):
        formulas = {text for text in texts(figure) if '$' in text.replace(r'\$', '')}
        # The tick labels of log axes are formulas.
        assert all(text.startswith(r'$\mathdefault') for text in formulas)
