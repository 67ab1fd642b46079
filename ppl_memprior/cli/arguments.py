"""Arguments of the commands that are more than one word: options of methods, units, names."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor


def method_options(settings: Sequence[str]) -> dict[str, dict[str, str]]:
    """Texts such as `dps.num_steps=1000` as options by the method's label.

    Raises:
        ValueError: not of that form, or an option that is set twice.
    """
    found: dict[str, dict[str, str]] = {}
    for text in settings:
        target, _, value = text.partition("=")
        label, _, option = target.rpartition(".")
        if not (label and option and value):
            raise ValueError(
                f"--set takes METHOD.OPTION=VALUE, dps.num_steps=1000 say; got {text!r}"
            )
        options = found.setdefault(label.strip(), {})
        if option.strip() in options:
            raise ValueError(f"--set gives {target.strip()} two values")
        options[option.strip()] = value.strip()
    return found


def named_texts(flag: str, example: str, pairs: Sequence[str]) -> dict[str, str]:
    """Texts such as `velocity=m/s` by their names.

    Args:
        flag: the command's option, for messages.
        example: of such a text.
        pairs: the texts.

    Raises:
        ValueError: not of that form, or a name that stands twice.
    """
    found: dict[str, str] = {}
    for text in pairs:
        name, separator, value = text.partition("=")
        if not (name.strip() and separator and value.strip()):
            raise ValueError(f"{flag} takes NAME=VALUE, {example} say; got {text!r}")
        if name.strip() in found:
            raise ValueError(f"{flag} names {name.strip()!r} twice")
        found[name.strip()] = value.strip()
    return found


@contextlib.contextmanager
def worker_processes(count: int) -> Iterator[Executor | None]:
    """An executor of so many processes; None for no process besides this one.

    They use the folder of compiled programs that this process uses. On an error or an interruption
    they are not waited for.
    """
    if count == 0:
        yield None
        return
    # not above: the commands print their help without JAX
    from ppl_memprior._execution.compilation_cache import folder_in_use, use_folder

    executor = ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=use_folder,
        initargs=(folder_in_use(),),
    )
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()
