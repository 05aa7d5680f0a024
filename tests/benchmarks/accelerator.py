"""Everything that waits for an accelerator, measured by one command: expected (roofline) next to measured.

    python -m tests.benchmarks.accelerator --manual_dir PATH [--workdir runs/accelerator] [--minutes 9]
    python -m tests.benchmarks.accelerator --smoke          tiny sizes, on a CPU, so that it cannot rot

The parts are measured one after another. After --minutes the command stops between two parts, or in the middle of the
long training, which saves its state; the same command continues (exit code 75 until all is done), and prints the table
of what is there. "Expected" is the least time by the chip's peak rates (lecture4/train/chips.py) of the program that
XLA compiled for it, so that measured / expected is at least 1; CPUs have none. Only --smoke on a CPU was run: no
accelerator was at hand.

    codes           L1 codes of 144-pixel patches with 256 atoms, certified to 1e-3
    variants        32 variants of a small autoencoder and a dictionary under vmap, relative to one
    resnet_50       training step in bfloat16, 256 images of 224 pixels; LECTURE4_TORCH_PYTHON names a Python with torch
                    for torch.compile's
    resnet_20       training step of CIFAR's ResNet-20, and its 64,000 steps as a run (needs cifar10 in --manual_dir)
    faster_rcnn, captions    training steps of the detector and of the captioner
"""

import argparse
import importlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent.parent
CONTINUE = 75  # exit code while parts are missing
CHIP_OF_KIND = {
    'TPU v4': 'v4', 'TPU v5 lite': 'v5e', 'TPU v5': 'v5p', 'TPU v6 lite': 'v6e', 'A100': 'a100', 'H100': 'h100',
    'H200': 'h200', 'B200': 'b200',
}  # fmt: skip
STEPS = {  # part: (experiment, options, options of --smoke)
    'resnet_20': ('convnets.resnet_cifar', ('--depth', '20'), ('--preset', 'smoke')),
    'faster_rcnn': ('detection.faster_rcnn', (), ('--preset', 'smoke')),
    'captions': ('descriptions.captions', ('--source', 'scenes'), ('--preset', 'smoke')),
}
TORCH = """
import statistics, sys, time, torch, torchvision
n, repeats = int(sys.argv[1]), int(sys.argv[2])
model = torchvision.models.resnet50().cuda().to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
x = torch.zeros(n, 3, 224, 224, device='cuda').to(memory_format=torch.channels_last)
y = torch.zeros(n, dtype=torch.long, device='cuda')
@torch.compile
def loss_of(x, y):
    with torch.autocast('cuda', torch.bfloat16):
        return torch.nn.functional.cross_entropy(model(x), y)
def step():
    optimizer.zero_grad(); loss_of(x, y).backward(); optimizer.step()
for _ in range(5): step()
times = []
for _ in range(repeats):
    torch.cuda.synchronize(); start = time.perf_counter(); step(); torch.cuda.synchronize()
    times.append(time.perf_counter() - start)
print(statistics.median(times))
"""


def chip():
    """Peak rates of the attached devices, or those of a CPU: none."""
    import jax

    from lecture4.train.chips import CHIPS

    kind = jax.devices()[0].device_kind
    names = [name for part, name in CHIP_OF_KIND.items() if part in kind]
    return CHIPS[names[0] if names else 'cpu']


def seconds(run, repeats: int) -> float:
    """Median time of calls that return arrays."""
    import jax

    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def result(quantity: str, measured: float, expected: float = 0.0, note: str = '') -> dict[str, Any]:
    """One row: times in seconds; expected is 0 where it is not known."""
    return {'quantity': quantity, 'measured': measured, 'expected': expected, 'note': note}


