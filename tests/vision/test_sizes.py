"""Networks at the sizes of their papers: dense evaluation, and pictures of any size. Minutes: run with -m slow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.vision.models import registry

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.slow


def pictures(h, w):
    return jnp.asarray(RNG.standard_normal((1, h, w, 3)), jnp.float32)


@pytest.mark.parametrize(
    'name, side, step', [('vgg_a', 224, 32), ('vgg_a_bn', 224, 32), ('alexnet', 227, 32)]
)
def test_a_dense_evaluation_is_the_network_at_every_place_but_for_the_borders(name, side, step):
    """Moved by a whole stride the logits move too; without padding (AlexNet has some) they are crops'."""
    make = registry.NETWORKS[name]
    x = pictures(side + step, side + 2 * step)
    variables = jax.jit(make(n_classes=10).init)(jax.random.key(0), x[:, :side, :side])
    logits, _ = jax.jit(make(n_classes=10, dense=True).apply)(variables, x)
    assert logits.shape == (1, 2, 3, 10)
    alone, _ = jax.jit(make(n_classes=10).apply)(variables, x[:, :side, :side])
    small, _ = jax.jit(make(n_classes=10, dense=True).apply)(variables, x[:, :side, :side])
    np.testing.assert_allclose(small[:, 0, 0], alone, atol=1e-4 * float(jnp.abs(alone).max()))
    # A picture that repeats itself with the period of the stride gives one answer in the middle.
    tile = pictures(step, step)
    wide = jnp.tile(tile, (1, 20, 20, 1))[:, : side + 6 * step, : side + 6 * step]
    logits, _ = jax.jit(make(n_classes=10, dense=True).apply)(variables, wide)
    middle = logits[0, 3]
    np.testing.assert_allclose(middle[3], middle[4], atol=0.05 * float(jnp.std(logits)) + 1e-6)


# One of a family: its deeper members repeat the same layers.
ANY_SIZE = [
    'one_tower', 'vgg_a_lrn', 'vgg_a_bn', 'vgg_c', 'googlenet', 'googlenet_torchvision', 'resnet_18',
    'resnet_50', 'plain_18', 'cifar_resnet_8', 'cifar_plain_8',
]  # fmt: skip


@pytest.mark.parametrize('name', ANY_SIZE)
def test_pictures_of_any_size_are_told_and_have_gradients(name):
    network = registry.NETWORKS[name](n_classes=10)
    least = {'one_tower': 63}.get(name, 8 if name.startswith('cifar') else 32)
    x = pictures(least, least + 13)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(network.apply(variables, x)[0] ** 2)))
    for shape in ((least, least + 13), (2 * least + 5, least + 1)):
        value, gradient = run(pictures(*shape))
        assert np.isfinite(value) and np.isfinite(gradient).all() and jnp.abs(gradient).max() > 0
    with pytest.raises(ValueError, match='too small'):
        network.apply(variables, pictures(least - 1, least))
