"""The training step of every experiment, compiled for a TPU slice that is not attached."""

import importlib.util
import math
import re

import jax
import pytest

from lecture4.train import cli, experiment, topology
from lecture4.train import compile as compiler
from lecture4.train.step import abstract_state
from tests.experiments import listing

FASTEST = ('linear', 'family', 'denoising')
BATCH_SIZE = 32  # on 16 chips

LOSSES = {('all-reduce', 'f32[32]'): 'losses of the signals: the worst-coded replace unused atoms'}
RELAYOUT = 'at most 6 kB of the batch, which XLA lays out again between two operations'
BY_POSITION = (
    'gradients of the scores of anchors, summed over images: their sum is the gradient of the bias'
)
# What is combined over chips besides arrays of the state's shapes (gradients, batch and dictionary statistics)
# and scalars: {experiment: {(kind, shape): what it is}}.
STATISTICS: dict[str, dict[tuple[str, str], str]] = {
    'alignment': {
        ('all-gather', 'bf16[32,8,16]'): 'words: every image is scored with every sentence',
        ('all-reduce', 'f32[32]'): 'losses of the columns of the table of scores',
        ('all-reduce', 's32[32]'): 'hits of the columns of the table of scores',
        ('all-reduce', 'f32[32,8,16]'): 'gradients of words, from every image',
        ('all-to-all', 'f32[16,2,2]'): RELAYOUT,
        ('all-to-all', 'f32[2,16,2]'): RELAYOUT,
    },
    'comparison': {('all-reduce', 'f32[32,48,6]'): BY_POSITION},
    'faster_rcnn': {('all-reduce', 'f32[16,24,2]'): BY_POSITION},
    **dict.fromkeys(('learning_settings', 'natural_image_bases', 'self_taught'), LOSSES),
    'latent_spaces': {('all-reduce', 'f32[2]'): 'two metrics'},
    'proposals': {('all-reduce', 'f32[9]'): 'number of windows of each shape'},
    'sentence_classification': {
        ('all-gather', 's32[1,32,8]'): 'word ids of the batch: only their rows of the table change',
        (
            'all-gather',
            's32[32,8,2]',
        ): 'positions of the largest values of filters, for the gradients of these rows',
        ('all-gather', 'f32[16,2,8]'): 'gradients of the largest values',
        ('all-reduce', 'bf16[256,96]'): 'gradients of the products of these rows with all filters',
    },
    'sparse': {('all-reduce', 'u32[1,1,128]'): 'whether any code is tied, a flag'},
    'stochastic': {('all-reduce', 'f32[3]'): 'KL divergence of each latent variable'},
    'variational': {('all-reduce', 'f32[2]'): 'KL divergence of each latent variable'},
}
# Numbers of elements of parameters whose gradients every chip computes alone from what is exchanged.
NOT_EXCHANGED = {
    'comparison': {6},  # bias of the scores of anchors: BY_POSITION
    'faster_rcnn': {2},
    'sentence_classification': {n * 16 * 8 for n in (3, 4, 5)},
}
STACKED = (
    'activations',
    'deep_or_wide',
    'dropout',
)  # arrays of several networks, combined one by one


@pytest.fixture(scope='module')
def target():
    if importlib.util.find_spec('libtpu') is None:
        pytest.skip('needs libtpu: pip install "lecture4[tpu]"')
    return topology.target('v5e:4x4')


@pytest.mark.aot
@pytest.mark.cases(len(FASTEST))
@pytest.mark.parametrize('name', listing.first(*FASTEST))
def test_chips_exchange_gradients_and_named_statistics_only(name, target):
    this = listing.load(name)
    options = ['--preset', 'smoke', '--batch_size', str(BATCH_SIZE), '--steps_per_call', '1']
    config = cli.parse(this, options)
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        data = experiment.load(this, config)
        (step,) = compiler.compile_experiment(this, config, data, target, ('step',))
        bound = experiment.build_bound(this, config, data)
        state = abstract_state(bound, target.mesh, bound.batch(0))
    assert step.host_callbacks == 0 and not step.float64

    # XLA reshapes and transposes what it combines, so that arrays are compared by their numbers of elements.
    def numbers(leaf):
        shapes = [leaf.shape, leaf.shape[1:]] if name in STACKED else [leaf.shape]
        return {math.prod(shape) for shape in shapes}

    sizes = set().union(*map(numbers, jax.tree.leaves(state)))
    allowed = STATISTICS.get(name, {})
    unknown, exchanged = [], set()
    for kind, array in step.communicated:
        n = math.prod(int(n) for n in re.findall(r'\d+', array.partition('[')[2]))
        exchanged.add(n)
        if (kind, array) not in allowed and (kind != 'all-reduce' or n not in sizes | {1}):
            unknown.append((kind, array))
    assert not unknown, sorted(set(unknown))
    assert allowed.keys() <= set(step.communicated), 'a statistic of the list is not exchanged'
    exchanged |= NOT_EXCHANGED.get(name, set())
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name_of_leaf = jax.tree_util.keystr(path, simple=True, separator='/')
        if re.search(r'(^|/)params(/|$)', name_of_leaf):
            assert numbers(leaf) & exchanged, (name_of_leaf, leaf.shape)