def step_time(this, config, data, quantity: str, repeats: int) -> dict[str, Any]:
    """The time of one training step of an experiment on all devices, next to that of its counts."""
    import jax

    from lecture4.train import compile as compiler
    from lecture4.train import experiment
    from lecture4.train.sharding import device_mesh
    from lecture4.train.step import bind, compile_task

    mesh = device_mesh(jax.devices())
    platform = jax.devices()[0].platform
    platform = 'cuda' if platform == 'gpu' else platform
    here = compiler.Target('here', platform, chip(), mesh)
    (program,) = compiler.compile_experiment(this, config, data, here, ('step',))
    compiled = compile_task(bind(experiment.build(this, config, data), data, 0), mesh)
    state, n = [compiled.init()], config.steps_per_call

    def run():
        state[0], metrics = compiled.run_steps(state[0], 0, n)
        return metrics

    expected = max(program.seconds(here).values(), default=0.0) / n
    note = 'a loop without fixed trip count counts once' if program.unknown_loops else ''
    return result(quantity, seconds(run, repeats) / n, expected, note)


def experiment_step(name: str, options) -> list[dict[str, Any]]:
    from lecture4.train import cli, experiment

    module, full, smoke = STEPS[name]
    this = experiment.from_module(importlib.import_module(f'experiments.{module}'))
    words = [*(smoke if options.smoke else full), *common(options)]
    config = cli.parse(this, words)
    data = experiment.load(this, config)
    return [step_time(this, config, data, 's per step', options.repeats)]


def common(options) -> list[str]:
    """Options of all experiments."""
    return ['--manual_dir', options.manual_dir] if options.manual_dir else []


