"""Every public function with a loop works within what users write around it.

That is a matter of types, decided when a program is traced: nothing here is compiled. Inside `shard_map` a
loop's carry has to vary over the devices from the start if its body mixes it with data that do; inside
`scan` the whole function is a body. Solvers, dictionary learners and classifiers are in tests/sparse and
tests/classifiers, with their results.
"""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from lecture4.autoencoder import (
    deep,
    denoising,
    importance_sampling,
    linear,
    manifold,
    network,
    psd,
    stochastic,
    topk,
    vae,
)
from lecture4.data.images import distort
from lecture4.features import active_learning, jacobian, label_efficiency, self_taught, stimulus
from lecture4.language import alignment, decoding, recurrent, segments
from lecture4.ops import boxes, conv, conv_cpu, linalg, losses, prox, roi, sampling
from lecture4.ops.reduce import Reduce
from lecture4.sparse import recovery
from lecture4.vision import train_step
from lecture4.vision.detection import targets
from lecture4.vision.models import cnn, resnet

ROOT = pathlib.Path(__file__).parent.parent
KEY = jax.random.key(0)
D = jax.random.normal(KEY, (16, 8)) / 4
OPTIMIZER = optax.adam(1e-2)
SINGLE = jnp.ones((1, 16))  # an example to initialize by
LABELS = jnp.array([0, 1, 0, 1])
AUTOENCODER = network.init_autoencoder(KEY, (16, 8))
VAE = vae.mlp(16, (8,), 2)
VAE_PARAMS = VAE.init(KEY)
CNN = cnn.CNN((2,), 3)
CNN_PARAMS = cnn.init(KEY, CNN, (4, 4, 1))
RESNET = resnet.cifar(14, n_classes=3, scan_blocks=True)
RESNET_VARIABLES = jax.eval_shape(RESNET.init, KEY, jnp.zeros((1, 8, 8, 3)))
RESNET_VARIABLES = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), RESNET_VARIABLES)


def images(x):
    return x.reshape(-1, 4, 4, 1)


def edges(x):
    """Boxes [n, 4] of positive width and height."""
    return jnp.concatenate([x[:, :2], x[:, :2] + 1 + x[:, 2:4] ** 2], 1)


def grad(f):
    return jax.grad(lambda x: jnp.sum(f(x)))


def next_words(state, last):
    return state + last[:, None].astype(state.dtype), jax.nn.log_softmax(state)


def fine_tuned(x):
    layers = deep.init_classifier(AUTOENCODER, 2)
    examples = x, LABELS
    return deep.fine_tune(
        layers, examples, examples, KEY, n_epochs=2, batch_size=2, optimizer=OPTIMIZER
    )


def halves(x):
    return {'images': x.reshape(2, 2, 16), 'labels': LABELS.reshape(2, 2), 'mask': x[:2, :2] > 0}


