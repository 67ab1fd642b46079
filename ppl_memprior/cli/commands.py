"""The commands: progress on stderr, the table on stdout, exit codes for scripts.

0: done. 2: bad input, one line on stderr. 130: interrupted; what was finished is kept.
"""

from __future__ import annotations

import _thread
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compare posteriors under priors that were learned from few examples.",
)
demo_app = typer.Typer(no_args_is_help=True, help="Run a complete comparison on known problems.")
app.add_typer(demo_app, name="demo")

Out = Annotated[Path, typer.Option(help="Folder for draws and report: new, empty, or resumed.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=2**32 - 1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
KeepCompiled = Annotated[
    bool,
    typer.Option(
        "--compilation-cache/--no-compilation-cache",
        help="Keep compiled programs in your cache folder, so that later commands start sooner.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="METHOD.OPTION=VALUE",
        help="An option of a method, dps.num_steps=1000 say; may be given several times.",
    ),
]


@demo_app.command("stylized")
def demo_stylized(
    out: Out = Path("runs/stylized"),
    seed: Seed = 0,
    settings: Set = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    keep_compiled: KeepCompiled = True,
) -> None:
    """The one-dimensional problem of the paper: seconds, and no PyTorch."""

    def work() -> list[dict[str, Any]]:
        from ppl_memprior import demos, workspace

        folder = workspace.check_folder(out)
        return [_run(demos.stylized(seed), seed, folder, as_json, quiet, settings)]

    _guarded(work, out, as_json, keep_compiled)


@demo_app.command("fwi")
def demo_fwi(
    out: Out = Path("runs/fwi"),
    examples: Annotated[
        Path | None,
        typer.Option(help="OpenFWI .npy file or folder to take the training examples from."),
    ] = None,
    seed: Seed = 1,
    settings: Set = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    keep_compiled: KeepCompiled = True,
) -> None:
    """Full waveform inversion: generated models in two settings, or OpenFWI's."""
    # on grids as small as these a second thread waits longer than it works
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    def work() -> list[dict[str, Any]]:
        from ppl_memprior import demos, workspace

        folder = workspace.check_folder(out)
        if examples is not None:
            study = demos.openfwi(examples, seed)
            return [_run(study, seed, folder, as_json, quiet, settings)]
        collapsed = workspace.check_folder(out / "good-data")
        return [
            _run(demos.fwi(setting, seed), seed, where, as_json, quiet, settings)
            for setting, where in (
                (demos.SEVERAL_EXAMPLES, folder),
                (demos.ONE_EXAMPLE, collapsed),
            )
        ]

    _guarded(work, out, as_json, keep_compiled)


@app.command("compare")
def compare(
    model: Annotated[str, typer.Argument(metavar="FILE.py:MODEL", help="A NumPyro model.")],
    data: Annotated[Path, typer.Option(help=".npz file; its arrays are the model's arguments.")],
    out: Out,
    methods: Annotated[
        str,
        typer.Option(
            help="Names, separated by commas; psis is linearized, corrected by importance "
            "sampling; mode-jump is nuts with jumps between the examples' modes. dps-50=dps runs "
            "dps under the label dps-50."
        ),
    ] = "lookup,linearized,psis,mode-jump,nuts,dps",
    reference: Annotated[
        str | None,
        typer.Option(
            help="Method to measure distances to; by default mode-jump if run, else nuts if run, "
            "also in an earlier call."
        ),
    ] = None,
    settings: Set = None,
    num_samples: Annotated[
        int | None, typer.Option(help="Draws of each method, of each of its chains.")
    ] = None,
    num_warmup: Annotated[int | None, typer.Option(help="Adaptation steps of each chain.")] = None,
    num_chains: Annotated[int | None, typer.Option(help="Markov chains.")] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help=".npz file of true values; its arrays have the names of sites."),
    ] = None,
    coords: Annotated[
        Path | None,
        typer.Option(
            help=".npz file of coordinates; its arrays have the names of dimensions, depth and "
            "distance of fields."
        ),
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option(metavar="SITE=UNIT", help="Unit of a site, velocity=m/s say; several times."),
    ] = None,
    dims: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SITE=NAME,NAME",
            help="Names of a site's dimensions, data=shot,time say; several times.",
        ),
    ] = None,
    num_prior_draws: Annotated[
        int, typer.Option(help="Draws from the prior that the run keeps.", min=0)
    ] = 100,
    title: Annotated[str | None, typer.Option(help="Heading of the report.")] = None,
    workers: Annotated[
        int,
        typer.Option(help="Processes that share the work at single examples.", min=0),
    ] = 0,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    keep_compiled: KeepCompiled = True,
) -> None:
    """Compare the posteriors of your own model."""

    def work() -> list[dict[str, Any]]:
        from ppl_memprior import demos, user_model, workspace
        from ppl_memprior.cli.arguments import named_texts, worker_processes
        from ppl_memprior.comparison import check_methods
        from ppl_memprior.comparison.methods.registry import configured, label_of

        folder = workspace.check_folder(out)
        names = tuple(name.strip() for name in methods.split(",") if name.strip())
        sizes = {"num_samples": num_samples, "num_warmup": num_warmup, "num_chains": num_chains}
        given = {name: value for name, value in sizes.items() if value is not None}
        chosen = _overridden(configured(names, **given), settings)
        units_of = named_texts("--units", "velocity=m/s", units or [])
        dims_of = named_texts("--dims", "data=shot,time", dims or [])
        files = {"truth": truth, "coords": coords}
        labels = {name: user_model.load_data(f) for name, f in files.items() if f is not None}
        problem = user_model.read_problem(model, data)
        check_methods(problem, chosen)
        ran = (*workspace.finished_methods(folder), *map(label_of, chosen))
        compared = list(dict.fromkeys(ran))
        base = reference or next((m for m in ("mode-jump", "nuts") if m in compared), None)
        if base is not None and base not in compared:
            raise ValueError(f"the reference {base!r} is not among the methods {compared}")
        study = demos.Study(
            title=title or f"Posteriors of {model}",
            problem=problem,
            methods=chosen,
            reference=base,
            truth=labels.get("truth"),
            coords=labels.get("coords", {}),
            units=units_of,
            dims={site: names.split(",") for site, names in dims_of.items()},
            num_prior_draws=num_prior_draws,
            notes={"model": model, "data": str(data), "seed": seed},
        )
        with worker_processes(workers) as executor:
            return [_run(study, seed, folder, as_json, quiet, executor=executor)]

    _guarded(work, out, as_json, keep_compiled)


