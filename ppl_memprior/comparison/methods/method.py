"""The interface of a method: a frozen object that turns a problem and a key into draws.

A subclass is one file: options as fields, which problems it takes, and how it draws.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from ppl_memprior.comparison.methods.options import check_options, require_known
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.inference.draws import Draws
from ppl_memprior.problem.inverse_problem import InverseProblem


@dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """A way to a posterior. Its options are its fields.

    Attributes:
        label: name of its draws in a run; the method's name if not given. The same method may run
            twice under two labels.
        name: of the method, a class attribute, such as "mode-jump".
        remedy: class attribute, what to do where its chains disagree, or nothing.
        moves_between_modes: class attribute, why it finds the weights of separated modes, as the
            end of a sentence: "which moves between modes". Empty if it may stay in one.
        diagnosed: class attribute, whether a diagnostic says when its draws can be believed.

    Raises:
        TypeError: an unknown option (with the nearest name), or a value of another type.
        ValueError: a value out of range.
    """

    name: ClassVar[str]
    remedy: ClassVar[str] = ""
    moves_between_modes: ClassVar[str] = ""
    diagnosed: ClassVar[bool] = False

    label: str = ""

    def __new__(cls, *positional: Any, **options: Any) -> Method:
        if positional:
            raise TypeError(f"{cls.__name__} takes its options by name, got {positional}")
        require_known(cls, options)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if not isinstance(self.label, str):
            raise TypeError(
                f"{type(self).__name__}'s label must be text, got {type(self.label).__name__} "
                f"{self.label!r}"
            )
        object.__setattr__(self, "label", self.label or self.name)
        check_options(self)

    @abc.abstractmethod
    def check(self, problem: InverseProblem) -> None:
        """Raise a `ValueError` for a problem that the method cannot take."""

    @abc.abstractmethod
    def draw(self, problem: InverseProblem, key: jax.Array, resources: Resources) -> Draws:
        """Draw from the problem's posterior.

        Args:
            problem: which has passed `check`.
            key: JAX random key of this method alone.
            resources: executor, store and progress, and what other methods have made already.

        Returns:
            The draws and their cost.
        """
