"""Functions of trained models as programs that need JAX only."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from lecture4.train import portable
from lecture4.train.config import Config, UsageError
from lecture4.train.saved_model import Model
from lecture4.train.task import Spec

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def make(function):
    state = {'w': np.arange(6, dtype=np.float32).reshape(3, 2)}
    return Model(Config(), state, Spec((3,), ('a', 'b')), {'predict': function})


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp('programs') / 'predict.bin'
    portable.save(path, make(lambda state, x: jnp.tanh(x @ state['w'])), 'predict', X[:1])
    return path


def test_a_program_runs_on_any_number_of_examples(path):
    predict = portable.load(path)
    for n in (1, 5):
        expected = np.tanh(X[:n] @ np.arange(6).reshape(3, 2))
        np.testing.assert_allclose(predict(X[:n]), expected, rtol=1e-5)


def test_a_program_needs_jax_only(path):
    code = (
        'import sys, jax, numpy as np\n'
        f'program = jax.export.deserialize(bytearray(open({str(path)!r}, "rb").read()))\n'
        'print(program.call(np.ones((4, 3), np.float32)).shape, program.platforms)\n'
        'assert not any(name.startswith("lecture4") for name in sys.modules)\n'
    )
    printed = subprocess.check_output(
        [sys.executable, '-c', 'import jax.export\n' + code], text=True
    )
    assert printed.strip() == "(4, 2) ('cpu', 'cuda', 'tpu')"


def test_a_function_of_the_batch_size_needs_a_fixed_one(tmp_path):
    model = make(lambda state, x: jnp.tile(x, (3 if len(x) > 2 else 1, 1)))
    with pytest.raises(UsageError, match=r'predict cannot be saved .*any_batch=False'):
        portable.save(tmp_path / 'a.bin', model, 'predict', X)
    portable.save(tmp_path / 'a.bin', model, 'predict', X, any_batch=False)
    assert portable.load(tmp_path / 'a.bin')(X).shape == (15, 3)


def test_damaged_programs_are_named(path, tmp_path):
    with pytest.raises(UsageError, match='does not exist'):
        portable.load(tmp_path / 'no.bin')
    broken = tmp_path / 'broken.bin'
    broken.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UsageError, match=r'broken\.bin is not a program of JAX or is damaged'):
        portable.load(broken)
    with pytest.raises(AttributeError, match='has no encode; it has predict'):
        portable.save(tmp_path / 'b.bin', make(lambda state, x: x), 'encode', X)
