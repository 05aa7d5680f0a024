"""What kernels of our own would save in the solvers' loops: bytes and time at least, compared with XLA's programs.

    python -m tests.benchmarks.solver_kernels [--chips v5e h200] [--atoms 256 512 1024 4096] [--signals 1024 65536]

Per iteration and signal: numbers of 4 bytes per atom that XLA's loop moves to and from memory, for 1024 signals and for
65536, and those of a kernel, counted by hand; then nanoseconds at least, and whether (m)emory, (p)roducts or
(e)lementwise operations bound them. The ratios are to the better number of signals, since solvers have an option tile.

    step     | chip |    k | XLA, by signals | kernel | ratio | ns at least | kernel | ratio | >= 1.5
    proximal | v5e  |  256 |  0.50   6.50 |  0.50 | 1.0 |   3.99 p    8.32 m |   3.99 p | 1.0 | no
    proximal | v5e  |  512 |  0.50   8.78 |  0.50 | 1.0 |   8.98 p   22.48 m |   8.98 p | 1.0 | no
    proximal | v5e  | 1024 |  0.50   8.64 |  0.50 | 1.0 |  17.96 p   44.25 m |  17.96 p | 1.0 | no
    proximal | v5e  | 4096 |  0.50   8.54 |  0.50 | 1.0 |  71.86 p  174.85 m |  71.86 p | 1.0 | no
    proximal | h200 |  256 | 14.79  14.53 |  4.50 | 3.2 |   3.15 m    3.10 m |   1.96 p | 1.6 | yes
    proximal | h200 |  512 | 16.89  14.36 |  9.50 | 1.5 |   7.21 m    6.13 m |   4.40 p | 1.4 | no
    proximal | h200 | 1024 | 15.34  13.93 | 18.50 | 0.8 |  13.09 m   11.89 m |  15.79 m | 0.8 | no
    proximal | h200 | 4096 | 14.45  13.61 | 72.50 | 0.2 |  49.33 m   46.46 m | 247.47 m | 0.2 | no
    greedy   | v5e  |  256 |  0.08  14.10 |  0.08 | 1.0 |   0.50 e   18.05 m |   0.50 e | 1.0 | no
    greedy   | v5e  |  512 |  0.08  20.12 |  0.08 | 1.0 |   1.01 e   51.51 m |   1.01 e | 1.0 | no
    greedy   | v5e  | 1024 |  0.08  20.10 |  0.08 | 1.0 |   2.01 e  102.92 m |   2.01 e | 1.0 | no
    greedy   | v5e  | 4096 |  0.08  14.14 |  0.08 | 1.0 |   8.06 e  289.68 m |   8.06 e | 1.0 | no
    greedy   | h200 |  256 |  8.38   8.15 |  1.08 | 7.5 |   1.79 m    1.74 m |   0.23 m | 7.5 | yes
    greedy   | h200 |  512 |  8.61   8.12 |  1.08 | 7.5 |   3.67 m    3.47 m |   0.46 m | 7.5 | yes
    greedy   | h200 | 1024 | 11.22   8.11 |  1.08 | 7.5 |   9.57 m    6.92 m |   0.92 m | 7.5 | yes
    greedy   | h200 | 4096 | 12.21   8.15 |  1.08 | 7.5 |  41.67 m   27.81 m |   3.69 m | 7.5 | yes

v5e: XLA keeps the loop of a tile in vector memory (128 MB), whose traffic is not counted here: no kernel. There the
greedy loop moves about 20 numbers, 4 in a kernel; what that gains, at gathers of rows and maxima along them, no count
says. H200: XLA's kernels exchange all arrays; its L2 cache is not modeled. The greedy count has gathered elements as
whole arrays; by hand it is 5, a ratio of 4.7: solvers/greedy_updates.py has the kernel. The proximal kernel would read
the matrix, too large for a core, once for the signals that a core holds. At k = 256 its count is 1.6, 1.4 without two
numbers that XLA's loop copies, and Triton's product would need that matrix, 256 kB, in 227 kB: none was written.
jax 0.10.2, libtpu 0.0.42; a proximal program for the v5e takes a minute to compile.
"""

import argparse
import math
import re

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lecture4.sparse.objective import L1
from lecture4.sparse.solvers.greedy_updates import descend
from lecture4.sparse.solvers.proximal import proximal_steps
from lecture4.train import topology
from lecture4.train.chips import CHIPS
from lecture4.train.program_cost import traffic

DIM = 144  # of a signal
# Iterations after which fista checks, and about so many updates after which coordinate descent does.
CHECK_EVERY = {'proximal': 10, 'greedy': 50}
ARRAYS = {'proximal': 5, 'greedy': 4}  # that a kernel reads or writes between two checks, [n, k]
OPS_PER_ATOM = {'proximal': 20, 'greedy': 12}  # elementwise operations
TOPOLOGY = {'v5e': 'v5e:2x2', 'h200': 'h200:1'}
# Products at precision 'highest': six bfloat16 passes on a TPU; float32 units of an H200 (NVIDIA data sheet, SXM).
FLOAT32_FLOPS = {'v5e': 197e12 / 6, 'h200': 67e12}
# 8 x 128 lanes of 4 units at 1.5 GHz (jax-ml.github.io/scaling-book/tpus); half the flops, which count two per lane.
VECTOR_OPS = {'v5e': 6.1e12, 'h200': 33.5e12}
SHARED_MEMORY = 227 * 1024  # bytes of a core of an H200
WORTHWHILE = 1.5
IN_VMEM = re.compile(r'\b[a-z]\w*\[[\d,]*\]\{[^{}]*S\(1\)\}')
HEADER = (
    'step | chip | k | XLA, by signals | kernel | ratio | ns at least | kernel | ratio | >= 1.5'
)


