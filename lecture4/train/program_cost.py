"""Cost of a compiled program: products of its jaxpr, bytes and collectives of its HLO text.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from lecture4.ops import machine_code

DTYPE_BYTES = {
    'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'f16': 2, 'bf16': 2, 's32': 4, 'u32': 4, 'f32': 4,
    's64': 8, 'u64': 8, 'f64': 8, 'c64': 8, 'c128': 16,
}  # fmt: skip
BETWEEN_SLICES = 'between slices'
# Bytes that each of n chips sends so that all have the result, by the size of a result on a chip.
SENT: dict[str, Callable[[float, int], float]] = {
    'all-reduce': lambda size, n: 2 * size * (n - 1) / n,
    'all-gather': lambda size, n: size * (n - 1) / n,
    'reduce-scatter': lambda size, n: size * (n - 1),
    'all-to-all': lambda size, n: size * (n - 1) / n,
    'collective-permute': lambda size, n: size,
}
# The same between n slices, by the size of an operand.
BETWEEN = SENT | {
    'all-gather': lambda size, n: size * (n - 1),
    'reduce-scatter': lambda size, n: size * (n - 1) / n,
}
NO_TRAFFIC = (
    'parameter',
    'constant',
    'tuple',
    'get-tuple-element',
    'bitcast',
    'while',
    'conditional',
    'call',
)
ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')
INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)$')
COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.-]+)(?: \(.*\) -> .*)? \{$')


class Collective(NamedTuple):
    """One kind of collective of a program.

    Attributes:
      kind: 'all-reduce', 'all-gather', ..., or BETWEEN_SLICES: what a chip hands to the data center network; what is
        combined inside the slices before and after that has entries of its own.
      times: Number of executions in one run of the program.
      bytes: Size of the results of all of them, per chip; BETWEEN_SLICES: of the operands.
      sent: Bytes that a chip sends to others at least, on average.
    """

    kind: str
    times: int
    bytes: int
    sent: float


class Traffic(NamedTuple):
    """Memory traffic and collectives of one run of a program, per chip.

    Attributes:
      bytes: Bytes of operands and results of all instructions outside fusions; of an array that an instruction only
        slices or updates, those of the slice.
      collectives: One entry per kind.
      unknown_loops: Number of loops whose trip count the compiler does not know; they count once.
    """

    bytes: int
    collectives: tuple[Collective, ...]
    unknown_loops: int


def num_bytes(shape: str) -> int:
    """Bytes of a shape in HLO's notation, a tuple's elements summed: 'f32[8,2]{1,0}' has 64."""
    return sum(
        DTYPE_BYTES.get(dtype, 4) * math.prod(int(n) for n in dims.split(',') if n)
        for dtype, dims in ARRAY.findall(re.sub(r'\{.*?\}', '', shape))
        if dtype in DTYPE_BYTES
    )


def traffic(text: str, slices: int = 1) -> Traffic:
    """Count the traffic of a compiled program.

    Args:
      text: `compiled.as_text()`: HLO of one chip after partitioning.
      slices: Number of TPU slices that the program is for.

    Returns:
      Bytes and collectives of one run.
    """
    computations, entry = _computations(text)
    header = re.search(r'num_partitions=(\d+)', text)
    n_chips = int(header[1]) if header else 1
    by_kind: dict[str, list[float]] = {}
    total, unknown = 0, 0

    def count(kind: str, times: int, size: int, sent: float) -> None:
        sums = by_kind.setdefault(kind, [0, 0, 0.0])
        by_kind[kind] = [a + times * b for a, b in zip(sums, (1, size, sent), strict=True)]

    def visit(name: str, times: int) -> None:
        nonlocal total, unknown
        shapes = {i: shape for i, shape, _, _ in computations.get(name, ())}
        for _, shape, op, rest in computations.get(name, ()):
            base = op.removesuffix('-start')
            if base in SENT:
                result = shape
                if op.endswith('-start') and shape.startswith('('):  # (operands, results, ...)
                    result = shape[shape.index(',') + 1 :] if base != 'all-reduce' else shape
                size = num_bytes(result)
                count(base, times, size, SENT[base](size, _group_size(rest, n_chips)))
            if op == 'send' and (kind := re.search(r'megascale_transfer_type="(\w+)"', rest)):
                size = num_bytes(shapes.get(_operands(rest)[0], ''))
                factor = BETWEEN.get(kind[1].lower().replace('_', '-'), lambda size, n: size)
                count(BETWEEN_SLICES, times, size, factor(size, slices))
            if op == 'while':
                trips = _trip_count(computations, name, rest)
                unknown += trips is None
                if body := re.search(r'body=%?([\w.-]+)', rest):
                    visit(body[1], times if trips is None else times * trips)
            elif op in ('call', 'conditional', 'async-start'):
                called = re.findall(r'(?:to_apply|calls|_computation)=%?([\w.-]+)', rest)
                called += re.findall(
                    r'%([\w.-]+)', ''.join(re.findall(r'branch_computations=\{(.*?)\}', rest))
                )
                for inner_name in called[:1]:
                    visit(inner_name, times)
            if op not in NO_TRAFFIC and not op.endswith('-done'):
                total += times * _moved(computations, shapes, shape, op, rest)

    visit(entry, 1)
    collectives = tuple(
        Collective(kind, int(times), int(size), sent)
        for kind, (times, size, sent) in sorted(by_kind.items())
    )
    return Traffic(total, collectives, unknown)


def communicated(text: str) -> tuple[tuple[str, str], ...]:
    """What the collectives of a compiled program combine over chips.

    Args:
      text: `compiled.as_text()`.

    Returns:
      (kind, shape) of every array, such as ('all-reduce', 'f32[64,32]'), in all branches of conditionals, each once per
      place in the program however often a loop repeats it.
    """
    computations, _ = _computations(text)
    arrays = []
    for _, shape, op, _ in itertools.chain.from_iterable(computations.values()):
        kind = op.removesuffix('-start')
        if kind in SENT:
            plain = re.sub(r'\{.*?\}', '', shape)
            arrays += [(kind, f'{dtype}[{dims}]') for dtype, dims in ARRAY.findall(plain)]
    return tuple(arrays)


def has_dynamic_shapes(text: str) -> bool:
    """Whether a compiled program, `compiled.as_text()`, has arrays whose sizes are known only while it runs."""
    return bool(re.search(r'\b[a-z]+\d+\[[\d,]*<=', text))


def _trip_count(computations, name: str, rest: str) -> int | None:
    """How often a while loop of a computation runs, if its condition is that a counter is below a constant.

    XLA notes the number in programs for CPUs and GPUs, but not in those for TPUs.

    Args:
      computations: As `_computations` returns them.
      name: The computation that contains the loop.
      rest: The loop's line after 'while('.
    """
    if noted := re.search(r'known_trip_count[^}]*?"n":"(\d+)"', rest):
        return int(noted[1])
    parts = [re.search(rf'{part}=%?([\w.-]+)', rest) for part in ('condition', 'body')]
    condition, body = (computations.get(part[1] if part else '', []) for part in parts)
    if not condition or not body or body[-1][2] != 'tuple':
        return None
    _, _, op, compared = condition[-1]
    if op != 'compare' or 'direction=LT' not in compared:
        return None
    counter, limit = (_source(condition, operand) for operand in _operands(compared)[:2])
    if not isinstance(counter, str) or not isinstance(limit, int):
        return None
    place, updated = int(counter), _operands(body[-1][3])
    added = next((line for i, _, op, line in body if i == updated[place] and op == 'add'), None)
    given = next((line for i, _, op, line in computations[name] if i in _operands(rest)), '')
    if added is None or len(_operands(given)) != len(updated):
        return None
    terms = [_source(body, operand) for operand in _operands(added)]
    start = _source(computations[name], _operands(given)[place])
    step = next((term for term in terms if isinstance(term, int)), 0)
    if counter not in terms or step <= 0 or not isinstance(start, int):
        return None
    return max(0, math.ceil((limit - start) / step))


def _operands(rest: str) -> list[str]:
    return re.findall(r'%([\w.-]+)', rest.split('), ')[0])


def _source(instructions, name: str) -> int | str | None:
    """What copies lead back to: a constant, or the place of an element of the computation's parameter as text."""
    found = {i: (op, rest) for i, _, op, rest in instructions}
    op, rest = found.get(name, ('', ''))
    while op == 'copy':
        op, rest = found.get(_operands(rest)[0], ('', ''))
    if op == 'constant' and (number := re.match(r'-?\d+(?=\))', rest)):
        return int(number[0])
    place = re.search(r'index=(\d+)', rest)
    if op == 'get-tuple-element' and place and found[_operands(rest)[0]][0] == 'parameter':
        return place[1]
    return None


def _group_size(rest: str, n_chips: int) -> int:
    """Number of chips that a collective combines: {{0,1},{2,3}}, [2,2]<=[4], or all."""
    if listed := re.search(r'replica_groups=\{\{([\d,]+)\}', rest):
        return listed[1].count(',') + 1
    if counted := re.search(r'replica_groups=\[\d+,(\d+)\]', rest):
        return int(counted[1])
    return n_chips


def _moved(computations, shapes, shape: str, op: str, rest: str) -> int:
    """Bytes of an instruction's operands and result; of arrays that it only slices or updates, those of the slices."""
    operands = _operands(rest)
    if op == 'dynamic-slice':
        return 2 * num_bytes(shape)
    if op == 'dynamic-update-slice':
        return 2 * num_bytes(shapes.get(operands[1], ''))
    called = re.search(r'calls=%?([\w.-]+)', rest) if op == 'fusion' else None
    inside = computations.get(called[1], []) if called else []
    if not inside:
        return num_bytes(shape) + sum(num_bytes(shapes.get(o, '')) for o in operands)
    by_name = {i: (s, o, _operands(line)) for i, s, o, line in inside}
    places = {int(line.split(')')[0]): i for i, _, o, line in inside if o == 'parameter'}

    def source(name: str) -> str:
        """The instruction behind bitcasts and copies."""
        while by_name[name][1] in ('bitcast', 'copy'):
            name = by_name[name][2][0]
        return name

    def written(name: str) -> int:
        shape, op, names = by_name[source(name)]
        if op == 'tuple':
            return sum(map(written, names))
        return num_bytes(by_name[names[1]][0] if op == 'dynamic-update-slice' else shape)

    def read(place: int) -> int:
        """Bytes that are read of an operand."""
        name = places[place]
        total = 0
        for shape, op, names in by_name.values():
            sources = [source(n) for n in names if n in by_name]
            if name not in sources or op in ('bitcast', 'copy'):
                continue
            if op == 'dynamic-slice' and sources[0] == name and name not in sources[1:]:
                total += num_bytes(shape)
            elif op == 'dynamic-update-slice' and sources[0] == name and name not in sources[1:]:
                continue
            else:
                return num_bytes(by_name[name][0])
        return min(total, num_bytes(by_name[name][0]))

    return written(inside[-1][0]) + sum(read(place) for place in places)


def _computations(text: str):
    """{name: [(instruction, shape, op, rest of the line)], the root last} and the name of the entry."""
    computations: dict[str, list[tuple[str, str, str, str]]] = {}
    current, entry, root = None, '', None
    for line in text.splitlines():
        if current is None:
            if match := COMPUTATION.match(line.strip()):
                current = match[1]
                computations[current] = []
                entry = current if line.startswith('ENTRY') else entry
        elif line.startswith('}'):
            if root is not None:
                computations[current].append(root)
            current = root = None
        elif match := INSTRUCTION.match(line):
            parts = match[1], match[2], match[3], match[4]
            if line.lstrip().startswith('ROOT'):
                root = parts
            else:
                computations[current].append(parts)
    return computations, entry


class Products(NamedTuple):
    """Products of a program, over all devices.

    Attributes:
      flops: Twice the multiply-adds of matrix products and convolutions.
      float32_flops: Those of products with float32 operands.
      padded_flops: Those that the matrix unit computes at least, whose operands are padded to its tiles.
      most_padding: The product with the most padding as 'M x K x N', of rows, terms of a sum and columns; '' if none.
      unknown_loops: Number of loops without a fixed length; they count once.
    """

    flops: float
    float32_flops: float
    padded_flops: float
    most_padding: str
    unknown_loops: int


def products(jaxpr: Any, tile: int = 0) -> Products:
    """Count the products of a jaxpr, the bodies of scans as often as they run.

    Args:
      jaxpr: `jax.jit(f).trace(...).jaxpr`, closed or not.
      tile: Rows and columns of the matrix unit; 0 counts no padding.
    """
    flops = single = unknown = 0
    padding: dict[str, float] = {}
    for equation, times, in_while in _equations(getattr(jaxpr, 'jaxpr', jaxpr), 1):
        unknown += in_while
        name = equation.primitive.name
        if name not in ('dot_general', 'conv_general_dilated'):
            continue
        lhs, rhs = (v.aval for v in equation.invars[:2])
        size = math.prod(equation.outvars[0].aval.shape)
        if name == 'dot_general':
            (contracted, _), (batch, _) = equation.params['dimension_numbers']
            depth = math.prod(lhs.shape[i] for i in contracted)
            groups = math.prod(lhs.shape[i] for i in batch)
            columns = math.prod(rhs.shape) // max(1, depth * groups)
        else:
            out_features = rhs.shape[equation.params['dimension_numbers'].rhs_spec[0]]
            depth = math.prod(rhs.shape) // out_features
            groups = max(equation.params[f'{kind}_group_count'] for kind in ('feature', 'batch'))
            columns = out_features // groups
        count = 2 * times * size * depth
        flops += count
        single += count * (lhs.dtype.name == 'float32')
        rows = size // max(1, groups * columns)
        if tile and size:
            padded = 2 * times * groups * _padded(rows, depth, columns, tile)
            if padded > count:
                shape = f'{rows} x {depth} x {columns}'
                padding[shape] = padding.get(shape, 0.0) + padded - count
    most = max(padding, key=padding.__getitem__, default='')
    padded_flops = float(flops) + sum(padding.values())
    return Products(float(flops), float(single), padded_flops, most, unknown)


def _padded(rows: int, depth: int, columns: int, tile: int) -> int:
    """Multiply-adds of a product with padding: one operand is held in tiles, rows of the other pass by eights."""

    def up(n, multiple):
        return -(-n // multiple) * multiple

    held = min(up(rows, 8) * up(columns, tile), up(rows, tile) * up(columns, 8))
    return up(depth, tile) * held


def _equations(jaxpr: Any, times: int) -> Iterator[tuple[Any, int, bool]]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        yield equation, times, name == 'while'
        inner = times * equation.params['length'] if name == 'scan' else times
        if name == 'shard_map':  # every device runs it
            sizes, axes = (equation.params[name] for name in ('mesh', 'newly_manual_axes'))
            inner = times * math.prod(sizes.shape[axis] for axis in axes)
        if form := machine_code.plain_forms.get(equation.primitive):
            run = functools.partial(form, **equation.params)
            plain = jax.make_jaxpr(run)(*[v.aval for v in equation.invars])
            yield from _equations(plain.jaxpr, times)
            continue
        for value in equation.params.values():
            branches = value if isinstance(value, tuple | list) else (value,)
            for branch in branches[:1] if name == 'cond' else branches:
                branch = getattr(branch, 'jaxpr', branch)
                if hasattr(branch, 'eqns'):
                    yield from _equations(branch, inner)
