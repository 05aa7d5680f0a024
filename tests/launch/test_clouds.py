"""TPU VMs and GKE, with stand-ins for gcloud and kubectl."""

import json
import subprocess
import sys

import pytest

from launch import command, experiment, tpu
from tests.launch import fakes
from tests.launch.running import TOY, environ, rows, run

# The hosts of the stand-in use this interpreter.
SETUP = f'ln -sfn {sys.prefix} .venv'
TPU = ['--name', 'a', '--zone', 'z', '--type', 'v5litepod-8', '--poll', '0.2', '--setup', SETUP]


@pytest.mark.slow
def test_a_tpu_slice_of_two_hosts(tmp_path):
    """create, copy, setup, run: two workers connect as on a TPU slice, and train."""
    env = environ(**fakes.install(tmp_path, 'gcloud'))
    toy = [*TOY, '--progress', 'none', '--devices', '2', '--workdir', tmp_path / 'shared']
    toy += ['--platform', 'cpu']
    options = ['--spot', '--project', 'p', '--shared', tmp_path]
    code, out, errors = run('launch.tpu', *TPU, *options, '--', *toy, env=env)
    assert code == 0, errors
    assert 'report: ' in out
    assert rows(tmp_path / 'shared')[-1]['step'] == 30
    log = (tmp_path / 'worker1' / 'lecture4' / 'run.log').read_text()
    assert 'process 1 of 2' in log
    calls = fakes.calls(tmp_path)
    assert calls[0] == [
        *('gcloud', 'compute', 'tpus', 'queued-resources', 'create', 'a', '--node-id=a'),
        '--accelerator-type=v5litepod-8',
        '--runtime-version=v2-alpha-tpuv5-lite',
        *('--spot', '--zone=z', '--project=p'),
    ]
    assert [words[4] for words in calls[1:4]] == ['describe'] * 3
    assert calls[4][3:5] == ['tpu-vm', 'scp'] and '--worker=all' in calls[4]
    assert all('--zone=z' in words and '--project=p' in words for words in calls)
    # The tree without the files that git ignores.
    assert (tmp_path / 'worker0' / 'lecture4' / 'launch' / 'tpu.py').exists()
    assert not (tmp_path / 'worker0' / 'lecture4' / '.cache').exists()

    code, out, errors = run('launch.tpu', *TPU, '--do', 'logs,delete', env=env)
    assert code == 0, errors
    assert 'process 0 of 2' in out
    assert fakes.calls(tmp_path)[-1][3:8] == [
        *('queued-resources', 'delete', 'a', '--force', '--quiet'),
    ]


def test_a_failing_host_is_reported(tmp_path):
    """The launcher exits with the host's code and prints the end of its log."""
    env = environ(**fakes.install(tmp_path, 'gcloud', workers=1))
    for name in ('launch', 'lecture4'):
        (tmp_path / 'worker0' / name).mkdir()
    argv = [*TPU, '--do', 'setup,run', '--shared', '/x', '--', *TOY, '--workdir', '/x']
    code, _, errors = run('launch.tpu', *argv, env=env)
    assert code == 1
    assert "No module named 'tests'" in errors  # nothing was copied
    assert 'launch.tpu: the hosts exited with 1' in errors


def test_an_existing_slice_is_used(tmp_path):
    env = environ(**fakes.install(tmp_path, 'gcloud'))
    (tmp_path / 'exists').touch()
    code, _, errors = run('launch.tpu', *TPU, '--do', 'create', env=env)
    assert code == 0, errors
    assert [words[4] for words in fakes.calls(tmp_path)] == ['create'] + ['describe'] * 3


def test_a_failed_request_is_reported(tmp_path):
    env = environ(**fakes.install(tmp_path, 'gcloud'))
    (tmp_path / 'states').write_text('WAITING_FOR_RESOURCES FAILED')
    code, _, errors = run('launch.tpu', *TPU, '--do', 'create', env=env)
    assert code == 2
    assert 'the request a is FAILED; delete it with --do delete, then try another --zone' in errors


@pytest.mark.parametrize(
    'accelerator, runtime',
    [
        ('v4-16', 'tpu-ubuntu2204-base'),
        ('v5litepod-4', 'v2-alpha-tpuv5-lite'),
        ('v5p-24', 'v2-alpha-tpuv5'),
        ('v6e-16', 'v2-alpha-tpuv6e'),
    ],
)
def test_the_runtime_follows_the_type(accelerator, runtime):
    assert tpu.generation(accelerator).runtime == runtime


@pytest.mark.parametrize(
    'accelerator, message',
    [
        ('v5litepod', 'expected v5litepod-SIZE with a size of 1, 4, a multiple of 8'),
        ('v6e-3', 'expected v6e-SIZE with a size of 1, 4, a multiple of 8'),
        ('v5e-16', 'v5e is called v5litepod: v5litepod-16'),
        ('tpu7x-16', 'TPU7x has no queued resources; use launch.gke'),
        ('h100-8', 'expected GENERATION-SIZE with a generation of v2, v3, v4, v5p, v5litepod, v6e'),
    ],
)
def test_malformed_types_are_refused(accelerator, message):
    with pytest.raises(command.LaunchError, match=f'--type {accelerator}: {message}'):
        tpu.generation(accelerator)


@pytest.mark.parametrize(
    ('accelerator', 'name'),
    [
        ('v5litepod-1', 'v5e:1x1'), ('v5litepod-8', 'v5e:2x4'), ('v5litepod-16', 'v5e:4x4'), ('v6e-256', 'v6e:16x16'),
        ('v4-8', 'v4:2x2x1'), ('v4-16', 'v4:2x2x2'), ('v4-32', 'v4:2x2x4'), ('v5p-64', 'v5p:2x4x4'),
        ('v5p-2048', 'v5p:8x8x16'),
    ],
)  # fmt: skip
def test_types_as_topologies(accelerator, name):
    assert tpu.topology(accelerator) == name


