"""Animations: a frame for each figure."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lecture4.figures import animation


def frame(x):
    made = Figure(figsize=(2, 1))
    axes = made.add_axes((0, 0, 1, 1))
    axes.plot([0, x], [0, 1])
    axes.set_xlim(0, 3)
    return made


def test_animation_has_a_frame_for_each_figure(tmp_path):
    animation.save([frame(x) for x in (1, 2, 3)], tmp_path / 'a.gif', milliseconds=100, dpi=50)
    with Image.open(tmp_path / 'a.gif') as movie:
        assert movie.n_frames == 3 and movie.size == (100, 50)
        durations = []
        for i in range(3):
            movie.seek(i)
            durations.append(movie.info['duration'])
        assert durations == [100, 100, 400] and np.asarray(movie.convert('L')).std() > 0


def test_no_figure_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='at least one figure'):
        animation.save([], tmp_path / 'none.gif')
