"""How far data parallelism scales: bytes reduced per step and speeds of links, for 8 to 1024 devices.

    python tests/benchmarks/scaling.py [--flops 40e12] [--latency 10e-6] [--loop 5e-6] [--count]

A calculation, not a measurement: nothing here ran on more than one machine. The count is exact for the
number of bytes that a step sums over devices (--count reads the same number from the program that XLA
compiles for 8 simulated devices). Assumed, and set by the options: the rate that a device sustains, the
latency between two devices, the time of one iteration of a loop on a device. A sum of b bytes over
n devices takes 2 (n - 1) / n * b / link + 2 log2(n) * latency seconds (what a ring moves, what a tree
waits); overlap with computation, which would hide a part of it, is left out.

Dictionary learning sums A [k, k], B [d, k], the usage of the atoms, two means and the 32 worst-coded
signals, whatever the batch: 4 (k^2 + d k + k + 2 + 32 d) bytes, 0.43 MB for 256 atoms of 144. Its
scaling is limited not by links but by the work that every device repeats: the k sequential updates of the
atoms, and the eigenvalues of D D'. A batch of 65,536 signals is already less than half as fast on 8 devices
as 8 devices could be. With 512 signals per device the time of a step stays constant: 74 % or more of it is computing
at 1024 devices from 100 Gbit/s up. More devices allow larger batches, not shorter steps.

ResNet-50 sums 25.6 million gradients, 102 MB in float32, and for batch statistics of the whole batch 53
pairs of vectors, forward and backward, each with its own latency. At a fixed global batch of 8192 more than
half of the efficiency is left up to 16 devices at 10 Gbit/s, 128 at 100 and 400 Gbit/s, 256 at
450 GB/s, where the limit is the latency of batch norm's 106 sums, not the bytes. With 256 images
per device 80 % or more is left at 1024 devices from 100 Gbit/s up, and half at 8 with 10 Gbit/s.
"""

import argparse
import math
import re
from typing import NamedTuple

DEVICES = (8, 16, 32, 64, 128, 256, 512, 1024)
LINKS = {'10 Gbit/s': 1.25e9, '100 Gbit/s': 12.5e9, '400 Gbit/s': 50e9, '450 GB/s': 450e9}


class Step(NamedTuple):
    """Costs of one training step.

    Attributes:
      name: Title of its tables.
      bytes: Bytes summed over devices.
      sums: Number of sums that follow one another.
      flops: Flops of one example.
      repeated: Flops that every device repeats.
      turns: Iterations of sequential loops that every device repeats.
    """

    name: str
    bytes: int
    sums: int
    flops: float
    repeated: float = 0.0
    turns: int = 0


def dictionary_learning(d: int = 144, k: int = 256, n_inner: int = 8) -> Step:
    """Sizes of experiments.sparse_coding.natural_image_bases; the loops of lecture4.sparse.dictionary.online."""
    m = min(d, k)
    codes = 2 * d * k + 2 * d * m + n_inner * 4 * m * k
    statistics = 2 * d * k + 2 * k * k + 2 * d * k
    repeated = 10 * m**3 + 2 * d * d * k + 2 * m * d * k + 2 * k * k * d
    # A, B, usage and the means are one sum; the worst signals of the batch come in a second
    return Step(
        f'dictionary learning, {k} atoms of {d}',
        4 * (k * k + d * k + k + 2 + 32 * d),
        2,
        codes + statistics,
        repeated,
        k + n_inner,
    )


def resnet50() -> Step:
    """Counts of lecture4.vision.layer_specs; backward costs twice forward."""
    from lecture4.ops import receptive_field
    from lecture4.vision import layer_specs

    rows = receptive_field.summarize(layer_specs.resnet(50), (224, 224, 3))
    parameters, macs = receptive_field.totals(rows)
    norms = [row for row in rows if row.kind == 'norm']
    channels = sum(row.output[-1] for row in norms)
    # of each: mean and mean square forward, their two gradients backward
    return Step(
        'ResNet-50 at 224 pixels', 4 * (parameters + 4 * channels), 1 + 2 * len(norms), 6.0 * macs
    )


