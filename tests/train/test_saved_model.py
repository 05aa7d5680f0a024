"""Models of runs: what is written, what they compute, which files are refused."""

import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from lecture4 import train
from lecture4.ops import linalg
from lecture4.train import cli, experiment, saved_model
from lecture4.train.config import UsageError
from tests.train import toy

OPTIONS = ('--preset', 'smoke', '--progress', 'none', '--devices', '1')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp('run')
    this = experiment.from_module(toy)
    config = cli.parse(this, [*OPTIONS, '--hidden', '2', '--workdir', str(directory)])
    cli.run(this, config)
    return directory


def test_a_run_leaves_a_model_that_computes(run):
    model = train.load(run, toy)
    x = np.eye(8, dtype=np.float32)
    assert isinstance(model.config, toy.Config) and model.config.hidden == 2
    assert model.spec.shape == (8,)
    np.testing.assert_array_equal(model.encode(x)['codes'], model.params)
    assert model.state.opt_state == ()
    np.testing.assert_allclose(jax.jit(model.encode)(x)['codes'], model.params, rtol=1e-6)
    with pytest.raises(AttributeError, match='this model has no predict; it has encode'):
        model.predict(x)


def test_models_of_other_runs_have_the_reader_s_options(run):
    (model,) = train.load_runs([str(run)], toy.Config(manual_dir='here', hidden=7)).values()
    assert model.config.hidden == 2 and model.config.manual_dir == 'here'
    with pytest.raises(UsageError, match='does not exist; expected the directory of a finished'):
        train.load_runs([str(run / 'checkpoints')], toy.Config())


def test_own_modules_have_to_be_passed(run):
    with pytest.raises(
        UsageError, match=r'import its module and pass it: train\.load\(path, module'
    ):
        train.load(run)


class Params(NamedTuple):
    D: jax.Array
    layers: tuple


def saved(tmp_path, state, **constants):
    path = tmp_path / 'model.safetensors'
    saved_model.save(path, '', toy.Config(), state, train.Spec((3,), ('a', 'ü'), constants))
    return path


def test_trees_of_all_kinds_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, 'Params', Params, raising=False)
    monkeypatch.setattr(Params, '__module__', toy.__name__)
    whitening = linalg.Affine(jnp.eye(2), jnp.zeros(2))
    state = train.State(
        jnp.int32(3),
        {
            'own': Params(jnp.ones((2, 3)).T, ([], None, 1.5, 'x')),
            'half': jnp.ones(2, jnp.bfloat16),
            'key': jax.random.key(5),
        },
        opt_state=(jnp.ones(1000),),
        model_state={'count': np.float64(2.0)},
    )
    path = saved(
        tmp_path, state, whitening=whitening, image_shape=(4, 5), weights={'w': np.ones(9)}
    )
    model = train.load(path, toy)
    assert path.stat().st_size < 4000  # neither the optimizer's state nor the initial weights
    assert jax.tree.structure(model.state) == jax.tree.structure(state._replace(opt_state=()))
    assert model.spec.class_names == ('a', 'ü') and model.spec.constants['image_shape'] == (4, 5)
    assert isinstance(model.spec.constants['whitening'], linalg.Affine)
    own = model.params['own']
    assert type(own) is Params and own.D.shape == (3, 2) and own.layers == ([], None, 1.5, 'x')
    assert model.params['half'].dtype == jnp.bfloat16
    assert jax.random.key_data(model.params['key']).tolist() == [0, 5]


def test_state_that_is_no_data_is_refused(tmp_path):
    with pytest.raises(TypeError, match='state/f is a function; expected arrays, numbers or text'):
        saved(tmp_path, {'f': saved})


def edited(run, tmp_path, **changes):
    """A copy of the run's model with other metadata; None removes an entry."""
    path = tmp_path / 'model.safetensors'
    with safetensors.safe_open(run / 'model.safetensors', 'numpy') as file:
        metadata = file.metadata()
    tensors = safetensors.numpy.load_file(run / 'model.safetensors')
    header = json.loads(metadata['model']) | changes
    metadata = {'format': saved_model.FORMAT, 'model': json.dumps(header)}
    safetensors.numpy.save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'version': '0.9.0'}, r'was written by lecture4 0\.9\.0, but this is'),
        ({'experiment': 'os'}, "is a model of the experiment 'os'; import its module and pass it"),
        ({'experiment': 'experiments.none.such'}, r'experiments\.none\.such, which cannot be'),
        ({'config': {'width': 3}}, 'has the field width'),
        ({'state': ['class', ['os:system', []]]}, 'not a class of lecture4 or optax'),
        ({'state': ['class', ['lecture4.train.cli:main', []]]}, 'not a tuple or data class'),
        ({'state': ['array', 'nothing']}, 'does not fit lecture4'),
        ({'state': ['call', 'x']}, "unknown kind 'call'"),
    ],
)
def test_foreign_headers_are_refused_by_name(run, tmp_path, changes, match):
    path = edited(run, tmp_path, **changes)
    with pytest.raises(UsageError, match=match) as caught:
        train.load(path, None if 'experiment' in changes else toy)
    assert str(path) in str(caught.value)


def test_damaged_files_are_refused(run, tmp_path):
    content = (run / 'model.safetensors').read_bytes()
    path = tmp_path / 'model.safetensors'
    for n in (0, 5, 200, len(content) - 1):
        path.write_bytes(content[:n])
        with pytest.raises(UsageError, match='is damaged or incomplete'):
            train.load(path, toy)
    for part in ('spec', 'config', 'state', 'experiment'):
        with safetensors.safe_open(run / 'model.safetensors', 'numpy') as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        header = json.loads(metadata['model']) | {part: 3}
        safetensors.numpy.save_file(tensors, path, metadata | {'model': json.dumps(header)})
        if part == 'experiment':
            with pytest.raises(
                UsageError, match=r'is a model of the experiment .3.; import its module'
            ):
                train.load(path)
            continue
        with pytest.raises(UsageError, match='does not fit lecture4'):
            train.load(path, toy)
    safetensors.numpy.save_file({'w': np.ones(2)}, path)
    with pytest.raises(UsageError, match='is not a model of lecture4'):
        train.load(path, toy)
    with pytest.raises(UsageError, match='expected the directory of a finished run'):
        train.load(pathlib.Path(tmp_path, 'missing'), toy)
