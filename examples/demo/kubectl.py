"""kubectl is the demo's only access to the cluster: you could type everything that the demo does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class KubectlError(Exception):
    """A kubectl command failed; the message is what it printed."""


async def kubectl(*arguments: str) -> str:
    """Run kubectl and return what it printed.

    Raises:
        KubectlError: kubectl's exit code was not 0.
    """
    async with _process(*arguments, stderr=asyncio.subprocess.PIPE) as process:
        output, errors = await process.communicate()
    if process.returncode:
        raise KubectlError(f"kubectl {' '.join(arguments)}: {errors.decode().strip()}")
    return output.decode()


async def lines_of(*arguments: str) -> AsyncIterator[str]:
    """Yield the lines of a long-lived kubectl, a watch or a command in a pod, as they arrive."""
    async with _process(*arguments, stderr=asyncio.subprocess.DEVNULL) as process:
        assert process.stdout
        async for line in process.stdout:
            yield line.decode().rstrip("\n")


@asynccontextmanager
async def _process(*arguments: str, stderr: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        "kubectl",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
