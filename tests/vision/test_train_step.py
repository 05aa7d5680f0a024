"""A step of training against its parts written out, on one device and on several; ranks; biases' rate."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import special

from lecture4.ops import metrics as scores
from lecture4.vision import train_step
from lecture4.vision.models import registry, zfnet

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((8, 2, 2, 3)).astype(np.float32)
LABELS = RNG.integers(0, 4, 8).astype(np.int32)
KEY = jax.random.key(0)


class Tiny(nn.Module):
    """Batch norm, two dense classifiers of which one is auxiliary."""

    n_classes: int = 4
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train=False):
        x = x.reshape(len(x), -1)
        x = nn.BatchNorm(not train, axis_name=self.axis_name, momentum=0.9, name='bn')(x)
        side = nn.Dense(self.n_classes, name='side')(x)
        return nn.Dense(self.n_classes, name='fc')(x), {'x': x, 'auxiliary_4a': side}


def cross_entropy(logits):
    return -special.log_softmax(np.asarray(logits, float), axis=1)[np.arange(8), LABELS].mean()


def test_the_objective_has_the_auxiliary_losses_and_metrics_have_not():
    network = Tiny()
    variables = network.init(KEY, IMAGES)
    objective, (statistics, metrics) = jax.jit(train_step.loss, static_argnums=0)(
        network, variables, IMAGES, LABELS, KEY
    )
    flat = IMAGES.reshape(8, -1)
    x = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    params = variables['params']
    logits, side = (
        x @ params[name]['kernel'] + params[name]['bias'][None] for name in ('fc', 'side')
    )
    np.testing.assert_allclose(metrics['loss'], cross_entropy(logits), rtol=1e-4)
    expected = cross_entropy(logits) + 0.3 * cross_entropy(side)
    np.testing.assert_allclose(objective, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics['top1'], np.mean(logits.argmax(1) == LABELS))
    np.testing.assert_allclose(statistics['bn']['mean'], 0.1 * flat.mean(0), rtol=1e-4, atol=1e-6)


def test_a_step_on_four_devices_is_the_step_on_one():
    network, optimizer = Tiny(), optax.sgd(0.1, momentum=0.9)
    variables = network.init(KEY, IMAGES)
    memory = optimizer.init(variables['params'])
    batch = {'images': IMAGES, 'labels': LABELS}
    whole = jax.jit(lambda *given: train_step.descend(network, optimizer, *given))(
        variables, memory, batch, KEY
    )
    shares = jax.tree.map(lambda leaf: leaf.reshape(4, 2, *leaf.shape[1:]), batch)
    shared = jax.pmap(
        lambda *given: train_step.descend(network, optimizer, *given, axis_name='data'),
        axis_name='data', in_axes=(None, None, 0, None), out_axes=None,
    )(variables, memory, shares, KEY)  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, shared)
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), whole[0], variables)
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_quality_ranks_as_the_report_does():
    logits = RNG.integers(0, 3, (8, 9)).astype(np.float32)  # many ties
    labels = RNG.integers(0, 9, 8).astype(np.int32)
    found = train_step.quality(jnp.asarray(logits), jnp.asarray(labels))
    ranks = scores.ranks(logits, labels)
    assert 0 < (ranks < 5).sum() < 8
    np.testing.assert_allclose(found['top1'], (ranks < 1).mean())
    np.testing.assert_allclose(found['top5'], (ranks < 5).mean())
    assert 'top5' not in train_step.quality(jnp.zeros((2, 5)), jnp.zeros(2, jnp.int32))


def test_biases_learn_at_their_own_rate():
    grads = {'conv1': {'kernel': jnp.ones(2), 'bias': jnp.ones(3)}, 'bn': {'scale': jnp.ones(1)}}
    found, _ = train_step.scaled_biases(2.0).update(grads, optax.EmptyState())
    assert found['conv1']['bias'][0] == 2 and found['conv1']['kernel'][0] == 1
    assert found['bn']['scale'][0] == 1


def test_filters_beyond_the_bound_are_scaled_back_and_others_kept():
    kernel = RNG.standard_normal((3, 3, 2, 4)).astype(np.float32) * [1, 0.5, 0.05, 0.01]
    given = {
        'conv1': {'kernel': jnp.asarray(kernel, jnp.float32), 'bias': jnp.ones(4)},
        'head': {'fc6': {'kernel': jnp.ones((2, 2, 1, 1))}},
    }
    found = zfnet.limited(given)
    size = np.sqrt((np.asarray(found['conv1']['kernel']) ** 2).mean((0, 1, 2)))
    np.testing.assert_allclose(size[:2], 0.1, rtol=1e-5)
    np.testing.assert_allclose(found['conv1']['kernel'][..., 2:], kernel[..., 2:], rtol=1e-6)
    assert found['head']['fc6']['kernel'].max() == 1 and found['conv1']['bias'].max() == 1


@pytest.mark.parametrize(
    'name', ['alexnet', 'vgg_a_lrn', 'googlenet_torchvision', 'cifar_resnet_8']
)
def test_networks_compute_in_bfloat16_with_float32_parameters(name):
    network = registry.named(name, 5, dtype=jnp.bfloat16)
    side = {'alexnet': 227, 'cifar_resnet_8': 16}.get(name, 64)
    x = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    with jax.numpy_dtype_promotion('standard'):  # flax's batch norm mixes the two inside
        variables = jax.eval_shape(network.init, KEY, x)
        logits, activations = jax.eval_shape(network.apply, variables, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    assert logits.dtype == jnp.bfloat16 and logits.shape == (2, 5)
    wide = [key for key, leaf in activations.items() if leaf.dtype != jnp.bfloat16]
    assert not wide


def test_an_unknown_network_is_told_with_the_nearest():
    with pytest.raises(
        ValueError, match=r'network resnet50 is unknown; did you mean resnet_50\?.*vgg_a'
    ):
        registry.named('resnet50', 10)
    for name in registry.NETWORKS:
        assert registry.named(name, 7).n_classes == 7
