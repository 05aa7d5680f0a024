"""How often JAX traces and compiles, for tests that a second call does neither."""

import contextlib

import jax

EVENTS = (
    '/jax/core/compile/jaxpr_trace_duration',
    '/jax/core/compile/jaxpr_to_mlir_module_duration',
    '/jax/core/compile/backend_compile_duration',
)


@contextlib.contextmanager
def traced():
    """A list that gets one entry for every trace, lowering and compilation in the block."""
    events = []

    def listen(name, duration, **details):
        if name in EVENTS:
            events.append((name, details.get('fun_name')))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
