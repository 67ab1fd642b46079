"""The `ppl-memprior` command: answers Ctrl-C from its first line on.

Nothing heavy may be imported here: what the commands need is imported under the handler that
`main` installs. The commands themselves are in `commands.py`.
"""

from __future__ import annotations

import os
import signal
from typing import Any


def main() -> None:
    """Entry point of the `ppl-memprior` command."""
    signal.signal(signal.SIGINT, _leave)
    from ppl_memprior.cli.commands import app

    app()


def _leave(_signal: int, _frame: Any) -> None:
    """End the process while there is nothing to keep, in start-up and when all is done.

    Not by an exception: imports, callbacks and destructors catch exceptions, or print them.
    """
    os.write(2, b"\nppl-memprior: interrupted\n")
    os._exit(130)
