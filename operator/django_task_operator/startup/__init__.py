"""From the command line to an operator that runs, and to its exit code.

In come the arguments (``options.py``) and everything outside the process: the API server, the databases,
a source of workers. ``wiring.py`` is the only place that knows which part needs which; ``lifecycle.py``
runs the assembled operator, from the first watch on. Out come the answers to the probes (``probes.py``) and
the exit code.
"""
