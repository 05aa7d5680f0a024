"""What the times of a benchmark on a CPU were measured on."""

import pathlib
import platform
import re


def describe() -> str:
    """Name of the processor, and the widest vector instructions that it has, where the system says so."""
    try:
        text = pathlib.Path('/proc/cpuinfo').read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r'^(model name|flags)\s*: (.*)$', text, re.MULTILINE))
    flags = fields.get('flags', '').split()
    widest = next((name for name in ('avx512f', 'avx2', 'avx') if name in flags), 'no AVX')
    return f'{fields.get("model name", platform.machine())}, {widest}'