def seconds(step: Step, n: int, batch: int, link: float, options) -> tuple[float, float]:
    """(computing, summing) of one step of `batch` examples over n devices."""
    computing = (
        step.flops * batch / n / options.flops
        + step.repeated / options.flops
        + step.turns * options.loop
    )
    if n == 1:
        return computing, 0.0
    moving = 2 * (n - 1) / n * step.bytes / link
    return computing, moving + step.sums * 2 * math.log2(n) * options.latency


def efficiency(step: Step, n: int, batch: int, link: float, options) -> float:
    """Examples per second of n devices, as a fraction of n times those of one device."""
    alone = sum(seconds(step, 1, batch, link, options))
    return alone / n / sum(seconds(step, n, batch, link, options))


def weak_efficiency(step: Step, n: int, each: int, link: float, options) -> float:
    """The same where each device keeps its `each` examples."""
    alone = sum(seconds(step, 1, each, link, options))
    return alone / sum(seconds(step, n, each * n, link, options))


def show(step: Step, batch: int, each: int, options):
    """Tables of one kind of training."""
    print(f'\n{step.name}: {step.bytes / 1e6:.3f} MB in {step.sums} sums per step')
    for title, size, fraction in (
        (f'global batch {batch}', batch, efficiency),
        (f'{each} per device', each, weak_efficiency),
    ):
        print(f'  {title:20} computing ' + ''.join(f'{name:>22}' for name in LINKS))
        last = dict.fromkeys(LINKS, 0)
        for n in DEVICES:
            if fraction is efficiency and n > batch:
                continue
            total = size if fraction is efficiency else size * n
            cells, computing = '', 0.0
            for name, link in LINKS.items():
                computing, summing = seconds(step, n, total, link, options)
                reached = fraction(step, n, size, link, options)
                last[name] = n if reached >= 0.5 else last[name]
                cells += f'{1e3 * summing:11.2f} ms {100 * reached:5.0f} %'.rjust(22)
            print(f'  {n:8} devices    {1e3 * computing:8.2f} ms' + cells)
        limits = ', '.join(f'{n or "fewer than 8"} ({name})' for name, n in last.items())
        print(f'  at least half of the efficiency up to: {limits}')


def count(d: int = 144, k: int = 256, n_inner: int = 8, n_devices: int = 8) -> int:
    """Bytes that the compiled step of dictionary learning sums over devices, read from the program."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from lecture4.sparse.dictionary import online

    mesh = Mesh(np.array(jax.devices()[:n_devices]), ('data',))
    replicated = NamedSharding(mesh, PartitionSpec())
    state = jax.eval_shape(
        lambda key, x: online.init(key, x, k), jax.random.key(0), np.zeros((64, d), np.float32)
    )
    compiled = jax.jit(
        lambda state, x, key: online.step(state, x, key, penalty_weight=1.0, n_iterations=n_inner),
        in_shardings=(replicated, NamedSharding(mesh, PartitionSpec('data')), replicated),
        out_shardings=replicated,
    ).lower(state, jax.ShapeDtypeStruct((512, d), np.float32), jax.eval_shape(jax.random.key, 0))
    return reduced_bytes(compiled.compile().as_text() or '')


def reduced_bytes(program: str) -> int:
    """Bytes of the float32 results of all all-reduces of a compiled program's text."""
    total = 0
    for line in program.splitlines():
        if match := re.search(r'= (.*?) all-reduce(?:-start)?\(', line):
            for shape in re.findall(r'f32\[([\d,]*)\]', match[1]):
                total += 4 * math.prod(int(side) for side in shape.split(',') if side)
    return total


def main():
    """The tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--flops', type=float, default=40e12, help='a device sustains, a second')
    parser.add_argument('--latency', type=float, default=10e-6, help='seconds of one round')
    parser.add_argument('--loop', type=float, default=5e-6, help='seconds of one turn of a loop')
    parser.add_argument('--count', action='store_true', help='read the bytes from the program too')
    options = parser.parse_args()
    if options.count:
        import jax

        jax.config.update('jax_num_cpu_devices', 8)
        counted, found = dictionary_learning().bytes, count()
        print(f'dictionary learning: {counted} bytes by the formula, {found} in the program')
    show(dictionary_learning(), 65536, 512, options)
    show(dictionary_learning(d=192, k=1024, n_inner=20), 65536, 512, options)
    show(resnet50(), 8192, 256, options)


if __name__ == '__main__':
    main()
