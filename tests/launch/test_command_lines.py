"""Launchers: what --dry_run prints, their help, and what they refuse."""

import contextlib
import io
import json
import os
import subprocess
import sys

import pytest

from launch import (
    batch_script,
    command,
    compare,
    data,
    describe,
    experiment,
    gallery,
    gke,
    local,
    plan,
    slurm,
    sweep,
    tpu,
)
from tests.launch.running import ROOT, TOY, environ, run

LAUNCHERS = {
    'local': local,
    'slurm': slurm,
    'tpu': tpu,
    'gke': gke,
    'sweep': sweep,
    'data': data,
    'describe': describe,
    'compare': compare,
    'gallery': gallery,
}
TPU = ['--name', 'a', '--zone', 'z', '--type', 'v5litepod-16']
GKE = ['--name', 'a', '--image', 'i', '--accelerator', 'tpu-v5-lite-podslice', '--topology', '4x4']


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """The experiment's own check takes seconds; one test makes it."""
    monkeypatch.setattr(experiment, 'check', experiment.check_words)


def dry(launcher, *argv, capsys):
    code = launcher.main(['--dry_run', *argv])
    return code, capsys.readouterr().out


@pytest.mark.parametrize('name', LAUNCHERS)
def test_help_has_three_valid_examples(name, capsys):
    with pytest.raises(SystemExit) as stop:
        LAUNCHERS[name].main(['--help'])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    assert ('--dry_run' in output) == (name not in ('describe', 'compare'))  # they start nothing
    text = output.replace('\\\n', ' ')
    examples = [line for line in text.splitlines() if line.strip().startswith('python -m launch.')]
    assert len(examples) >= 3
    for line in examples:
        words = line.split()
        assert words[2] == f'launch.{name}'
        if '--' in words:
            module = words[words.index('--') + 3]
            assert (ROOT / (module.replace('.', '/') + '.py')).exists(), module


