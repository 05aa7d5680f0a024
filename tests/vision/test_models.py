"""Every network against the published counts, and against its layer specs, layer by layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.ops import receptive_field
from lecture4.vision import layer_specs
from lecture4.vision.models import alexnet, googlenet, resnet, vgg, zfnet

NETWORKS = {
    'alexnet': (alexnet.AlexNet(), 227, 60_965_224),
    'alexnet, one group': (alexnet.AlexNet(groups=1), 227, 62_378_344),
    'alexnet v2': (alexnet.AlexNetV2(), 224, 61_100_840),
    'zfnet': (zfnet.ZFNet(), 224, 62_357_608),
    'vgg a': (vgg.VGG('a'), 224, 132_863_336),
    'vgg a lrn': (vgg.VGG('a_lrn'), 224, 132_863_336),
    'vgg b': (vgg.VGG('b'), 224, 133_047_848),
    'vgg c': (vgg.VGG('c'), 224, 133_638_952),
    'vgg d': (vgg.VGG('d'), 224, 138_357_544),
    'vgg e': (vgg.VGG('e'), 224, 143_667_240),
    'vgg a bn': (vgg.VGG('a', batch_norm=True), 224, 132_868_840),
    'vgg b bn': (vgg.VGG('b', batch_norm=True), 224, 133_053_736),
    'vgg d bn': (vgg.VGG('d', batch_norm=True), 224, 138_365_992),
    'vgg e bn': (vgg.VGG('e', batch_norm=True), 224, 143_678_248),
    'googlenet': (googlenet.GoogLeNet(), 224, 6_998_552),
    'googlenet, auxiliary': (googlenet.GoogLeNet(auxiliary=True), 224, 13_378_280),
    'googlenet, torchvision': (googlenet.GoogLeNet(version='torchvision'), 224, 6_624_904),
    'googlenet, torchvision, auxiliary': (
        googlenet.GoogLeNet(version='torchvision', auxiliary=True), 224, 13_004_888,
    ),
    'plain 34': (resnet.imagenet(34, None), 224, 21_623_848),
    'resnet 18 A': (resnet.imagenet(18, 'A'), 224, 11_515_688),
    'resnet 18 B': (resnet.imagenet(18), 224, 11_689_512),
    'resnet 18 C': (resnet.imagenet(18, 'C'), 224, 12_043_816),
    'resnet 34 A': (resnet.imagenet(34, 'A'), 224, 21_623_848),
    'resnet 34 B': (resnet.imagenet(34), 224, 21_797_672),
    'resnet 34 C': (resnet.imagenet(34, 'C'), 224, 22_716_840),
    'resnet 50': (resnet.imagenet(50), 224, 25_557_032),
    'resnet 50 v1.5': (resnet.imagenet(50, version='v1.5'), 224, 25_557_032),
    'resnet 101': (resnet.imagenet(101), 224, 44_549_160),
    'resnet 152': (resnet.imagenet(152), 224, 60_192_808),
    'cifar 20': (resnet.cifar(20), 32, 269_722),
    'cifar plain 20': (resnet.cifar(20, None), 32, 269_722),
    'cifar 20 B': (resnet.cifar(20, 'B'), 32, 272_474),
    'cifar 110': (resnet.cifar(110), 32, 1_727_962),
}  # fmt: skip


# As 50, 20 and `vgg d bn` but for the number of layers, which the counts of 50 and 20 check too.
VERY_DEEP = ('vgg b bn', 'vgg e bn', 'resnet 101', 'resnet 152', 'cifar 110')


@functools.cache
def shapes(network, image_size):
    """Variables and outputs of two images, by shape alone."""
    x = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
    outputs, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    return variables, outputs


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=pytest.mark.slow) if n in VERY_DEEP else n for n in NETWORKS],
)
def test_parameters_are_those_of_the_paper(name):
    network, image_size, expected = NETWORKS[name]
    variables, (logits, _) = shapes(network, image_size)
    assert count(variables['params']) == expected
    assert logits.shape == (2, network.n_classes)


SPECS = {
    'alexnet': (layer_specs.alexnet(), alexnet.AlexNet(), 227),
    'zfnet': (layer_specs.zfnet(), zfnet.ZFNet(), 224),
    'vgg c': (layer_specs.vgg('c'), vgg.VGG('c'), 224),
    'vgg d bn': (layer_specs.vgg('d', True), vgg.VGG('d', batch_norm=True), 224),
    'googlenet': (layer_specs.googlenet(), googlenet.GoogLeNet(), 224),
    'resnet 34 A': (layer_specs.resnet(34, 'A'), resnet.imagenet(34, 'A'), 224),
    'resnet 50': (layer_specs.resnet(50), resnet.imagenet(50), 224),
    'resnet 50 v1.5': (
        layer_specs.resnet(50, version='v1.5'), resnet.imagenet(50, version='v1.5'), 224,
    ),
    'cifar 20': (layer_specs.cifar_resnet(20), resnet.cifar(20), 32),
}  # fmt: skip


@pytest.mark.parametrize('name', SPECS)
def test_activations_have_the_sizes_of_the_specs(name):
    """All activations named as a layer of the specs."""
    stack, network, image_size = SPECS[name]
    _, (_, activations) = shapes(network, image_size)
    rows = {
        row.name: row
        for row in receptive_field.collapse(
            receptive_field.summarize(stack, (image_size, image_size, 3))
        )
    }
    shared = [layer for layer in activations if layer in rows and rows[layer].output[:-1]]
    shared = [layer for layer in shared if rows[layer].output[0] > 1]
    assert len(shared) > 8
    for layer in shared:
        assert activations[layer].shape[1:] == rows[layer].output, layer


def test_v1_strides_on_the_first_1x1_and_v1_5_on_the_3x3():
    """By the published counts of multiply-adds: 3.8 and 4.1 billion."""
    for version, gigas in (('v1', 3.86), ('v1.5', 4.09)):
        network = resnet.imagenet(50, version=version)
        variables, _ = shapes(network, 224)
        x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
        jaxpr = jax.make_jaxpr(network.apply)(variables, x)
        assert multiply_adds(jaxpr.jaxpr) / 1e9 == pytest.approx(gigas, abs=0.01)


def multiply_adds(jaxpr):
    """Of all convolutions and products of a program, counted from its shapes."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'conv_general_dilated':
            kernel = equation.invars[1].aval
            total += kernel.size // kernel.shape[-1] * equation.outvars[0].aval.size
        elif equation.primitive.name == 'dot_general':
            (over, _), _ = equation.params['dimension_numbers']
            left = equation.invars[0].aval
            total += int(np.prod([left.shape[i] for i in over])) * equation.outvars[0].aval.size
        for value in equation.params.values():
            if isinstance(value, jax.extend.core.ClosedJaxpr):
                total += multiply_adds(value.jaxpr)
        if equation.primitive.name == 'cond':  # one branch a platform
            total += max(multiply_adds(branch.jaxpr) for branch in equation.params['branches'])
    return total


