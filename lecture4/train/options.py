"""Options of a command line: from words to typed values, with one-line errors.

tyro reads the command line and prints the help. Values are converted here, by `PrimitiveConstructorSpec`s, so that an
error is a `UsageError` that names the option, its value and what was expected.
"""

import dataclasses
import difflib
import functools
import pathlib
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from lecture4.train import fields
from lecture4.train.config import RunOptions, UsageError
from lecture4.train.renamed_options import new_names

SWITCH = {'true': True, 'yes': True, '1': True, 'false': False, 'no': False, '0': False}
HOME = re.compile(r'^((?:dir|npz|csv|voc|coco):)?~(?=/|$)')
EXPECTED = {int: 'an integer', float: 'a number', bool: 'true or false', str: 'text'}


def read(
    config_type: type, defaults: Mapping[str, Any], argv: Sequence[str], **tyro_options: Any
) -> dict[str, Any]:
    """Read a command line; `--help` prints the options and exits.

    Args:
      config_type: Dataclass whose fields are the options.
      defaults: Fields whose default differs from that of the dataclass.
      argv: The words of the command line, without the program.
      **tyro_options: Further options of `tyro.cli`: `description`, `prog`.

    Returns:
      The values of all fields. Domains are checked by the dataclass, not here.

    Raises:
      UsageError: An unknown option, with the nearest or the new name, or an ill-typed value.
    """
    import tyro

    arguments = argument_type(config_type)
    argv = _normalized(argv, fields.hints(config_type))
    parsed, unknown = tyro.cli(
        arguments,
        args=argv,
        default=arguments(**defaults),
        return_unknown_args=True,
        use_underscores=True,
        **tyro_options,
    )
    if unknown:
        names = [field.name for field in dataclasses.fields(config_type)]
        raise UsageError(unknown_option(unknown[0], names))
    return vars(parsed)


def _normalized(argv: Sequence[str], hints: Mapping[str, Any]) -> list[str]:
    """Translate other spellings of switches to tyro's, and join the occurrences of options of several values.

    `--flips True`, `--flips=false` and `--noflips` become `--flips` and `--no_flips`. `--grid` may be
    given several times; any other option of several values only once.

    Raises:
      UsageError: An option of several values is given twice, or a switch has another value.
    """
    hints = {name: _bare(hint) for name, hint in hints.items()}
    words: list[str] = []
    values: dict[str, list[str]] = {}  # of options of several values
    current: list[str] = words
    for word in argv:
        name = word[2:].partition('=')[0].replace('-', '_') if word.startswith('--') else ''
        if name.startswith('no') and name not in hints and hints.get(name[2:].lstrip('_')) is bool:
            words.append(f'--no_{name[2:].lstrip("_")}')
            current = words
        elif typing.get_origin(hints.get(name)) is tuple:
            if name in values and name != 'grid':
                raise UsageError(f'--{name} is given twice; give all its values after one --{name}')
            current = values.setdefault(name, [])
            current += [word.partition('=')[2]] if '=' in word else []
        elif name:
            words += word.split('=', 1) if hints.get(name) is bool else [word]
            current = words
        else:
            current.append(word)
    for i in range(len(words) - 1, 0, -1):
        switch = words[i - 1]
        name = switch[2:].replace('-', '_') if switch.startswith('--') else ''
        if hints.get(name) is bool and not words[i].startswith('-'):
            if words[i].lower() not in SWITCH:
                raise UsageError(f'{switch} {words[i]}: expected {switch} or --no_{name}')
            words[i - 1 : i + 1] = [f'--{name}' if SWITCH[words[i].lower()] else f'--no_{name}']
    for name, given in values.items():
        words += [f'--{name}', *given]
    return words


@functools.cache
def argument_type(config_type: type) -> type:
    """A dataclass of the same fields for tyro, the experiment's own fields first.

    Args:
      config_type: The experiment's config.

    Returns:
      A dataclass without checks whose fields carry their help, domain and conversion.
    """
    import tyro
    from tyro.constructors import PrimitiveConstructorSpec

    help_texts = fields.helps(config_type)
    hints = fields.hints(config_type)
    arguments = []
    for field in dataclasses.fields(config_type):
        hint = hints[field.name]
        domain = fields.describe(hint)
        text = f'{help_texts[field.name]} [{domain}]' if domain else help_texts[field.name]
        annotations: list[Any] = [tyro.conf.arg(help=text)]
        if hint is not bool:  # tyro's own --NAME and --no_NAME
            spec = PrimitiveConstructorSpec(
                nargs='*',  # also where one is expected: `parse_value` raises the error for too many
                metavar=metavar(hint),
                instance_from_str=functools.partial(parse_value, f'--{field.name}', hint),
                is_instance=lambda default: True,
                str_from_instance=_as_words,
            )
            annotations.append(spec)
        annotated = Annotated[(hint, *annotations)]  # pyright: ignore[reportInvalidTypeForm]
        arguments.append((field.name, annotated, dataclasses.field(default=field.default)))
    run_options = {field.name for field in dataclasses.fields(RunOptions)}
    arguments.sort(key=lambda argument: argument[0] in run_options)
    return dataclasses.make_dataclass(config_type.__name__, arguments, frozen=True)