def proximal(x, D, a, y, t, weight, L, gram, steps):
    """Iterations of fista, as between its checks: the Gram matrix if k < 2 d, else two products with D."""
    gram = gram if D.shape[1] < 2 * DIM else None
    step, _, _ = proximal_steps(x, D, weight, None, L1, (L, gram), momentum=True)
    return lax.fori_loop(0, steps, lambda _, state: step(state), (a, y, t, t))[:3]


def greedy(y, c, step_tolerance, budget, rows):
    """Updates of coordinate_descent in JAX."""
    return descend(y, c, step_tolerance, budget, 1, rows, L1)


def compiled(step: str, chip: str, n: int, k: int) -> str:
    """HLO of the program for one chip."""
    if step == 'proximal':
        shapes = ((n, DIM), (DIM, k), (n, k), (n, k), (n, 1), (1, 1), (), (k, k), ())
    else:
        shapes = ((n, k), (n, k), (n,), (n,), (k, k))
    on = topology.target(TOPOLOGY[chip])
    sharding = NamedSharding(Mesh(on.mesh.devices.flat[:1], ('data',)), PartitionSpec())
    integer = {'proximal': 8, 'greedy': 3}[step]
    args = [
        jax.ShapeDtypeStruct(shape, np.int32 if i == integer else np.float32, sharding=sharding)
        for i, shape in enumerate(shapes)
    ]
    run = jax.jit({'proximal': proximal, 'greedy': greedy}[step], out_shardings=sharding)
    return str(run.trace(*args).lower(lowering_platforms=(on.platform,)).compile().as_text())


def bytes_per_iteration(text: str) -> int:
    """Operands and results of all instructions in the body of a program's only loop, without a TPU's vector memory."""
    (body,) = set(re.findall(r' while\(.*body=%?([\w.-]+)', text))
    (block,) = re.findall(rf'^(%?{re.escape(body)} .*?^\}})', text, re.MULTILINE | re.DOTALL)
    # A copy between memories has its operand in its result, too.
    block = re.sub(r'= \(.*\) (copy|slice)-start\(', r'= () \1-start(', block)
    return traffic('ENTRY ' + IN_VMEM.sub('()', block)).bytes


def numbers_of_kernel(step: str, chip: str, k: int) -> float:
    """Numbers per signal, atom and iteration that a kernel moves; on a GPU with those of the matrix, see above."""
    once = ARRAYS[step] / CHECK_EVERY[step]
    if chip == 'v5e':
        return once
    if step == 'greedy':
        return once + 1
    signals = 2 ** int(math.log2(SHARED_MEMORY / (3 * 4 * k)))  # whose y, a and D'x a core holds
    return once + min(k, 2 * DIM) / signals


def least_time(step: str, chip: str, k: int, numbers: float) -> tuple[float, str]:
    """Nanoseconds per signal and iteration at the chip's peak rates, and what bounds them."""
    flops = 2 * k * min(k, 2 * DIM) if step == 'proximal' else 0
    bounds = {
        'products': flops / FLOAT32_FLOPS[chip],
        'elementwise': OPS_PER_ATOM[step] * k / VECTOR_OPS[chip],
        'memory': 4 * numbers * k / CHIPS[chip].bandwidth,
    }
    bound = max(bounds, key=lambda name: bounds[name])
    return 1e9 * bounds[bound], bound


def row(step: str, chip: str, k: int, programs: dict[int, str]) -> str:
    """A row of the table, from HLO of {signals: program}; the ratios are to the best number of signals."""
    kernel = numbers_of_kernel(step, chip, k)
    once = ARRAYS[step] / CHECK_EVERY[step]
    plain = [once + bytes_per_iteration(text) / (4 * n * k) for n, text in programs.items()]
    times = [least_time(step, chip, k, numbers) for numbers in plain]
    fast, bound = least_time(step, chip, k, kernel)
    fewer, faster = min(plain) / kernel, min(times)[0] / fast
    columns = [
        f'{step:8s} | {chip:4s} | {k:4d}', '  '.join(f'{v:5.2f}' for v in plain), f'{kernel:5.2f} | {fewer:3.1f}',
        '  '.join(f'{time:6.2f} {name[0]}' for time, name in times), f'{fast:6.2f} {bound[0]} | {faster:3.1f}',
        'yes' if min(fewer, faster) >= WORTHWHILE else 'no',
    ]  # fmt: skip
    return ' | '.join(columns)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--steps', nargs='+', default=['proximal', 'greedy'])
    parser.add_argument('--chips', nargs='+', choices=list(TOPOLOGY), default=list(TOPOLOGY))
    parser.add_argument('--atoms', nargs='+', type=int, default=[256, 512, 1024, 4096])
    parser.add_argument('--signals', nargs='+', type=int, default=[1024, 65536])
    options = parser.parse_args()
    print(HEADER)
    for step in options.steps:
        for chip in options.chips:
            for k in options.atoms:
                programs = {n: compiled(step, chip, n, k) for n in options.signals}
                print(row(step, chip, k, programs), flush=True)


if __name__ == '__main__':
    main()
