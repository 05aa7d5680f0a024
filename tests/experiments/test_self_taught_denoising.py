"""Self-taught denoising: what the features see, what is learned, functions of raw images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.autoencoders import self_taught_denoising
from lecture4.ops.reduce import Reduce


def test_features_never_see_labeled_images_and_random_weights_never_learn():
    config = self_taught_denoising.Config(steps=3, latent_dim=8)
    data = self_taught_denoising.data(config)
    task, x = data.report_data, np.asarray(data.device_arrays)
    unlabeled = {row.tobytes() for row in np.concatenate([x, data.evaluation])}
    for images in (task.train_images, task.test_images):
        assert not unlabeled & {row.tobytes() for row in images.reshape(len(images), -1)}
    assert data.spec.num_classes == 5 and set(task.test_labels) == set(range(5))
    learner = self_taught_denoising.build(config, data.spec)
    batch = jnp.asarray(x[:50])
    before = jax.jit(learner.init)(jax.random.key(0), batch)
    after, _ = jax.jit(lambda *given: learner.step(*given, Reduce()))(
        before, batch, jax.random.key(1)
    )
    images = task.test_images[:20]
    encoders = self_taught_denoising.features(config, data.spec)
    first, then = (
        {name: encode(state.params, jnp.asarray(images)) for name, encode in encoders.items()}
        for state in (before, after)
    )
    changed = {name for name in first if not np.array_equal(first[name], then[name])}
    assert changed == {'denoising', 'raw + denoising'}
    assert not np.array_equal(first['random weights'], first['denoising'])
    functions = self_taught_denoising.apply(config, data.spec)
    np.testing.assert_array_equal(functions['encode'](after, images), then['denoising'])
    assert functions['reconstruct'](after, images).shape == (20, 64)


def test_more_labels_than_images_are_refused():
    config = self_taught_denoising.Config(labels_per_class=(2, 501))
    with pytest.raises(ValueError, match=r'--labels_per_class 501, but digits has a class of \d+'):
        self_taught_denoising.data(config)
    config = dataclasses.replace(config, labels_per_class=(6,), candidates_per_class=5)
    with pytest.raises(ValueError, match='use at most 5'):
        self_taught_denoising.data(config)
