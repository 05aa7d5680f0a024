"""Panels of named curves."""

import pytest

from lecture4.figures import lines


@pytest.mark.parametrize(('first', 'scale'), [(float('nan'), 'linear'), (3.0, 'log')])
def test_missing_points_do_not_decide_the_scale(first, scale):
    curve = ((0.01, 0.1, 1.0), (first, 2.0, 1.0))
    fig = lines.panels({'a': {'curves': {'one': curve}, 'xscale': 'log'}})
    assert fig.axes[0].get_xscale() == scale
