"""The field's words: what is never right stands in no name, option, help, message, docstring or comment."""

import ast
import io
import pathlib
import re
import tokenize

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(
    path
    for folder in ('lecture4', 'experiments', 'launch')
    for path in (ROOT / folder).rglob('*.py')
    if path.name != 'renamed_options.py'  # the old names, which errors answer by the new ones
)
# British spellings, and words of which the field has other ones: `accuracy`, `image`, `top-1`, `std`, ...
NEVER = {
    'spelling': r'colour|grey|behaviour|neighbour|centre|favour|labelled|unlabelled|modell|artefact|'
    r'(?:normal|optim|regular|vector|initial|visual|standard|general|minim|maxim|summar|binar|penal|'
    r'util|organ|recogn|real|emphas|memor|special|local|quant|random|factor|lineari?)is(?:e|es|ed|er|ers|ing|ation)\b|analys(?:e|ed|ing)\b',
    'images': r'\bpictures?\b|_pictures?_|\bPicture\b',
    'accuracy': r'told (?:right|wrong|apart)|first answer|among five|answered right',
    'baseline': r'yardstick|like beside like',
    'messages': r'\bis wanted\b|\bare wanted\b|\bwants? (?:a|one|the)\b',
    'multi-crop': r'looked_at|\blooks at a test\b',
    'per': r'\blabels? a class\b|\bus a patch\b|\bnats a\b|\bseconds? a step\b',
    'distributed': r'rollcall|roll call',
    'memory': r'\brecalled\b',
    'plain English': r'\bbeside\b|\banew\b|\beach by itself\b|\bas it came\b|\bin the course of\b|\bnone given: |'
    r'\bholds no (?:run|sweep)\b|\bbehind `?--|\bis held against\b|\bgive each its own\b',
    'complete phrases': r'^ +\*{0,2}\w+: (?:Of|As the class says)\b|falls to 0 along',
    'IoU': r'IoU \.\d',
}
PATTERN = re.compile('|'.join(f'(?:{pattern})' for pattern in NEVER.values()), re.I | re.M)
# Names of other people's software and of their arguments.
ALLOWED = ('standardised', 'grey_', 'Grey', 'jax.debug', 'centre_crop')


def texts(path):
    """(line, text) of every name, string and comment of a file."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.lineno, node.arg
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def violations(path):
    return sorted(
        {
            (line, match.group())
            for line, text in texts(path)
            for match in PATTERN.finditer(text)
            if text not in ALLOWED
        }
    )


def test_words_are_the_field_s():
    found = {str(path.relative_to(ROOT)): violations(path) for path in FILES}
    assert len(found) > 300
    assert not {path: words for path, words in found.items() if words}


def test_old_words_are_recognized(tmp_path):
    path = tmp_path / 'old.py'
    path.write_text('def grey(picture, colour):\n    """Told right."""\n    # beside others\n')
    words = {word.lower() for _, word in violations(path)}
    assert words == {'grey', 'picture', 'colour', 'told right', 'beside'}
