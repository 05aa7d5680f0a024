"""Networks at the sizes of their papers: dense evaluation, and images of any size. Takes minutes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.vision.models import registry

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.slow


def images(h, w):
    return jnp.asarray(RNG.standard_normal((1, h, w, 3)), jnp.float32)


@pytest.mark.parametrize(
    'name, size, step', [('vgg_a', 224, 32), ('vgg_a_bn', 224, 32), ('alexnet', 227, 32)]
)
def test_dense_evaluation_is_the_network_at_every_position(name, size, step):
    """A shift by the stride shifts the logits; the padding of the convolutions matters at borders only."""
    make = registry.NETWORKS[name]
    x = images(size + step, size + 2 * step)
    variables = jax.jit(make(n_classes=10).init)(jax.random.key(0), x[:, :size, :size])
    logits, _ = jax.jit(make(n_classes=10, dense=True).apply)(variables, x)
    assert logits.shape == (1, 2, 3, 10)
    alone, _ = jax.jit(make(n_classes=10).apply)(variables, x[:, :size, :size])
    small, _ = jax.jit(make(n_classes=10, dense=True).apply)(variables, x[:, :size, :size])
    np.testing.assert_allclose(small[:, 0, 0], alone, atol=1e-4 * float(jnp.abs(alone).max()))
    # An image with the period of the stride gives equal logits in the middle.
    tile = images(step, step)
    wide = jnp.tile(tile, (1, 20, 20, 1))[:, : size + 6 * step, : size + 6 * step]
    logits, _ = jax.jit(make(n_classes=10, dense=True).apply)(variables, wide)
    middle = logits[0, 3]
    np.testing.assert_allclose(middle[3], middle[4], atol=0.05 * float(jnp.std(logits)) + 1e-6)


# One of each kind of network: the deeper ones repeat the same layers.
ANY_SIZE = [
    'alexnet_v2',
    'vgg_a_lrn',
    'vgg_a_bn',
    'vgg_c',
    'googlenet',
    'googlenet_torchvision',
    'resnet_18',
    'resnet_50',
    'plain_18',
    'cifar_resnet_8',
    'cifar_plain_8',
]


@pytest.mark.parametrize('name', ANY_SIZE)
def test_images_of_any_size_have_logits_and_gradients(name):
    network = registry.NETWORKS[name](n_classes=10)
    min_size = {'alexnet_v2': 63}.get(name, 8 if name.startswith('cifar') else 32)
    x = images(min_size, min_size + 13)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(network.apply(variables, x)[0] ** 2)))
    for shape in ((min_size, min_size + 13), (2 * min_size + 5, min_size + 1)):
        value, gradient = run(images(*shape))
        assert np.isfinite(value) and np.isfinite(gradient).all() and jnp.abs(gradient).max() > 0
    with pytest.raises(ValueError, match='too small'):
        network.apply(variables, images(min_size - 1, min_size))
