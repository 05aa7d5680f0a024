"""Figures of best stimuli: one for each question, with captions."""

import numpy as np

from lecture4.figures import lines, stimuli

RNG = np.random.default_rng(0)


def test_gallery_draws_filters_stimuli_tuning_and_paths():
    curve = {'scale': (np.arange(3), np.ones(3)), 'shift': (np.arange(5), np.ones(5))}
    figures = stimuli.gallery(
        RNG.normal(size=(16, 6)),
        {'filters 1': RNG.normal(size=(3, 5, 5, 1)), 'pooled 1': RNG.normal(size=(2, 5, 5, 1))},
        {'filters 1': curve, 'pooled 1': curve},
        {'flattest': (RNG.normal(size=(4, 3, 3, 1)), np.array([1.0, 0.9, 0.5, 0.25]))},
    )
    assert list(figures) == ['filters', 'stimuli', 'tuning', 'invariant_directions']
    assert all(caption.endswith('.') for _, caption in figures.values())
    assert [axes.get_title('left') for axes in figures['tuning'][0].axes] == ['scale', 'shift']
    texts = [text.get_text() for text in figures['invariant_directions'][0].texts]
    assert {'flattest', '100%', '25%'} <= set(texts)


def test_single_panel_has_its_title_scales_and_lines():
    curves = {'loss': (np.arange(1, 4), np.array([1.0, 0.1, 0.01]))}
    options = {'xlabel': 'step', 'yscale': 'log', 'lines': {'chance': 0.5}}
    (axes,) = lines.single('Training', curves, **options).axes
    assert (axes.get_title('left'), axes.get_xlabel(), axes.get_yscale()) == (
        'Training',
        'step',
        'log',
    )
    assert len(axes.lines) == 2


def test_a_log_scale_needs_a_decade_and_has_plain_numbers():
    x = np.arange(1, 6)
    axis = {'xlabel': 'step', 'yscale': 'log'}
    panels = {
        'narrow': axis | {'curves': {'a': (x, 2 + x / 10)}},
        'wide': axis | {'curves': {'a': (x, 10.0**x), 'b': (x, 0 * x)}},
    }
    narrow, wide = lines.panels(panels).axes
    assert (narrow.get_yscale(), wide.get_yscale()) == ('linear', 'log')
    assert wide.yaxis.get_major_formatter()(1000, 0) == '1000'
    assert np.isnan(wide.lines[1].get_ydata()).all()  # zeros have no place on it
    assert all(tick == round(tick) for tick in narrow.get_xticks())