@pytest.mark.parametrize('accelerator', ['v3-8', 'v5litepod-24', 'v5litepod-5'])
def test_types_without_a_known_topology_are_refused(accelerator):
    with pytest.raises(
        command.LaunchError, match=r'expected v5litepod-SIZE|is not known; only of v4'
    ):
        tpu.topology(accelerator)


def test_a_step_that_does_not_compile_creates_no_slice(tmp_path, monkeypatch):
    """--check compiles the step for the slice of --type before anything is created."""
    given = []

    def refuse(words, topology):
        given.append((words, topology))
        raise command.LaunchError('--check: the step does not fit')

    monkeypatch.setattr(tpu.experiment, 'check', lambda words: {})
    monkeypatch.setattr(tpu.experiment, 'check_compiled', refuse)
    argv = ['--type', 'v5litepod-16', '--share', '10.0.0.2:/vol', '--check', '--dry_run']
    with pytest.raises(command.LaunchError, match='does not fit'):
        tpu.main([*TPU, *argv, '--', *TOY, '--workdir', '/mnt/shared/a'])
    ((words, topology),) = given
    assert topology == 'v5e:4x4' and words[1:] == [*TOY[1:], '--workdir', '/mnt/shared/a']


@pytest.mark.slow
def test_compiling_first_refuses_what_does_not_compile(capfd):
    experiment.check_compiled([sys.executable, *TOY[1:]], 'cpu:2')
    assert 'cpu:2' in capfd.readouterr().out
    with pytest.raises(command.LaunchError, match='does not compile for v9:4x4'):
        experiment.check_compiled([sys.executable, *TOY[1:]], 'v9:4x4')
    assert "unknown chip 'v9'" in capfd.readouterr().err


def test_setup_brings_a_python_by_uv(tmp_path):
    """With a uv that records its arguments, and without Python 3.11 or curl."""
    uv = tmp_path / 'uv'
    uv.write_text('#!/bin/sh\necho "$@" >> uv.log\n')
    uv.chmod(0o755)
    environ = {'PATH': f'{tmp_path}:/bin', 'HOME': str(tmp_path)}
    subprocess.run(['/bin/bash', '-c', tpu.SETUP], cwd=tmp_path, env=environ, check=True)
    venv, install = (tmp_path / 'uv.log').read_text().splitlines()
    assert venv == 'venv -q --allow-existing --python >=3.11 .venv'
    assert install.endswith('-c requirements.lock -e . jax[tpu]')


def test_an_own_project_is_copied_next_to_the_clone(tmp_path, monkeypatch, capsys):
    """The experiment runs in the current directory's copy, with the clone's Python."""
    subprocess.run(['git', 'init', '-q', tmp_path], check=True)
    (tmp_path / 'regress.py').write_text('secret = 1')
    (tmp_path / '.gitignore').write_text('runs\n')
    (tmp_path / 'runs').mkdir()
    (tmp_path / 'runs' / 'large').touch()
    monkeypatch.chdir(tmp_path)
    tpu.pack(tmp_path, tmp_path / 'a.tgz')
    listed = subprocess.run(['tar', '-tzf', 'a.tgz'], capture_output=True, text=True).stdout.split()
    assert 'regress.py' in listed and 'runs/large' not in listed
    monkeypatch.setattr(tpu.experiment, 'check', lambda words: {})
    argv = ['--dry_run', '--share', 'h:/v', '--do', 'copy,run', '--', 'python', 'regress.py']
    assert tpu.main([*TPU, *argv, '--workdir', '/mnt/shared/a']) == 0
    out = capsys.readouterr().out
    assert '/lecture4.tgz a: --worker=all' in out and '/project.tgz a: --worker=all' in out
    assert 'cd project && rm -f run.code' in out
    assert '"$HOME/lecture4/.venv/bin/python" regress.py' in out


def test_data_and_shares_are_set_up_on_every_host(capsys):
    argv = ['--share', '10.0.0.2:/vol', '--data', 'gs://b/sets', '--do', 'setup,run', '--dry_run']
    assert tpu.main([*TPU, *argv, '--', *TOY, '--workdir', '/mnt/shared/a']) == 0
    out = capsys.readouterr().out
    assert 'sudo mount -t nfs 10.0.0.2:/vol /mnt/shared' in out
    assert 'gcloud storage rsync --recursive gs://b/sets data' in out
    assert 'sha256sum --quiet -c SHA256SUMS' in out and '--data_dir ../data' in out


def test_gke_applies_prints_logs_and_deletes(tmp_path):
    env = environ(**fakes.install(tmp_path, 'kubectl'))
    argv = ['--name', 'a', '--image', 'i', '--accelerator', 'tpu-v6e-slice', '--topology', '2x4']
    argv += ['--claim', 'c']
    code, out, errors = run('launch.gke', *argv, '--', *TOY, '--workdir', '/mnt/shared/a', env=env)
    assert code == 0, errors
    assert 'created' in out
    manifest = json.loads((tmp_path / 'manifest').read_text())
    (replicated,) = manifest['spec']['replicatedJobs']
    assert replicated['template']['spec']['completions'] == 2
    for do in ('logs', 'delete'):
        assert run('launch.gke', '--name', 'a', '--do', do, env=env)[0] == 0
    assert fakes.calls(tmp_path)[1:] == [
        *(['kubectl', 'logs', '-l', 'jobset.sigs.k8s.io/jobset-name=a', '--prefix', '--tail=50'],),
        ['kubectl', 'delete', 'jobset', 'a'],
    ]
