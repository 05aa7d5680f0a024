"""Sweeps: variants of one experiment as pure data, run one by one or as one compiled program."""

import dataclasses
import difflib
import functools
import itertools
import re
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lecture4.ops.reduce import Reduce
from lecture4.train.config import Config, RunOptions, UsageError, replace_traced
from lecture4.train.renamed_options import new_names
from lecture4.train.step import BoundTask, bind

OPTION_FIELDS = {field.name for field in dataclasses.fields(RunOptions)}
TINY = 20_000  # size of the state below which vmap is faster than a loop on a CPU


def grid(**fields) -> tuple[dict[str, Any], ...]:
    """Every combination of the fields' values: rate=(1., 2.), seed=(0, 1) make 4 variants."""
    names = list(fields)
    return tuple(
        dict(zip(names, values, strict=True)) for values in itertools.product(*fields.values())
    )


def vary_one(center: dict[str, Any], **fields) -> tuple[dict[str, Any], ...]:
    """A base setting, and variants that differ from it in one field; `grid` makes all combinations.

    vary_one({'rate': 1., 'dim': 8}, rate=(0.1, 10.), dim=(4,)) makes the base setting and 3 variants.
    """
    varied = [{**center, name: value} for name, values in fields.items() for value in values]
    return (center, *varied)


def requested(config: Config, sweeps) -> tuple[dict[str, Any], ...]:
    """The variants that --sweep, --grid and --seeds name; none if none of these is given.

    Raises:
      UsageError: A field that the experiment lacks, or a value of another type.
    """
    chosen: tuple[dict[str, Any], ...] = sweeps[config.sweep] if config.sweep else ()
    values: dict[str, tuple[Any, ...]] = {}
    for text in config.grid:
        field, _, listed = text.partition('=')
        field = field.strip('-').replace('-', '_')
        if not listed:
            raise UsageError(f'--grid {text}: expected FIELD=VALUE,VALUE')
        if not hasattr(config, field):
            raise UsageError(_no_such_field(config, field))
        if field in values:
            raise UsageError(f'--grid names {field} twice; list all its values after one =')
        values[field] = _values(config, field, listed)
    if values:
        chosen = grid(**values)
    if config.seeds:
        if any('seed' in variant for variant in chosen):
            raise UsageError('--seeds: the sweep already sets the seeds; omit --seeds')
        seeds = _values(config, 'seed', config.seeds, '--seeds ')
        chosen = tuple({**variant, 'seed': seed} for variant in chosen or ({},) for seed in seeds)
    return chosen


def _values(config: Config, field: str, text: str, option: str = '') -> tuple[Any, ...]:
    """'0..3' and '1e-3,1e-4' as values of the field's type."""
    option = option or f'--grid {field}='
    kind = type(getattr(config, field))
    choices = typing.get_args(typing.get_type_hints(type(config))[field])
    kind_words = {int: 'an integer', float: 'a number', bool: 'true or false', str: 'text'}
    read = {
        bool: lambda word: {'true': True, 'false': False}[word.lower()],
        int: int,
        float: float,
        str: str,
    }.get(kind)
    if read is None:
        raise UsageError(
            f'--grid cannot sweep {field}, a {kind.__name__}; name its values in SWEEPS'
        )
    values = []
    for word in text.split(','):
        span = re.fullmatch(r'(-?\d+)\.\.(-?\d+)', word)
        try:
            if span and kind in (int, float):
                values += map(kind, range(int(span[1]), int(span[2]) + 1))
            else:
                values.append(read(word))
        except (ValueError, KeyError):
            raise UsageError(f'{option}{word}: expected {kind_words[kind]}') from None
    wrong = [value for value in values if choices and kind is str and value not in choices]
    if wrong or not values:
        expected = f'one of {", ".join(choices)}' if wrong else 'FIRST..LAST with FIRST <= LAST'
        raise UsageError(f'{option}{text}: expected {expected}')
    if len(set(values)) < len(values):
        raise UsageError(f'{option}{text} names a value twice')
    return tuple(values)


def _no_such_field(config, field: str) -> str:
    fields = [item.name for item in dataclasses.fields(config)]
    if renamed := new_names(field, fields):
        return f'the sweep names {field}, which is now {" or ".join(renamed)}'
    near = difflib.get_close_matches(field, fields, 1)
    hint = f'; did you mean {near[0]}?' if near else '; --help lists all'
    return f'the sweep names {field}, which is not a field of the experiment{hint}'


def name(variant: dict[str, Any]) -> str:
    """Name of a variant's directory: 'rate=1.0,seed=0'."""
    return ','.join(f'{field}={value}' for field, value in variant.items()).replace('/', '_')


def variants(config, sweep) -> tuple[dict[str, Any], ...]:
    """The sweep's variants, each checked as a config.

    Raises:
      UsageError: The config lacks a field, or a value is outside its domain.
    """
    fields = [field.name for field in dataclasses.fields(config)]
    for variant in sweep:
        for field in variant:
            if field not in fields:
                raise UsageError(_no_such_field(config, field))
            if field in OPTION_FIELDS:
                raise UsageError(
                    f'--{field} is an option of how a run is carried out; it cannot be swept'
                )
        try:
            dataclasses.replace(config, **variant)
        except ValueError as error:
            raise UsageError(f'variant {name(variant)}: {error}') from None
    return tuple(sweep)


def traceable(config, variant) -> set[str]:
    """Fields that may be traced: floats, which enter only the arithmetic, and the seed."""
    return {
        field for field in variant if field == 'seed' or isinstance(getattr(config, field), float)
    }