# Of x [4, 16]; step functions learn from it.
FUNCTIONS = {
    'log_threshold': lambda x: prox.log_threshold(x, 0.1),
    'categorical_nll of known labels': lambda x: losses.categorical_nll(x[:, :2], LABELS),
    'masking at a known rate': lambda x: denoising.masking(KEY, x, jnp.asarray(0.3)),
    'nms': lambda x: boxes.nms(edges(x), x[:, 4], 0.5, tile_size=2, max_outputs=3),
    'soft_nms': lambda x: boxes.soft_nms(edges(x), x[:, 4], max_outputs=3),
    'lipschitz': linalg.lipschitz,
    'conv': grad(lambda x: conv.cross_correlate(images(x), jnp.ones((3, 3, 1, 2), jnp.float32))),
    'conv kernels': grad(
        lambda x: conv.cross_correlate(
            jnp.ones((2, 8, 8, 1), jnp.float32), x[:, :9].reshape(3, 3, 1, 4)
        )
    ),
    'conv on a CPU, shared kernel': lambda x: jax.grad(
        lambda kernel: jnp.sum(
            conv_cpu.conv_general_dilated(
                images(x), kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=conv_cpu.NUMBERS
            )
            ** 2
        )
    )(jnp.ones((3, 3, 1, 2), jnp.float32)),
    'roi_pool, shared map': lambda x: jax.grad(
        lambda v: jnp.sum(roi.roi_pool(v, edges(x), 2, 1.0) ** 2)
    )(jnp.ones((4, 4, 2))),
    'grid_sample, shared image': lambda x: jax.grad(
        lambda v: jnp.sum(sampling.sample(v, x[None, :, :2]) ** 2)
    )(jnp.ones((1, 4, 4, 1))),
    'manual_backprop, shared parameters': lambda x: jax.grad(cnn.loss_fn(CNN, manual=True))(
        CNN_PARAMS, images(x), LABELS
    ),
    'grid_sample': grad(lambda x: sampling.sample(images(x), x[:, None, :2])),
    'sample points': grad(lambda x: sampling.sample(jnp.ones((4, 3, 3, 1)), x[:, None, :2])),
    'roi_pool': grad(lambda x: roi.roi_pool(x[:, :, None], edges(x), 2, 1.0)),
    'roi_align': grad(lambda x: roi.roi_align(x[:, :, None], edges(x), 2, 1.0, 2)),
    'learn_dictionary': lambda x: recovery.learn_dictionary(
        KEY, x, 3, l1_penalty=0.1, n_steps=2, batch_size=2
    ),
    'compress': lambda x: recovery.compress(
        x, lambda v: recovery.keep_largest(v, jnp.eye(16), 2), patch_size=4
    ),
    'least_certain': lambda x: active_learning.least_certain(
        x @ x.T, LABELS, jnp.arange(2), 2, n_classes=2, queries_per_round=1
    ),
    'most_diverse': lambda x: active_learning.most_diverse(x @ x.T, jnp.arange(1), 2),
    'choose_C': lambda x: label_efficiency.choose_C(
        x @ x.T, LABELS, jnp.eye(4, dtype=bool), n_classes=2
    ),
    'contraction': lambda x: jacobian.contraction(jnp.tanh, x, KEY, jnp.ones(2)),
    'maximize': lambda x: stimulus.maximize(lambda v: jnp.sum(v**2), x, n_steps=2),
    'maximize a learned response': lambda x: stimulus.maximize(
        lambda v: jnp.sum(v * x[0]), jnp.ones((2, 16)), n_steps=2
    ),
    'invariant_directions': lambda x: stimulus.invariant_directions(
        lambda v: jnp.sum(jnp.tanh(v)), x[0]
    ),
    'encode_images': lambda x: self_taught.encode_images(
        images(x),
        self_taught.threshold_encoder(jnp.ones((4, 3)), 0.1),
        patch_size=2,
        stride=1,
        contrast_epsilon=0.1,
        whitening=linalg.zca(jnp.eye(4), 0.1),
        tile=3,
    ),
    'distort': lambda x: distort.distort(KEY, images(x), 'TC'),
    'psd.infer': lambda x: psd.infer(
        psd.init(KEY, SINGLE, 8, OPTIMIZER).params, x, l1_penalty=0.1, coupling=1.0
    ),
    'gradient_moments': lambda x: stochastic.gradient_moments(
        lambda key: x * jax.random.normal(key), KEY, 3
    ),
    'importance_bound': lambda x: importance_sampling.importance_bound(
        VAE, VAE_PARAMS, x, KEY, n_samples=4, chunk=2
    ),
    'log_likelihood': lambda x: importance_sampling.log_likelihood(
        VAE, VAE_PARAMS, x, KEY, n_samples=4, chunk=2, tile=3
    ),
    'denoiser': lambda x: manifold.denoiser(x, x, 0.1, tile=3),
    'denoiser of known points': lambda x: manifold.denoiser(jnp.ones((4, 16)), x, 0.1, tile=3),
    'tangent_walk': lambda x: manifold.tangent_walk(jnp.tanh, x, n_steps=2, step_size=0.1),
    'random_walk': lambda x: manifold.random_walk(KEY, jnp.tanh, x, n_steps=2, std=0.1),
    'random_walk of learned steps': lambda x: manifold.random_walk(
        KEY, lambda v: v * x[:1], jnp.ones((2, 16)), n_steps=2, std=0.1
    ),
    'linear.converge': lambda x: linear.converge(linear.init(KEY, 16, 3), x, jnp.eye(16)[:, :3], 2),
    'fine_tune': fine_tuned,
    'topk.encode': lambda x: topk.encode(AUTOENCODER, x, 2),
    'greedy': lambda x: decoding.greedy(next_words, x, max_length=3),
    'sample words': lambda x: decoding.sample(KEY, next_words, x, max_length=3),
    'beam_search': lambda x: decoding.beam_search(next_words, x, width=2, max_length=3),
    'recurrence': lambda x: recurrent.run(
        'lstm', x[:, None].repeat(3, 1), jnp.ones((4, 3), bool), jnp.ones((4, 16), jnp.float32)
    ),
    'all_scores': lambda x: alignment.all_scores(
        x[:, None], x[:2, None], jnp.ones((2, 1), bool), chunk=2
    ),
    'assign_regions': lambda x: segments.assign_regions(x[:, :, None], jnp.ones((4, 16), bool)),
    'assign_regions, beta': lambda x: segments.assign_regions(
        jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool), x[0, 0]
    ),
    'scan_blocks': lambda x: RESNET.apply(
        RESNET_VARIABLES, jnp.broadcast_to(x[:, :8, None, None], (4, 8, 8, 3))
    )[0],
    'evaluate_chunks': lambda x: train_step.evaluate_chunks(
        lambda _, rows: rows @ D[:, :3], (), {k: v for k, v in halves(x).items() if k != 'mask'}
    ),
    'error_of_chunks': lambda x: train_step.error_of_chunks(lambda v: v @ D[:, :3], halves(x)),
    'anchor_targets': lambda x: targets.anchor_targets(
        KEY, edges(x), edges(x)[:2], jnp.ones(2, bool), jnp.array([9, 9]), num_samples=2
    ),
    'roi_targets': lambda x: targets.roi_targets(
        KEY,
        edges(x),
        jnp.ones(4, bool),
        edges(x)[:2],
        jnp.arange(2),
        jnp.ones(2, bool),
        num_samples=2,
    ),
}
X = jax.random.normal(KEY, (4, 16))
N = jax.device_count()
MESH = jax.make_mesh((N,), ('i',), axis_types=(AxisType.Auto,))
SPLIT, SAME = PartitionSpec('i'), PartitionSpec()


