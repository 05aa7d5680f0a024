"""A training step against its formulas, on one device and on several; evaluation metrics; recipes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import special

from lecture4.ops import metrics as ops_metrics
from lecture4.ops.reduce import Reduce
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
        auxiliary = nn.Dense(self.n_classes, name='auxiliary')(x)
        return nn.Dense(self.n_classes, name='fc')(x), {'x': x, 'auxiliary_4a': auxiliary}


def cross_entropy(logits):
    return -special.log_softmax(np.asarray(logits, float), axis=1)[np.arange(8), LABELS].mean()


def test_auxiliary_losses_are_in_the_objective_not_the_metrics():
    network = Tiny()
    variables = network.init(KEY, IMAGES)
    outputs, updated = network.apply(variables, IMAGES, train=True, mutable=['batch_stats'])
    objective, metrics = jax.jit(train_step.loss)(outputs, {'labels': LABELS})
    flat = IMAGES.reshape(8, -1)
    x = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    params = variables['params']
    logits, auxiliary = (
        x @ params[name]['kernel'] + params[name]['bias'][None] for name in ('fc', 'auxiliary')
    )
    np.testing.assert_allclose(metrics['loss'], cross_entropy(logits), rtol=1e-4)
    expected = cross_entropy(logits) + 0.3 * cross_entropy(auxiliary)
    np.testing.assert_allclose(objective, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics['accuracy'], np.mean(logits.argmax(1) == LABELS))
    np.testing.assert_allclose(
        updated['batch_stats']['bn']['mean'], 0.1 * flat.mean(0), rtol=1e-4, atol=1e-6
    )


def test_a_step_on_four_devices_is_the_step_on_one():
    network, optimizer = Tiny(), optax.sgd(0.1, momentum=0.9)
    variables = network.init(KEY, IMAGES)
    opt_state = optimizer.init(variables['params'])
    batch = {'images': IMAGES, 'labels': LABELS}
    one = jax.jit(lambda *args: train_step.train_step(network, optimizer, *args))(
        variables, opt_state, batch, KEY
    )
    local_batches = jax.tree.map(lambda leaf: leaf.reshape(4, 2, *leaf.shape[1:]), batch)
    four = jax.pmap(
        lambda *args: train_step.train_step(network, optimizer, *args, Reduce('data')),
        axis_name='data',
        in_axes=(None, None, 0, None),
        out_axes=None,
    )(variables, opt_state, local_batches, KEY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, four)
    changes = jax.tree.map(lambda a, b: float(abs(a - b).max()), one[0], variables)
    assert min(jax.tree.leaves(changes)) > 1e-4


def test_accuracies_rank_ties_as_the_report_does():
    logits = RNG.integers(0, 3, (8, 9)).astype(np.float32)  # many ties
    labels = RNG.integers(0, 9, 8).astype(np.int32)
    metrics = jax.jit(train_step.eval_metrics)(logits, labels)
    ranks = ops_metrics.ranks(logits, labels)
    assert 0 < (ranks < 5).sum() < 8
    np.testing.assert_allclose(metrics['accuracy'], (ranks < 1).mean())
    np.testing.assert_allclose(metrics['top5_accuracy'], (ranks < 5).mean())
    few = jax.eval_shape(train_step.eval_metrics, jnp.zeros((2, 5)), jnp.zeros(2, jnp.int32))
    assert 'top5_accuracy' not in few


def test_only_filters_above_the_bound_are_renormalized():
    kernel = RNG.standard_normal((3, 3, 2, 4)).astype(np.float32) * [1, 0.5, 0.05, 0.01]
    params = {
        'conv1': {'kernel': jnp.asarray(kernel, jnp.float32), 'bias': jnp.ones(4)},
        'head': {'fc6': {'kernel': jnp.ones((2, 2, 1, 1))}},
    }
    actual = zfnet.renormalize_filters(params)
    rms = np.sqrt((np.asarray(actual['conv1']['kernel']) ** 2).mean((0, 1, 2)))
    np.testing.assert_allclose(rms[:2], 0.1, rtol=1e-5)
    np.testing.assert_allclose(actual['conv1']['kernel'][..., 2:], kernel[..., 2:], rtol=1e-6)
    assert actual['head']['fc6']['kernel'].max() == 1 and actual['conv1']['bias'].max() == 1


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    'name', ['alexnet', 'vgg_a_lrn', 'cifar_resnet_8', 'googlenet_torchvision']
)
def test_networks_compute_in_bfloat16_with_float32_parameters(name):
    network = registry.create(name, 5, dtype=jnp.bfloat16)
    size = {'alexnet': 227, 'cifar_resnet_8': 16}.get(name, 64)
    x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    with jax.numpy_dtype_promotion('standard'):  # flax's batch norm mixes the two inside
        (logits, activations), variables = jax.eval_shape(network.init_with_output, KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    assert logits.dtype == jnp.bfloat16 and logits.shape == (2, 5)
    others = [key for key, leaf in activations.items() if leaf.dtype != jnp.bfloat16]
    assert not others


def test_an_unknown_network_gets_the_closest_name():
    with pytest.raises(
        ValueError, match=r'unknown network resnet50; did you mean resnet_50\?.*vgg_a'
    ):
        registry.create('resnet50', 10)
    for name in registry.NETWORKS:
        assert registry.create(name, 7).n_classes == 7