def resnet_50(options) -> list[dict[str, Any]]:
    from tests.benchmarks import compiled

    batch_size, image_size, name = (
        (4, 64, 'resnet_18') if options.smoke else (256, 224, 'resnet_50')
    )
    this, config, data = compiled.classifier('resnet', name, image_size, batch_size, False)
    rows = [step_time(this, config, data, f's per step of {batch_size}', options.repeats)]
    if python := os.environ.get('LECTURE4_TORCH_PYTHON'):
        command = [python, '-c', TORCH, str(batch_size), str(options.repeats)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            rows.append(result('s per step, torch.compile', float(done.stdout.split()[-1])))
        else:
            print(f'torch: {done.stderr.strip().splitlines()[-1]}')
    return rows


def codes(options) -> list[dict[str, Any]]:
    import jax
    import jax.numpy as jnp

    from lecture4.sparse import solvers

    n, d, k = (256, 16, 32) if options.smoke else (65536, 144, 256)
    keys = jax.random.split(jax.random.key(0), 3)
    D = jax.random.normal(keys[0], (d, k))
    D = D / jnp.linalg.norm(D, axis=0)
    active = jax.random.bernoulli(keys[1], 0.05, (n, k))
    x = jnp.where(active, jax.random.normal(keys[2], (n, k)), 0) @ D.T
    cases: dict[str, dict[str, Any]] = {'admm': {'method': 'admm'}}
    if not options.smoke:
        cases['auto'] = {}
    if jax.devices()[0].platform == 'gpu':
        cases['coordinate_descent'] = {'method': 'coordinate_descent'}
        cases['coordinate_descent without kernel'] = cases['coordinate_descent'] | {
            'kernel': 'none'
        }
    times = {
        name: seconds(lambda v=case: solvers.encode(x, D, 0.1, tolerance=1e-3, **v), 3)
        for name, case in cases.items()
    }
    # reading signals and writing codes once: no solver is faster
    expected = 4 * n * (d + k) / chip().bandwidth if chip().bandwidth else 0.0
    note = 'expected: signals read and codes written once'
    return [result(f's per {n} codes, {m}', t, expected, note) for m, t in times.items()]


def variants(options) -> list[dict[str, Any]]:
    from tests.benchmarks import variants_speed

    settings = argparse.Namespace(
        repeats=1 if options.smoke else 5, steps=2 if options.smoke else 20
    )
    n, rows = 4 if options.smoke else 32, []
    for name in ('autoencoder', 'learner'):
        config = variants_speed.Config(batch_size=32)
        build = getattr(variants_speed, name)
        one, _, together = variants_speed.measure(build, config, n, settings)
        rows.append(result(f's per step, one {name}', one / settings.steps))
        rows.append(
            result(
                f's per step, {n} of them',
                together / settings.steps,
                note=f'{together / one:.2f} of one',
            )
        )
    return rows


def training(options, seconds_left: float) -> list[dict[str, Any]] | None:
    """ResNet-20 on CIFAR-10, 64,000 steps: one run that is interrupted and continued; None until it is done."""
    workdir = options.workdir / 'resnet_20'
    settings = ['--preset', 'smoke'] if options.smoke else ['--depth', '20', '--steps', '64000']
    command = [sys.executable, '-m', 'experiments.convnets.resnet_cifar', *settings]
    command += ['--workdir', str(workdir), '--progress', 'none', *common(options)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        code = process.wait(seconds_left)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    if code == CONTINUE:
        return None
    if code:
        raise SystemExit(f'{" ".join(command)} ended with exit code {code}')
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    last = json.loads(lines[-1])
    metrics = json.loads((workdir / 'results.json').read_text())
    primary = metrics['metrics'][metrics['primary']]
    return [
        result(
            f's for {last["step"]} steps',
            last['seconds'],
            note=f'{metrics["primary"]} {primary:.4f}',
        )
    ]


def parts(options):
    """{name: function of the seconds left that returns rows, or None to be continued}."""
    result: dict[str, Any] = {'codes': lambda left: codes(options)}
    result['variants'] = lambda left: variants(options)
    result['resnet_50'] = lambda left: resnet_50(options)
    for name in STEPS:
        result[name] = lambda left, name=name: experiment_step(name, options)
    result['resnet_20_training'] = lambda left: training(options, left)
    return result


def table(rows: dict[str, list[dict[str, Any]]], device: str) -> str:
    """The table in Markdown."""
    lines = [
        f'{device}',
        '',
        '| part | quantity | expected, at least | measured | measured / expected | |',
    ]
    lines.append('|---|---|---|---|---|---|')
    for name, own in rows.items():
        for row in own:
            expected, measured = row['expected'], row['measured']
            cells = [
                name,
                row['quantity'],
                f'{expected:.3g}' if expected else '',
                f'{measured:.3g}',
            ]
            cells += [f'{measured / expected:.2f}' if expected else '', row['note']]
            lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main() -> int:
    """Measure what --workdir does not hold; print the table. Returns 0, or 75 while parts are missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--smoke', action='store_true', help='tiny sizes')
    parser.add_argument('--only', nargs='+', default=[], help='names of parts')
    parser.add_argument('--manual_dir', default='', help='folder of data sets')
    parser.add_argument('--minutes', type=float, default=9.0, help='time after which to stop')
    parser.add_argument('--repeats', type=int, default=0, help='calls per median; default 20')
    parser.add_argument('--workdir', type=pathlib.Path, default=None)
    options = parser.parse_args()
    options.repeats = options.repeats or (2 if options.smoke else 20)
    default = 'runs/accelerator_smoke' if options.smoke else 'runs/accelerator'
    options.workdir = (options.workdir or pathlib.Path(default)).absolute()
    options.workdir.mkdir(parents=True, exist_ok=True)
    start, done, missing = time.monotonic(), {}, []
    known = parts(options)
    if unknown := set(options.only) - set(known):
        parser.error(f'unknown parts {" ".join(sorted(unknown))}; expected {" ".join(known)}')
    import jax

    device = f'{len(jax.devices())} x {jax.devices()[0].device_kind}'
    for name, measure in known.items():
        path = options.workdir / f'{name}.json'
        left = 60 * options.minutes - (time.monotonic() - start)
        if not path.exists() and (not options.only or name in options.only):
            rows = measure(left) if left > 0 else None
            if rows is None:
                missing.append(name)
                continue
            path.write_text(json.dumps({'device': device, 'rows': rows}))
            print(f'measured {name}', flush=True)
        if path.exists():
            done[name] = json.loads(path.read_text())['rows']
    print(table(done, device))
    if missing:
        print(f'missing: {", ".join(missing)}; run the same command again')
    return CONTINUE if missing else 0


if __name__ == '__main__':
    sys.exit(main())
