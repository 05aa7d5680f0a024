"""The training step of every experiment, compiled for a TPU slice that is not attached."""

import importlib
import importlib.util
import pathlib
import re

import jax
import pytest

from lecture4.train import cli, experiment
from lecture4.train import compile as compiler
from lecture4.train.step import abstract_state, bind

ROOT = pathlib.Path(__file__).parent.parent.parent
FASTEST = ('linear', 'family', 'denoising')
ALL = {
    path.stem: path
    for path in sorted((ROOT / 'experiments').rglob('*.py'))
    if not path.name.startswith('__')
}
BATCH_SIZE = 32  # on 16 chips

LOSSES = {('all-reduce', 'f32[32]'): 'losses of the signals: the worst-coded replace unused atoms'}
RELAYOUT = 'at most 6 kB of the batch, which XLA lays out again between two operations'
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
    **dict.fromkeys(('learning_settings', 'natural_image_bases', 'self_taught'), LOSSES),
    'latent_spaces': {('all-reduce', 'f32[2]'): 'two metrics'},
    'sentence_classification': {
        (
            'all-gather',
            's32[1,32,10]',
        ): 'word ids of the batch: only their rows of the table change',
        ('all-reduce', 'bf16[320,384]'): 'gradients of the products of these rows with all filters',
        ('all-to-all', 'f32[16,24,2]'): RELAYOUT,
        ('all-to-all', 'f32[2,16,2]'): RELAYOUT,
        ('all-to-all', 's32[16,24,2,2]'): RELAYOUT,
        ('all-to-all', 's32[2,16,2,2]'): RELAYOUT,
    },
    'sparse': {('all-reduce', 'u32[1,1,128]'): 'whether any code is tied, a flag'},
    'stochastic': {('all-reduce', 'f32[3]'): 'KL divergence of each latent variable'},
    'variational': {('all-reduce', 'f32[2]'): 'KL divergence of each latent variable'},
}
# Sizes of parameters whose gradients every chip computes alone from what is exchanged.
NOT_EXCHANGED = {'sentence_classification': {(3, 32, 64), (4, 32, 64), (5, 32, 64)}}


@pytest.fixture(scope='module')
def target():
    if importlib.util.find_spec('libtpu') is None:
        pytest.skip('needs libtpu: pip install "lecture4[tpu]"')
    return compiler.target('v5e:4x4')


def size(shape):
    """Dimensions of an array without those of 1, in order of size: as XLA reshapes and transposes them."""
    return tuple(sorted(n for n in shape if n > 1))


@pytest.mark.aot
@pytest.mark.cases(len(FASTEST))
@pytest.mark.parametrize('name', [*FASTEST, *sorted(set(ALL) - set(FASTEST))])
def test_chips_exchange_gradients_and_named_statistics_only(name, target):
    module = '.'.join(ALL[name].relative_to(ROOT).with_suffix('').parts)
    this = experiment.from_module(importlib.import_module(module))
    options = ['--preset', 'smoke', '--batch_size', str(BATCH_SIZE), '--steps_per_call', '1']
    config = cli.parse(this, options)
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        data = experiment.load(this, config)
        (step,) = compiler.compile_experiment(this, config, data, target, ('step',))
        bound = bind(experiment.build(this, config, data), data, config.seed)
        state = abstract_state(bound, target.mesh, bound.batch(0))
    assert step.host_callbacks == 0 and not step.float64

    shapes = [size(leaf.shape) for leaf in jax.tree.leaves(state)]
    allowed = STATISTICS.get(name, {})
    unknown, exchanged = [], set()
    for kind, array in step.communicated:
        own = size(int(n) for n in re.findall(r'\d+', array.partition('[')[2]))
        exchanged.add(own)
        if (kind, array) not in allowed and (kind != 'all-reduce' or (own and own not in shapes)):
            unknown.append((kind, array))
    assert not unknown, sorted(set(unknown))
    assert allowed.keys() <= set(step.communicated), 'a statistic of the list is not exchanged'
    sizes = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name_of_leaf = jax.tree_util.keystr(path, simple=True, separator='/')
        if re.search(r'(^|/)params(/|$)', name_of_leaf):
            sizes.add(size(leaf.shape))
    assert sizes <= exchanged | NOT_EXCHANGED.get(name, set()) | {()}