def groups(config, sweep) -> dict[str, list[dict[str, Any]]]:
    """Variants that can share one program: equal in every field that changes shapes or code."""
    result: dict[str, list[dict[str, Any]]] = {}
    for variant in sweep:
        traced = traceable(config, variant)
        fixed = {field: value for field, value in variant.items() if field not in traced}
        result.setdefault(name(fixed) or 'all', []).append(variant)
    return result


def fields_read(function: Callable, config: Config) -> tuple[Any, set[str]]:
    """function(config), and the names of the config's fields that it read."""
    seen = set()

    class Recording(type(config)):
        def __getattribute__(self, field):
            seen.add(field)
            return super().__getattribute__(field)

    recording = object.__new__(Recording)
    recording.__dict__.update(config.__dict__)
    seen.clear()
    result = function(recording)
    return result, seen & {field.name for field in dataclasses.fields(config)}


def stack(config: Config, group, data_fn: Callable, build_fn: Callable) -> BoundTask:
    """All variants of a group as one task: every array gains a leading axis [n_variants].

    The swept fields reach `build_fn` as traced values. The data may depend on the seed (then
    each variant has its own batches) and on nothing else that is swept.

    Args:
      config: The config that the variants change.
      group: Variants, dicts of fields.
      data_fn: config -> Data.
      build_fn: (config, spec) -> Task.

    Raises:
      UsageError: The data depend on a swept field, a swept field enters a Python `if`, or the task starts from
        parameters of a file.
    """
    concrete = [dataclasses.replace(config, **variant) for variant in group]
    first_data, read = fields_read(data_fn, concrete[0])
    swept = set().union(*(traceable(config, variant) for variant in group))
    if others := sorted((read & swept) - {'seed'}):
        raise UsageError(
            f'--vectorize vmap: the data depends on {", ".join(others)}; use --vectorize loop'
        )
    by_seed = {concrete[0].seed: first_data}
    if 'seed' in read & swept:
        for variant in concrete:
            if variant.seed not in by_seed:
                by_seed[variant.seed] = data_fn(variant)
    datas = [by_seed.get(variant.seed, first_data) for variant in concrete]
    spec = first_data.spec
    if _shared([dict(data.spec.constants) for data in datas])[1] is not None:
        raise UsageError(
            '--vectorize vmap: constants of the data depend on the seed; use --vectorize loop'
        )
    device_arrays, device_axis = _shared([data.device_arrays for data in datas])
    evaluation, evaluation_axis = _shared([data.evaluation for data in datas])
    own_batches = len(by_seed) > 1
    batch_axis = 0 if own_batches else None
    values = {
        field: jnp.asarray(
            [variant.get(field, getattr(config, field)) for variant in group],
            jnp.uint32 if field == 'seed' else jnp.result_type(float),
        )
        for field in sorted(swept)
    }
    task = build_fn(concrete[0], spec)
    if task.start is not None:
        raise UsageError(
            '--vectorize vmap cannot start from a file of weights; use --vectorize loop'
        )

    def one(fields) -> BoundTask:
        variant = replace_traced(concrete[0], **fields)
        options = {'accumulate': variant.accumulate, 'remat': variant.remat}
        return bind(build_fn(variant, spec), first_data, 0, **options)

    def init(keys, device_arrays, batch):
        def run(fields, *rest):
            return one(fields).init(*rest)

        return jax.vmap(run, (0, 0, device_axis, batch_axis))(values, keys, device_arrays, batch)

    def step(states, device_arrays, batch, keys, n, reduce):
        def run(fields, state, device_arrays, batch, key):
            return one(fields).step(state, device_arrays, batch, key, n, reduce)

        axes = (0, 0, device_axis, batch_axis, 0)
        return jax.vmap(run, axes)(values, states, device_arrays, batch, keys)

    def evaluate(states, evaluation):
        def run(fields, state, evaluation):
            measure = one(fields).evaluate
            assert measure is not None
            return measure(state, evaluation)

        return jax.vmap(run, (0, 0, evaluation_axis))(values, states, evaluation)

    def batch(n):
        if not own_batches:
            return first_data.batch(n)
        rows = {seed: data.batch(n) for seed, data in by_seed.items()}
        each = [rows[variant.seed] for variant in concrete]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *each)

    keys = jnp.stack([jax.random.key(variant.seed) for variant in concrete])
    bound = BoundTask(
        init,
        step,
        None if task.evaluate is None else evaluate,
        batch,
        device_arrays,
        evaluation,
        keys,
        batch_axis=1 if own_batches else 0,
    )
    try:
        state = jax.eval_shape(init, keys, device_arrays, batch(0))
        one_step = functools.partial(step, reduce=Reduce())
        jax.eval_shape(one_step, state, device_arrays, batch(0), keys, jnp.int32(0))
    except jax.errors.ConcretizationTypeError as error:
        raise UsageError(
            f'--vectorize vmap: {", ".join(sorted(swept))} cannot all be traced '
            f'({str(error).splitlines()[0]}); use --vectorize loop'
        ) from error
    return bound


def _shared(trees):
    """(tree, None) if all trees are equal, else (stacked trees, 0)."""
    first = jax.tree.leaves(trees[0])
    if all(
        len(leaves := jax.tree.leaves(tree)) == len(first)
        and all(a is b or np.array_equal(a, b) for a, b in zip(leaves, first, strict=True))
        for tree in trees
    ):
        return trees[0], None
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees), 0


def take(tree, i: int):
    """Variant i of a stacked pytree."""
    return jax.tree.map(lambda leaf: leaf[i], tree)


def size(tree) -> int:
    """Number of elements in a state."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