def in_shard_map(f, x):
    """The same four rows on each device."""
    sharded = jax.shard_map(f, mesh=MESH, in_specs=SPLIT, out_specs=SPLIT)
    return jax.tree.map(lambda v: v[: len(v) // N], sharded(jnp.concatenate([x] * N)))


def in_vmap_of_jit(f, x):
    return jax.tree.map(lambda v: v[0], jax.vmap(jax.jit(f))(jnp.stack([x, x])))


def in_scan(f, x):
    return jax.tree.map(lambda v: v[0], jax.lax.scan(lambda c, x: (c, f(x)), 0, x[None])[1])


def in_remat(f, x):
    return jax.checkpoint(f)(x)


@pytest.mark.cases(2)
@pytest.mark.parametrize('name', FUNCTIONS)
def test_loops_work_inside_shard_map(name):
    check_types(name, in_shard_map)


@pytest.mark.slow
@pytest.mark.parametrize('context', [in_vmap_of_jit, in_scan, in_remat])
@pytest.mark.parametrize('name', FUNCTIONS)
def test_loops_work_within(name, context):
    check_types(name, context)


@pytest.mark.slow
@pytest.mark.parametrize('name', FUNCTIONS)
def test_float32_may_enter_where_float64_is_the_default(name):
    """JAX_ENABLE_X64 makes 64 bits of every number that has no type of its own."""
    alone = jax.eval_shape(FUNCTIONS[name], X)
    with jax.enable_x64(True), jax.numpy_dtype_promotion('standard'):
        other = jax.eval_shape(lambda x: FUNCTIONS[name](x), X)
    assert jax.tree.map(jnp.shape, other) == jax.tree.map(jnp.shape, alone)


def check_types(name, context):
    def rows(x):
        return jax.tree.map(jnp.atleast_1d, FUNCTIONS[name](x))

    alone = jax.eval_shape(rows, X)
    within = jax.eval_shape(functools.partial(context, rows), X)
    assert jax.tree.map(lambda v: (v.shape, v.dtype), within) == jax.tree.map(
        lambda v: (v.shape, v.dtype), alone
    )


@pytest.mark.cases(1)
@pytest.mark.parametrize('name', [name for name in FUNCTIONS if 'shared' in name])
def test_gradients_by_what_devices_share_are_sums_over_them(name):
    """Of the loss of all rows, although each device differentiates its own: also custom gradients."""
    rows = jax.random.normal(jax.random.key(1), (4 * N, 16))
    gradient = jax.shard_map(FUNCTIONS[name], mesh=MESH, in_specs=SPLIT, out_specs=SAME)
    parts = [FUNCTIONS[name](rows[i : i + 4]) for i in range(0, 4 * N, 4)]
    expected = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        jax.jit(gradient)(rows),
        expected,
    )


STEPS = {
    'topk': (
        functools.partial(topk.init, latent_dim=8, optimizer=OPTIMIZER),
        functools.partial(topk.step, optimizer=OPTIMIZER, k=2, patience=3.0, revive_dead=True),
    ),
    'psd': (
        functools.partial(psd.init, latent_dim=8, optimizer=OPTIMIZER),
        functools.partial(psd.step, optimizer=OPTIMIZER, l1_penalty=0.1, coupling=1.0),
    ),
}


@pytest.mark.parametrize('name', STEPS)
def test_steps_of_learners_work_inside_shard_map(name):
    init, step = STEPS[name]
    state = init(KEY, X)
    sharded = jax.shard_map(
        functools.partial(step, reduce=Reduce('i')),
        mesh=MESH,
        in_specs=(SAME, SPLIT, SAME),
        out_specs=SAME,
    )
    new, _ = jax.eval_shape(sharded, state, jnp.concatenate([X] * N), KEY)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)


@pytest.mark.slow
def test_loops_work_on_eight_devices():
    command = [
        sys.executable,
        '-m',
        'pytest',
        '-q',
        '-m',
        '',
        '-k',
        'devices and not eight or shard',
    ]
    command += [
        f'tests/{folder}test_transformations.py' for folder in ('', 'sparse/', 'classifiers/')
    ]
    env = {**os.environ, 'TEST_DEVICES': '8'}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
