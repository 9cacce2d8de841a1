"""Starts the operator: ``python -m django_task_operator``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack

from django_task_operator import logs
from django_task_operator.cluster.kube import NoClusterError
from django_task_operator.startup import probes
from django_task_operator.startup.options import Options
from django_task_operator.startup.wiring import Outside, assemble


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; exit code 1 if the operator cannot continue."""
    options = Options.parse(arguments, os.environ)
    logs.configure(options.log_level, options.log_format)
    if options.kubeconfig:
        # kopf finds its credentials there.
        os.environ["KUBECONFIG"] = options.kubeconfig
    try:
        return asyncio.run(operate(options))
    except NoClusterError as error:
        sys.stderr.write(f"django-task-operator: error: {error}\n")
        return 1


async def operate(options: Options) -> int:
    """Run the operator in this event loop until it is told to stop; return the exit code."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        outside = await Outside.connect(options)
        stack.push_async_callback(outside.kube.close)
        operator = assemble(options, outside)
        server = await probes.serve(
            options.port, alive=lambda: operator.is_alive, ready=lambda: operator.is_ready
        )
        stack.push_async_callback(server.cleanup)
        return await operator.run(stopping)


if __name__ == "__main__":
    sys.exit(main())