def parse_value(option: str, hint: Any, given: Sequence[str]) -> Any:
    """Convert the words that follow an option.

    Args:
      option: The option's name, for messages: '--steps'.
      hint: The field's type: int, float, str, bool, Literal, tuples and unions of them, annotated or not.
      given: The words; one for a scalar.

    Returns:
      A value of the type.

    Raises:
      UsageError: The words are not a value of the type.
    """
    hint = _bare(hint)
    if typing.get_origin(hint) is tuple:
        elements = typing.get_args(hint)
        if _bare(elements[0]) in (int, float):  # also as 256,480
            given = [part for word in given for part in word.split(',') if part]
        if elements[-1] is Ellipsis:
            elements = (elements[0],) * len(given)
        if len(elements) != len(given):
            raise UsageError(
                f'{option} {" ".join(given)}: expected {len(elements)} values, got {len(given)}'
            )
        return tuple(parse_scalar(option, *pair) for pair in zip(elements, given, strict=True))
    if len(given) != 1:
        got = f'got {len(given)}: {" ".join(given)}' if given else 'got none'
        raise UsageError(f'{option}: expected one value, {got}')
    return parse_scalar(option, hint, given[0])


def parse_scalar(option: str, hint: Any, word: str) -> Any:
    """Convert one word; arguments, result and errors as `parse_value`."""
    hint = _bare(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if word.lower() == 'none' and type(None) in typing.get_args(hint):
            return None
        (hint,) = (_bare(item) for item in typing.get_args(hint) if item is not type(None))
    if typing.get_origin(hint) is Literal:
        choices = {str(choice): choice for choice in typing.get_args(hint)}
        if word not in choices:
            raise UsageError(f'{option} {word}: expected one of {", ".join(choices)}')
        return choices[word]
    readers: dict[type, Callable[[str], Any]] = {
        bool: lambda text: {'true': True, 'false': False}[text.lower()],
        int: int,
        float: float,
        str: lambda text: HOME.sub(lambda m: f'{m[1] or ""}{pathlib.Path.home()}', text),
    }
    try:
        return readers[hint](word)
    except (ValueError, KeyError):
        raise UsageError(f'{option} {word}: expected {EXPECTED[hint]}') from None


def metavar(hint: Any) -> str:
    """What `--help` prints for a value of a type: 'INT', '{jit,pmap}', 'FLOAT [FLOAT ...]'."""
    hint = _bare(hint)
    origin, elements = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        first = metavar(elements[0])
        return f'[{first} ...]' if elements[-1] is Ellipsis else ' '.join(map(metavar, elements))
    if origin is Literal:
        return f'{{{",".join(map(str, elements))}}}'
    if origin in (typing.Union, types.UnionType):
        return '|'.join('none' if item is type(None) else metavar(item) for item in elements)
    return hint.__name__.upper()


def unknown_option(word: str, names: Collection[str]) -> str:
    """The message for a word of the command line that is no option.

    Args:
      word: '--NAME', '--NAME=VALUE' or a value that belongs to no option.
      names: Names of all options, without dashes.

    Returns:
      One line with the new name of an option that was renamed, else with the nearest name.
    """
    option = word.partition('=')[0]
    if not option.startswith('-'):
        return f'unexpected argument {word!r}; expected --NAME VALUE (--help lists all options)'
    name = option.lstrip('-').replace('-', '_')
    if renamed := new_names(name, names):
        return f'--{name} is now {" or ".join(f"--{new}" for new in renamed)}'
    nearest = difflib.get_close_matches(name, names, 1)
    hint = f'did you mean --{nearest[0]}? ' if nearest else ''
    return f'unknown option {option}; {hint}(--help lists all options)'


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _as_words(default: Any) -> list[str]:
    """A value as the words of a command line."""
    return [str(item) for item in default] if isinstance(default, tuple) else [str(default)]
