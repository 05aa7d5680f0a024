"""Which layers, images and squares a visualization chooses."""

import numpy as np
import pytest

from lecture4.vision import visualization
from lecture4.vision.models import registry


def test_least_certain_are_correct_images_one_for_each_class():
    probs = np.array([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.55, 0.45]])
    labels = np.array([0, 0, 1, 1, 1])  # the last is wrong
    assert visualization.least_certain(probs, labels, 5) == [0, 2]
    assert visualization.least_certain(probs, labels, 1) == [0]


def test_layers_are_three_feature_maps_or_those_that_are_named():
    network = registry.create('small', 9)
    layers = visualization.choose_layers(network, (48, 48, 3))
    assert len(layers) == 3 and not any('/' in name for name in layers)
    assert visualization.choose_layers(network, (48, 48, 3), ['pool1']) == ('pool1',)
    with pytest.raises(ValueError, match='layers: pool9 is not one of conv1, '):
        visualization.choose_layers(network, (48, 48, 3), ['pool9'])
    with pytest.raises(ValueError, match='too small'):
        visualization.choose_layers(network, (8, 8, 3))


def test_occluder_keeps_the_paper_proportions():
    assert visualization.occluder(224) == (50, 10)
    assert visualization.occluder(4) == (1, 1)
