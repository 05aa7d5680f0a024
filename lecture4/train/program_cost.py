"""Cost of a compiled program: products of its jaxpr, bytes and collectives of its HLO text.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs.
"""

import itertools
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

DTYPE_BYTES = {
    'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'f16': 2, 'bf16': 2, 's32': 4, 'u32': 4, 'f32': 4,
    's64': 8, 'u64': 8, 'f64': 8, 'c64': 8, 'c128': 16,
}  # fmt: skip
COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
BETWEEN_SLICES = 'between slices'
NO_TRAFFIC = (
    'parameter',
    'constant',
    'tuple',
    'get-tuple-element',
    'bitcast',
    'while',
    'conditional',
)
ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')
INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)$')
COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.-]+)(?: \(.*\) -> .*)? \{$')


class Collective(NamedTuple):
    """One kind of collective of a program.

    Attributes:
      kind: 'all-reduce', 'all-gather', ..., or BETWEEN_SLICES, to which the compiler adds parts inside each slice.
      times: Number of executions in one run of the program.
      bytes: Size of the results of all of them, per chip.
    """

    kind: str
    times: int
    bytes: int


class Traffic(NamedTuple):
    """Memory traffic and collectives of one run of a program, per chip.

    Attributes:
      bytes: Bytes of operands and results of all instructions outside fusions.
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


def traffic(text: str) -> Traffic:
    """Count the traffic of a compiled program.

    Args:
      text: `compiled.as_text()`: HLO of one chip after partitioning.

    Returns:
      Bytes and collectives of one run.
    """
    computations, entry = _computations(text)
    by_kind: dict[str, list[int]] = {}
    total, unknown = 0, 0

    def visit(name: str, times: int) -> None:
        nonlocal total, unknown
        shapes = {i: shape for i, shape, _, _ in computations.get(name, ())}
        for _, shape, op, rest in computations.get(name, ()):
            base = op.removesuffix('-start')
            if base in COLLECTIVES:
                result = shape
                if op.endswith('-start') and shape.startswith('('):  # (operands, results, ...)
                    result = shape[shape.index(',') + 1 :] if base != 'all-reduce' else shape
                kinds = by_kind.setdefault(base, [0, 0])
                kinds[0] += times
                kinds[1] += times * num_bytes(result)
            if op == 'send' and 'megascale' in rest:  # over the data center network
                kinds = by_kind.setdefault(BETWEEN_SLICES, [0, 0])
                kinds[0] += times
                kinds[1] += times * num_bytes(shape[: shape.index(', u32')])
            if op == 'while':
                count = _trip_count(computations, name, rest)
                unknown += count is None
                if body := re.search(r'body=%?([\w.-]+)', rest):
                    visit(body[1], times if count is None else times * count)
            elif op in ('call', 'conditional', 'async-start'):
                called = re.findall(r'(?:to_apply|calls|_computation)=%?([\w.-]+)', rest)
                called += re.findall(
                    r'%([\w.-]+)', ''.join(re.findall(r'branch_computations=\{(.*?)\}', rest))
                )
                for inner_name in called[:1]:
                    visit(inner_name, times)
            if op not in NO_TRAFFIC and not op.endswith('-done'):
                moved = num_bytes(shape) + sum(
                    num_bytes(shapes.get(o, '')) for o in _operands(rest)
                )
                total += times * moved

    visit(entry, 1)
    collectives = tuple(Collective(kind, *by_kind[kind]) for kind in sorted(by_kind))
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
        if kind in COLLECTIVES:
            plain = re.sub(r'\{.*?\}', '', shape)
            arrays += [(kind, f'{dtype}[{dims}]') for dtype, dims in ARRAY.findall(plain)]
    return tuple(arrays)


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
    if not condition or not body or 'direction=LT' not in condition[-1][3]:
        return None
    counter, limit = (_source(condition, operand) for operand in _operands(condition[-1][3])[:2])
    if not isinstance(counter, str) or not isinstance(limit, int):
        return None
    place = int(counter)
    updated = _operands(body[-1][3])[place]
    steps = [
        [_source(body, operand) for operand in _operands(line)]
        for instruction, _, op, line in body
        if instruction == updated and op == 'add'
    ]
    given = [
        line for i, _, op, line in computations[name] if i in _operands(rest) and op == 'tuple'
    ]
    if not steps or counter not in steps[0] or not given:
        return None
    step = next((value for value in steps[0] if isinstance(value, int)), None)
    start = _source(computations[name], _operands(given[0])[place])
    if not isinstance(start, int) or not step or step < 0:
        return None
    return max(0, -(-(limit - start) // step))


def _operands(rest: str) -> list[str]:
    return re.findall(r'%([\w.-]+)', rest.split('), ')[0])


def _source(instructions, name: str) -> int | str | None:
    """What copies lead back to: a constant, or the place of an element of the loop's state as text."""
    for instruction, _, op, rest in reversed(instructions):
        if instruction == name:
            if op == 'copy':
                return _source(instructions, _operands(rest)[0])
            if op == 'constant' and (number := re.match(r'-?\d+(?=\))', rest)):
                return int(number[0])
            if op == 'get-tuple-element' and (place := re.search(r'index=(\d+)', rest)):
                return place[1]
            return None
    return None


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
      unknown_loops: Number of loops without a fixed length; they count once.
    """

    flops: float
    float32_flops: float
    unknown_loops: int


def products(jaxpr: Any) -> Products:
    """Count the products of a jaxpr, the bodies of scans as often as they run.

    Args:
      jaxpr: `jax.jit(f).trace(...).jaxpr`, closed or not.
    """
    flops = single = unknown = 0
    for equation, times, in_while in _equations(getattr(jaxpr, 'jaxpr', jaxpr), 1):
        unknown += in_while
        name = equation.primitive.name
        if name not in ('dot_general', 'conv_general_dilated'):
            continue
        lhs, rhs = (v.aval for v in equation.invars[:2])
        size = math.prod(equation.outvars[0].aval.shape)
        if name == 'dot_general':
            (contracted, _), _ = equation.params['dimension_numbers']
            depth = math.prod(lhs.shape[i] for i in contracted)
        else:
            out_features = equation.params['dimension_numbers'].rhs_spec[0]
            depth = math.prod(rhs.shape) // rhs.shape[out_features]
        flops += 2 * times * size * depth
        single += 2 * times * size * depth * (lhs.dtype.name == 'float32')
    return Products(float(flops), float(single), unknown)


def _equations(jaxpr: Any, times: int) -> Iterator[tuple[Any, int, bool]]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        yield equation, times, name == 'while'
        inner = times * equation.params['length'] if name == 'scan' else times
        for value in equation.params.values():
            branches = value if isinstance(value, tuple | list) else (value,)
            for branch in branches[:1] if name == 'cond' else branches:
                branch = getattr(branch, 'jaxpr', branch)
                if hasattr(branch, 'eqns'):
                    yield from _equations(branch, inner)