@pytest.mark.cases(1)
@pytest.mark.parametrize('bottleneck', [False, True])
def test_scanned_blocks_equal_unrolled_blocks(bottleneck):
    unrolled = resnet.ResNet((1, 3), (2, 3), bottleneck, 'cifar', 5, 'C')
    scanned = unrolled.clone(scan_blocks=True)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)
    variables = jax.jit(unrolled.init)(jax.random.key(0), x)
    scanned_variables = jax.jit(scanned.init)(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, scanned_variables)
    results, loops = [], []
    for network in (unrolled, scanned):

        def loss(params, network=network):
            new_variables = variables | {'params': params}
            outputs = network.apply(new_variables, x, train=True, mutable=['batch_stats'])
            (logits, activations), updated = outputs
            return jnp.sum(logits**2) + jnp.sum(activations['conv3_2'] ** 3), (activations, updated)

        trained = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])
        traced = jax.jit(network.apply).trace(variables, x)
        loops.append(str(traced.jaxpr).count(' scan['))
        results.append((trained, traced.lower().compile()(variables, x)))
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * (1e-9 + float(jnp.abs(a).max())))
    assert loops == [0, 1]


def local_response(x, k, alpha):
    """x / (k + alpha * sum of the squares of 5 neighboring channels)^0.75, in float64."""
    x = np.asarray(x, np.float64)
    squares = np.pad(x**2, ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
    return x / (k + alpha * total) ** 0.75


@pytest.mark.parametrize('convention, k, alpha', [('paper', 2, 1e-4), ('caffe', 1, 2e-5)])
@pytest.mark.parametrize(
    'network, normalized',
    [
        (googlenet.GoogLeNet(4), {'pool1': 'norm1', 'conv2': 'norm2'}),
        (vgg.VGG('a_lrn', 4), {'conv1_1': 'norm1_1'}),
    ],
    ids=['googlenet', 'vgg a_lrn'],
)
def test_response_normalization_follows_the_convention(network, normalized, convention, k, alpha):
    """BVLC's GoogLeNet and torch have k = 1 and alpha / 5, Krizhevsky's paper k = 2 and alpha."""
    x = 1000 * np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    variables = jax.tree.map(
        lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), shapes(network, 32)[0]
    )
    network = network.clone(convention=convention)

    @jax.jit
    def run(variables, x):
        activations = network.apply(variables, x)[1]
        return {name: activations[name] for name in (*normalized, *normalized.values())}

    a = run(variables, x)
    for source, name in normalized.items():
        np.testing.assert_allclose(a[name], local_response(a[source], k, alpha), rtol=2e-5)
    assert type(network)(n_classes=4).convention == 'paper'


@pytest.mark.parametrize('across', [False, True])
def test_alexnets_streams_are_normalized_apart_unless_joined(across):
    x = 1000 * np.random.default_rng(0).standard_normal((1, 227, 227, 3)).astype(np.float32)
    network = alexnet.AlexNet(4, lrn_across_groups=across)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda v: rng.normal(0, 0.01, v.shape).astype(np.float32), shapes)
    a = jax.jit(lambda v: network.apply(v, x)[1])(variables)
    parts = np.split(a['conv1'], 1 if across else 2, axis=-1)
    expected = np.concatenate([local_response(part, 2, 1e-4) for part in parts], axis=-1)
    np.testing.assert_allclose(a['norm1'], expected, rtol=2e-5)