def test_local_dry_run_prints_the_processes(capsys, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    code, out = dry(local, '--processes', '2', '--port', '99', '--', *TOY, capsys=capsys)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith(
        '-m tests.train.toy --noise 0.1 --coordinator 127.0.0.1:99 --processes 2 --process_id 1'
    )


def test_gpus_are_divided_among_processes(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1,2,3')
    assert local.device_environments(2) == [
        {'JAX_LOCAL_DEVICE_IDS': '0,1'},
        {'JAX_LOCAL_DEVICE_IDS': '2,3'},
    ]
    with pytest.raises(
        command.LaunchError, match='4 GPUs are not divisible by --processes 3; use 1 or 2 or 4'
    ):
        local.device_environments(3)
    with pytest.raises(command.LaunchError, match='--jobs 5, but 4 GPUs are available'):
        sweep.run([], 5, [])


def test_slurm_dry_run_prints_the_script(capsys):
    argv = ['--nodes', '2', '--gpus_per_node', '8', '--option', 'partition=gpu', '--restarts', '2']
    code, out = dry(slurm, *argv, '--', *TOY, '--workdir', '/shared/a', capsys=capsys)
    assert code == 0
    script = out.partition("<<'END'\n")[2].partition('\nEND\n')[0] + '\n'
    settings = batch_script.directives(script)
    assert settings == [
        '--job-name=toy',
        '--nodes=2',
        '--ntasks-per-node=8',
        '--cpus-per-task=4',
        '--gpus-per-node=8',
        '--time=1:00:00',
        '--signal=TERM@120',
        '--requeue',
        '--open-mode=append',
        '--output=/shared/a/slurm-%j.out',
        f'--chdir={ROOT}',
        '--partition=gpu',
    ]
    assert 'toy --noise 0.1 --workdir /shared/a --platform gpu\n' in script
    checked = subprocess.run(['bash', '-n'], input=script, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


SBATCH = """#!{python}
import json, pathlib, sys
calls = pathlib.Path({calls!r})
number = len(calls.read_text().splitlines()) if calls.exists() else 0
with calls.open('a') as file:
    file.write(json.dumps([sys.argv[1:], sys.stdin.read()]) + '\\n')
print(f'{{40 + number}};cluster')
"""


@pytest.mark.parametrize('more', [[], ['--grid', 'hidden=2,3']])
def test_the_dry_run_pasted_into_a_shell_submits_the_same(planned, tmp_path, monkeypatch, more):
    """A scheduler that records what it gets sees no difference, whatever the names hold."""
    calls = tmp_path / 'calls'
    sbatch = tmp_path / 'sbatch'
    sbatch.write_text(SBATCH.format(python=sys.executable, calls=str(calls)))
    sbatch.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    where = tmp_path / 'a "b" \'c\' $HOME `x` 100%'
    argv = ['--shared', str(tmp_path), '--prologue', 'export A="$B"', '--gpus_per_node', '2']
    argv += ['--option', "comment=it's END", '--', *TOY, *more, '--workdir', str(where)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert slurm.main(['--dry_run', *argv]) == 0
    assert not where.exists() and not calls.exists()
    text = printed.getvalue()
    pasted = subprocess.run(['bash'], input=text, text=True, capture_output=True, check=True)
    assert where.exists() and pasted.stdout.splitlines()[0] == 'job 40'
    from_shell = [json.loads(line) for line in calls.read_text().splitlines()]
    calls.unlink()
    assert slurm.main(argv) == 0
    submitted = [json.loads(line) for line in calls.read_text().splitlines()]
    assert len(submitted) == (2 if more else 1)
    assert [(words, script.rstrip()) for words, script in from_shell] == [
        (words, script.rstrip()) for words, script in submitted
    ]
    assert '"${job[@]}"' in submitted[0][1] or not more


def test_directives_are_read_back_as_they_were_given():
    names = ['/a b/c', 'it\'s "x"', 'back\\slash', '# no comment', '$HOME `x`', 'gres=gpu:2']
    lines = [f'#SBATCH --comment={batch_script.quoted(name)}' for name in names]
    assert batch_script.directives('\n'.join(lines)) == [f'--comment={name}' for name in names]
    assert batch_script.quoted('/shared/a-1') == '/shared/a-1'


@pytest.mark.parametrize(
    'text, seconds',
    [
        ('90', 5400),
        ('5:30', 330),
        ('12:00:00', 43200),
        ('1-12', 129600),
        ('1-0:30', 88200),
        ('2-3:4:5', 183845),
        ('unlimited', None),
    ],
)
def test_time_limits_are_those_of_sbatch(text, seconds):
    assert slurm.time_limit(text) == seconds


def test_a_prologue_runs_first_and_ends_the_job_where_it_fails(tmp_path):
    (tmp_path / 'srun').write_text('#!/bin/bash\necho ran $A >> log\n')
    (tmp_path / 'srun').chmod(0o755)
    environ = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '7'}
    for prologue, log in ((['export A=1'], 'ran 1\n'), (['export A=1', 'false'], '')):
        options = type('Options', (), {'restarts': 0, 'prologue': prologue})
        (tmp_path / 'log').write_text('')
        script = '\n'.join(batch_script.step(options, 'x'))
        done = subprocess.run(['bash', '-c', script], cwd=tmp_path, env=environ)
        assert (done.returncode == 0) == bool(log)
        assert (tmp_path / 'log').read_text() == log


@pytest.mark.parametrize(
    'code, restarts, count, requeued',
    [
        (0, 0, 0, False),
        (75, 0, 9, True),
        (1, 0, 0, False),
        (1, 2, 1, True),
        (1, 2, 2, False),
        (2, 2, 0, False),  # a mistake in the command line
        (137, 2, 0, True),
    ],
)
def test_which_exit_codes_slurm_requeues(tmp_path, code, restarts, count, requeued):
    """Runs the script with stand-ins for srun and scontrol."""
    for name, body in (('srun', f'exit {code}'), ('scontrol', 'echo "$@" > requeued')):
        (tmp_path / name).write_text(f'#!/bin/bash\n{body}\n')
        (tmp_path / name).chmod(0o755)
    options = type('Options', (), {'restarts': restarts, 'prologue': []})
    environ = {
        'PATH': f'{tmp_path}:{os.environ["PATH"]}',
        'SLURM_JOB_ID': '7',
        'SLURM_RESTART_COUNT': str(count),
    }
    script = '\n'.join(batch_script.step(options, 'x'))
    done = subprocess.run(['bash', '-c', script], cwd=tmp_path, env=environ)
    assert done.returncode == code
    assert (tmp_path / 'requeued').exists() == requeued
    if requeued:
        assert (tmp_path / 'requeued').read_text() == 'requeue 7\n'


PLAN = [
    {
        'group': 'hidden=2',
        'vmap': False,
        'traceable': True,
        'variants': [{'name': 'hidden=2,seed=0'}, {'name': 'hidden=2,seed=1'}],
        'left': ['hidden=2,seed=1'],
    },
    {
        'group': 'hidden=3',
        'vmap': False,
        'traceable': False,
        'reason': 'the data depends on hidden',
        'variants': [{'name': 'hidden=3,seed=0'}, {'name': 'hidden=3,seed=1'}],
        'left': ['hidden=3,seed=0', 'hidden=3,seed=1'],
    },
    {
        'group': 'hidden=4',
        'vmap': True,
        'traceable': True,
        'variants': [{'name': 'hidden=4,seed=0'}],
        'left': [],
    },
]


@pytest.fixture
def planned(monkeypatch):
    def run_plan(words, **options):
        if 'plan' not in words:
            return run_program(words, **options)
        return subprocess.CompletedProcess(words, 0, json.dumps(PLAN) + '\n', '')

    run_program = subprocess.run
    monkeypatch.setattr(plan.subprocess, 'run', run_plan)


def test_a_plan_becomes_jobs(planned):
    line = ['py', '-m', 'experiments.x', '--grid', 'hidden=2,3,4', 'seed=0,1']
    result = plan.of(line)
    assert (result.n_variants, result.n_finished) == (5, 2)
    assert [job.name for job in result.jobs] == [
        'hidden=2,seed=1',
        'hidden=3,seed=0',
        'hidden=3,seed=1',
    ]
    assert result.jobs[0].command == [
        *line,
        *('--workdir', 'runs/x-grid', '--group', 'hidden=2,seed=1', '--vectorize', 'loop'),
    ]
    assert plan.describe(result) == [
        '2 of 5 variants are finished, 3 jobs to run',
        'hidden=2: 1 variant as 1 job',
        'hidden=3: 2 variants as 2 jobs: the data depends on hidden',
    ]
    # On an accelerator, one program runs the variants that can be traced.
    result = plan.of(line, accelerator=True)
    assert 'hidden=2: 1 variant in one program (vmap): on an accelerator' in result.reasons[0]
    assert result.jobs[0].command[-3:] == ['hidden=2', '--vectorize', 'vmap']
    assert len(result.jobs) == 3
    result = plan.of([*line, '--vectorize', 'loop'], accelerator=True)
    assert result.jobs[0].command[-3:] == ['hidden=2,seed=1', '--vectorize', 'loop']


def test_a_sweep_is_an_array_and_a_table(planned, capsys):
    words = ['--slurm', '--gpus_per_node 1', '--jobs', '2', '--', *TOY, '--sweep', 'hidden']
    code, out = dry(sweep, *words, '--workdir', '/shared/s', capsys=capsys)
    assert code == 0
    array, _, table = out.partition('sbatch --parsable --dependency=afterany:${ARRAY%%;*} <<')
    assert '--array=0-2%2\n' in array and '--output=/shared/s/slurm-%A_%a.out' in array
    assert (
        '1) job=(' in array
        and '--group hidden=3,seed=0 --vectorize loop --platform gpu) ;;' in array
    )
    assert (
        'srun --kill-on-bad-exit=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" --label "${job[@]}"'
        in array
    )
    assert '--stage table' in table and 'gpus' not in table and 'requeue' not in table


def test_gke_manifest_has_slices_claim_and_queue():
    options = [*GKE, '--slices', '2', '--claim', 'c', '--queue', 'q', '--do', 'apply']
    code, out, errors = run(
        'launch.gke', '--dry_run', *options, '--', *TOY, '--workdir', '/mnt/shared/a'
    )
    assert code == 0, errors
    manifest = json.loads(out)
    assert (manifest['apiVersion'], manifest['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
    assert manifest['metadata']['labels'] == {'kueue.x-k8s.io/queue-name': 'q'}
    assert manifest['spec']['failurePolicy']['maxRestarts'] == 3
    (replicated,) = manifest['spec']['replicatedJobs']
    assert replicated['replicas'] == 2
    job = replicated['template']['spec']
    assert job['parallelism'] == job['completions'] == 4 and job['backoffLimit'] == 0
    (rule,) = job['podFailurePolicy']['rules']
    assert rule == {'action': 'FailJob', 'onExitCodes': {'operator': 'In', 'values': [2]}}
    pod = job['template']['spec']
    assert pod['restartPolicy'] == 'Never'
    (container,) = pod['containers']
    assert container['resources']['limits'] == {'google.com/tpu': 4}
    assert container['command'][:4] == ['python', '-m', 'tests.train.toy', '--noise']
    names = {mount['name'] for mount in container['volumeMounts']}
    assert names == {volume['name'] for volume in pod['volumes']}


@pytest.mark.parametrize(
    'topology, chips, expected', [('4x4', 4, 4), ('2x2x2', 4, 2), ('1x1', 1, 1), ('2x4', 8, 1)]
)
def test_hosts_of_a_topology(topology, chips, expected):
    assert gke.hosts(topology, chips) == expected


EXPERIMENT = ['--', *TOY]
WITH_WORKDIR = [*EXPERIMENT, '--workdir', '/mnt/shared/a']
SHARED = ['--share', 'h:/v', *WITH_WORKDIR]


@pytest.mark.parametrize(
    'launcher, argv, message',
    [
        (local, ['--processes', '2'], 'is not an experiment; expected, for example'),
        (
            sweep,
            ['--jobs', '2', *TOY],
            f'^-- is missing before the experiment: -- {" ".join(TOY)}$',
        ),
        (slurm, [*EXPERIMENT, '--coordinator', 'a:1'], '--coordinator after -- is set by the'),
        (sweep, [*EXPERIMENT, '--seeds=0..1', '--group=a'], '--group after -- is set by the'),
        (
            local,
            [*EXPERIMENT, '--process-id', '1'],
            '--process_id after -- is set by the launcher',
        ),
        (tpu, ['--dry_run', *TPU, *SHARED, '--coordinator=a:1'], '--coordinator after -- is set'),
        (gke, ['--dry_run', *GKE, '--claim', 'c', *WITH_WORKDIR, '--processes=2'], 'is set by'),
        (slurm, ['--dry_run', *EXPERIMENT, '--help'], '--help after -- runs nothing'),
        (slurm, [*EXPERIMENT, '--dry_run'], '--dry_run after -- runs nothing; put it before --'),
        (sweep, ['--', 'python', 'none.py'], 'none.py is not a file in .*; expected an experiment'),
        (
            slurm,
            ['--time', 'forever', *EXPERIMENT],
            '--time forever: expected hours:minutes:seconds',
        ),
        (slurm, ['--time', '1:00', *EXPERIMENT], 'is 60 seconds, no longer than --notice 120'),
        (slurm, ['--option', 'time=x', *EXPERIMENT], '--time x: expected hours:minutes'),
        (slurm, ['--option', 'a b', *EXPERIMENT], "--option 'a b': expected NAME=VALUE"),
        (slurm, ['--prologue', 'if (', *EXPERIMENT], r"--prologue 'if \(' is not a shell command"),
        (slurm, [*EXPERIMENT, '--workdir', '/tmp/a'], 'each node has its own /tmp'),
        (local, ['--', 'ls', '-l'], 'is not an experiment'),
        (local, ['--processes', '0', *EXPERIMENT], '--processes 0: expected at least 1'),
        (sweep, EXPERIMENT, 'none of --sweep, --grid and --seeds'),
        (sweep, ['--jobs', '0', *EXPERIMENT], '--jobs 0: expected at least 1'),
        (slurm, ['--nodes', '0', *EXPERIMENT], '--nodes 0: expected at least 1'),
        (slurm, EXPERIMENT, 'sbatch is not on PATH; .* or use --dry_run'),
        (tpu, [*TPU, *SHARED], 'gcloud is not on PATH; install the Google Cloud CLI'),
        (
            tpu,
            [*TPU, *EXPERIMENT],
            '--workdir is missing: expected a directory that all hosts share',
        ),
        (tpu, [*TPU, *WITH_WORKDIR], 'use /mnt/shared/NAME with --share HOST:/PATH'),
        (tpu, [*TPU[:-1], 'v6e', *SHARED], '--type v6e: expected v6e-SIZE'),
        (tpu, [*TPU, '--do', 'crate', *WITH_WORKDIR], '--do crate: expected steps of create, copy'),
        (tpu, [*TPU[:4], *WITH_WORKDIR], '--type is required'),
        (tpu, [*TPU, '--share', 'x', *WITH_WORKDIR], 'expected HOST:/PATH'),
        (gke, [*GKE, *WITH_WORKDIR], 'kubectl is not on PATH; install it'),
        (gke, ['--dry_run', *GKE, *EXPERIMENT], '--workdir is missing: expected a directory that'),
        (gke, ['--dry_run', *GKE, *WITH_WORKDIR], 'use /mnt/shared/NAME with --claim'),
        (gke, ['--dry_run', *GKE[:-2], *WITH_WORKDIR], '--topology is required'),
        (gke, ['--dry_run', *GKE[:-1], '4x', *WITH_WORKDIR], "--topology '4x': expected AxB"),
        (gke, ['--dry_run', *GKE[:-1], '3x3', *WITH_WORKDIR], '9 chips of --topology 3x3'),
        (
            gke,
            ['--dry_run', *GKE, '--name', 'A_b', *WITH_WORKDIR],
            "lower-case letters, digits and '-'",
        ),
        (data, ['--to', 'gs://b/x', *EXPERIMENT], 'gcloud is not on PATH'),
        (data, ['--to', 'gs://b/x', '--check'], 'copy it to a directory'),
        (data, ['--to', '/nowhere', '--check'], 'prepare the data set there first'),
        (data, ['--to', '/x', *EXPERIMENT, '--data_dir', '/y'], '--to names the directory'),
    ],
)
def test_mistakes_are_one_line(launcher, argv, message, monkeypatch, tmp_path):
    (tmp_path / 'git').symlink_to('/usr/bin/git')
    (tmp_path / 'bash').symlink_to('/bin/bash')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(command.LaunchError, match=message) as raised:
        launcher.main(argv)
    assert '\n' not in str(raised.value)


def test_a_mistake_exits_with_2():
    code, out, errors = run('launch.sweep', '--', *TOY, '--grid', 'widht=1')
    assert (code, out) == (2, '')
    assert errors == (
        'launch.sweep: the sweep cannot be planned: toy: the sweep names widht, which is not a '
        'field of the experiment; did you mean weight?\n'
    )


@pytest.mark.parametrize(
    'launcher, argv',
    [
        ('slurm', ['--dry_run', '--', *TOY, '--workdir', '/shared/a']),
        ('gke', ['--dry_run', *GKE, '--claim', 'c', *WITH_WORKDIR]),
    ],
)
def test_the_experiment_parses_its_own_options_first(launcher, argv):
    code, out, errors = run(f'launch.{launcher}', *argv, '--preset', 'smoek')
    assert (code, out) == (2, '')
    assert errors == (
        f"launch.{launcher}: the experiment cannot start: toy: unknown preset 'smoek'; did you mean "
        'smoke?\n'
    )


def test_a_file_of_another_directory_is_launched(tmp_path):
    """python regress.py, with lecture4 and launch importable, and its runs next to it."""
    (tmp_path / 'regress.py').write_text((ROOT / 'tests/train/toy.py').read_text())
    argv = ['--', 'python', 'regress.py', '--preset', 'smoke', '--grid', 'weight=0,0.1']
    line = [sys.executable, '-m', 'launch.sweep', '--dry_run', *argv]
    env = environ(PYTHONPATH=str(ROOT))
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '--workdir runs/regress-smoke-grid --group all --vectorize vmap' in done.stdout
    assert (
        'all: 2 variants in one program (vmap): all fields that differ can be traced' in done.stderr
    )
