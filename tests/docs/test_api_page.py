"""The page on the interface documents every public name once, and no internal one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import ppl_memprior

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
DIRECTIVE = re.compile(r"^\.\. ([\w:]+):: (\S+)\n((?:   .*\n|\n(?=   ))*)", re.M)


def public_modules() -> list[str]:
    """The package and its subpackages that say what is public."""
    found = [ppl_memprior.__name__]
    for module in pkgutil.walk_packages(ppl_memprior.__path__, "ppl_memprior."):
        private = any(part.startswith("_") for part in module.name.split("."))
        if (
            module.ispkg
            and not private
            and hasattr(importlib.import_module(module.name), "__all__")
        ):
            found.append(module.name)
    return found


def lookup(path: str) -> object:
    """The object at a dotted path, which may lead through modules and classes."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def documented(page: str) -> tuple[list[str], list[str]]:
    """Paths of the modules, and of the other names, that Sphinx finds on the page.

    As Sphinx does, a module's members are the functions and classes in its `__all__`, or its own
    names without underscore where it has none, less those excluded; data need their own entry.
    """
    modules, names, current = [], [], ""
    for kind, path, options in DIRECTIVE.findall(page):
        if kind == "currentmodule":
            current = path
        elif kind == "automodule":
            current = path
            modules.append(path)
            excluded = re.search(r":exclude-members: (.*)", options)
            left_out = excluded[1].split(", ") if excluded else []
            module = importlib.import_module(path)
            for name in getattr(module, "__all__", vars(module)):
                member = getattr(module, name)
                own = hasattr(module, "__all__") or getattr(member, "__module__", "") == path
                callable_ = inspect.isfunction(member) or inspect.isclass(member)
                if own and callable_ and name not in left_out and not name.startswith("_"):
                    names.append(f"{path}.{name}")
        else:
            names.append(path if path.startswith("ppl_memprior.") else f"{current}.{path}")
    return modules, names


@pytest.fixture(scope="module")
def on_the_page() -> tuple[list[str], list[str]]:
    return documented(PAGE.read_text(encoding="utf-8"))


def test_every_public_name_is_on_the_page(on_the_page):
    modules, names = on_the_page
    objects = {id(lookup(path)) for path in names}
    objects |= {id(importlib.import_module(path)) for path in modules}
    missing = []
    for module in public_modules():
        for name in importlib.import_module(module).__all__:
            value = getattr(importlib.import_module(module), name)
            # subpackages stand on the page through their own names
            if id(value) not in objects and getattr(value, "__name__", "") not in public_modules():
                missing.append(f"{module}.{name}")
    assert missing == []


def test_no_internal_name_is_on_the_page(on_the_page):
    modules, names = on_the_page
    exported = {
        f"{module}.{name}"
        for module in public_modules()
        for name in importlib.import_module(module).__all__
    }
    public = {*public_modules(), *exported}  # a package may export a module, such as `stylized`
    assert [path for path in modules if path not in public] == []
    inside = {path for path in names if path.rpartition(".")[0] in public - set(public_modules())}
    assert [path for path in names if path not in exported | inside] == []


def test_no_name_is_on_the_page_twice(on_the_page):
    _, names = on_the_page
    objects = [id(lookup(path)) for path in names]
    assert [
        path for path, value in zip(names, objects, strict=True) if objects.count(value) > 1
    ] == []


def test_every_name_on_the_page_has_a_docstring(on_the_page):
    _, names = on_the_page
    undocumented = [
        path
        for path in names
        if (inspect.isfunction(value := lookup(path)) or inspect.isclass(value))
        and not value.__doc__
    ]
    assert undocumented == []


def test_a_page_that_lacks_a_name_or_has_an_internal_one_is_noticed():
    page = (
        ".. automodule:: ppl_memprior.datasets\n   :members:\n   :exclude-members: load_openfwi\n"
    )
    assert documented(page) == (["ppl_memprior.datasets"], [])
    page = (
        ".. currentmodule:: ppl_memprior\n\n.. autofunction:: lookup\n   :no-index:\n\n   Text.\n"
    )
    assert documented(page) == ([], ["ppl_memprior.lookup"])
