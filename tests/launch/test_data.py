"""Data sets are prepared once, with checksums that reveal changed files."""

import pytest

from launch import command, data
from tests.launch import fakes
from tests.launch.running import environ, run

MNIST = ['python', '-m', 'experiments.autoencoders.linear', '--preset', 'mnist']


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'set' / '1.0').mkdir(parents=True)
    (tmp_path / 'set' / '1.0' / 'a').write_text('one')
    (tmp_path / 'b').write_text('two')
    return tmp_path


def prepare(folder, monkeypatch, code=0):
    commands = []

    class Done:
        returncode = code

    monkeypatch.setattr(data.subprocess, 'run', lambda words, **_: commands.append(words) or Done())
    return data.main(['--to', str(folder), '--', *MNIST]), commands


def test_checksums_are_those_of_sha256sum(folder, monkeypatch, capsys):
    code, commands = prepare(folder, monkeypatch)
    assert code == 0
    assert commands[0][-4:] == ['--stage', 'data', '--data_dir', str(folder)]
    assert (folder / data.SUMS).read_text() == (
        '3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3  b\n'
        '7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed  set/1.0/a\n'
    )
    assert '2 files, 0.0 MB' in capsys.readouterr().out
    assert data.main(['--to', str(folder), '--check']) == 0


def test_changed_and_missing_files_are_named(folder, monkeypatch, capsys):
    prepare(folder, monkeypatch)
    (folder / 'b').write_text('tvo')
    (folder / 'set' / '1.0' / 'a').unlink()
    assert data.main(['--to', str(folder), '--check']) == 1
    output = capsys.readouterr()
    assert 'b is changed; remove' in output.err and 'a is missing; remove' in output.err
    assert '0 of 2 files are intact' in output.out
    # Nothing is written to the damaged directory.
    assert prepare(folder, monkeypatch) == (1, [])


def test_a_failing_experiment_leaves_no_checksums(folder, monkeypatch):
    assert prepare(folder, monkeypatch, code=2)[0] == 2
    assert not (folder / data.SUMS).exists()


def test_a_directory_that_cannot_be_created(folder, monkeypatch):
    with pytest.raises(command.LaunchError, match='choose another --to'):
        prepare(folder / 'b' / 'below', monkeypatch)


@pytest.mark.data
def test_mnist_is_prepared_into_a_bucket(tmp_path, manual_dir):
    """Copied by a stand-in for gcloud, and read again from the copy."""
    env = environ(**fakes.install(tmp_path, 'gcloud'))
    argv = ['--to', 'gs://bucket/sets', '--', *MNIST, '--manual_dir', manual_dir]
    code, out, errors = run('launch.data', *argv, env=env)
    assert code == 0, errors
    copied = tmp_path / 'bucket' / 'sets'
    code, out, _ = run('launch.data', '--to', copied, '--check')
    assert code == 0 and 'files are intact' in out
    argv = ['--to', copied, '--', *MNIST, '--manual_dir', tmp_path]
    assert run('launch.data', *argv)[0] == 0  # only the copy can be read