@app.command("report")
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a stored run.")],
    as_json: AsJson = False,
    keep_compiled: KeepCompiled = True,
) -> None:
    """Write the report of a stored run again."""

    def work() -> list[dict[str, Any]]:
        from ppl_memprior import workspace

        comparison = workspace.render(directory)
        return [_show(comparison, None, directory, as_json)]

    _guarded(work, directory, as_json, keep_compiled)


def _overridden(methods: Any, settings: list[str] | None) -> Any:
    from ppl_memprior.cli.arguments import method_options
    from ppl_memprior.comparison.methods import overridden

    return overridden(methods, method_options(settings or []))


def _run(
    study: Any,
    seed: int,
    folder: Path,
    as_json: bool,
    quiet: bool,
    settings: list[str] | None = None,
    executor: Any = None,
) -> dict[str, Any]:
    from ppl_memprior import workspace

    study = replace(study, methods=_overridden(study.methods, settings))
    labels = ", ".join(method.label for method in study.methods)
    print(f"{study.title}: {labels} into {folder}", file=sys.stderr)
    comparison = workspace.execute(study, seed, folder, progress=not quiet, executor=executor)
    return _show(comparison, study.title, folder, as_json)


def _show(comparison: Any, title: str | None, folder: Path, as_json: bool) -> dict[str, Any]:
    page = folder / "report.html"
    if not as_json:
        heading = f"{title}\n\n" if title else ""
        print(f"{heading}{comparison.to_text()}\n\nreport: {page}\n", flush=True)
    return {"out": str(folder), "report": str(page), **json.loads(comparison.to_json())}


def _guarded(
    work: Callable[[], list[dict[str, Any]]], out: Path, as_json: bool, keep_compiled: bool
) -> None:
    """Turn bad input into one line and exit code 2, and an interruption into 130."""
    try:
        # before Ctrl-C raises exceptions, some of which an import would catch or print
        importlib.import_module("ppl_memprior.workspace")
        with _insistent_interrupts() as interrupted:
            try:
                if keep_compiled:
                    _use_compilation_cache()
                results = work()
            except Exception as error:
                # what an exception became on its way through a compiled function, for example
                if interrupted.is_set():
                    raise KeyboardInterrupt from error
                raise
    except KeyboardInterrupt as interrupt:
        kept = (
            f"what is finished is kept in {out}, the same command goes on from there"
            if out.exists()
            else "nothing was finished"
        )
        print(f"\nppl-memprior: interrupted; {kept}", file=sys.stderr)
        raise typer.Exit(130) from interrupt
    except (ValueError, ImportError, OSError, RuntimeError, TypeError) as error:
        message = " ".join(str(error).split())
        print(f"ppl-memprior: {message}", file=sys.stderr)
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps(results[0] if len(results) == 1 else results, indent=2), flush=True)


def _use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, if that can be written to."""
    from ppl_memprior._execution import compilation_cache

    if compilation_cache.configured_by_user():
        return
    try:
        folder = compilation_cache.prepare_folder(compilation_cache.default_folder())
    except OSError as error:
        print(f"ppl-memprior: compiled programs are not kept: {error}", file=sys.stderr)
        return
    compilation_cache.use_folder(folder)


@contextmanager
def _insistent_interrupts() -> Iterator[threading.Event]:
    """Let Ctrl-C raise KeyboardInterrupt, and again every second until it gets out of here.

    Once is not enough: Python drops an exception that is raised inside a callback of the garbage
    collector, JAX registers such a callback, and the signal may arrive in it. Python also prints
    what it drops, with a traceback, which is left out here.

    Yields:
        An event that is set once there was an interruption.
    """
    interrupted, caught = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # signals are handled in the main thread only
        return
    main = threading.get_ident()

    def repeat() -> None:
        while not caught.wait(1.0):
            if hasattr(signal, "pthread_kill"):  # unlike the next, this wakes a sleeping call
                signal.pthread_kill(main, signal.SIGINT)
            else:
                _thread.interrupt_main()

    repeater = threading.Thread(target=repeat, daemon=True)

    def interrupt(_signal: int, _frame: Any) -> None:
        if caught.is_set():
            return
        if not interrupted.is_set():
            interrupted.set()
            repeater.start()
        raise KeyboardInterrupt

    def report_dropped(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            report_before(dropped)

    report_before, sys.unraisablehook = sys.unraisablehook, report_dropped
    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        caught.set()
        if interrupted.is_set():
            repeater.join()
        signal.signal(signal.SIGINT, previous)
        sys.unraisablehook = report_before
