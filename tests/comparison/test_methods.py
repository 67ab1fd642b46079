"""Methods as objects: options, labels, one's own methods, and what they share in a run."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import time
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from ppl_memprior import compare, methods, run
from ppl_memprior.comparison import load_trees
from ppl_memprior.comparison.identity import method_differences, method_identity
from ppl_memprior.comparison.methods.options import options_of
from ppl_memprior.comparison.methods.values import plain
from ppl_memprior.comparison.resources import Resources
from ppl_memprior.comparison.returned_draws import check_draws
from ppl_memprior.inference import Cost, Draws, default_proposal

pytestmark = pytest.mark.arithmetic  # another Python computes the same

KEY = jax.random.key(0)


@dataclass(frozen=True, kw_only=True)
class Flat(methods.Method):
    """Independent draws of a uniform distribution: wrong, but a method."""

    name: ClassVar[str] = "flat"
    remedy: ClassVar[str] = "do not use it"

    num_samples: int = methods.whole(10, at_least=4)
    width: float = methods.real(1.0, above=0.0)

    def check(self, problem):
        problem.require_no_extra_latents("flat")

    def draw(self, problem, key, resources):
        shape = (1, self.num_samples, *problem.event_shape)
        x = jax.random.uniform(key, shape, minval=-self.width, maxval=self.width)
        return Draws(latents={problem.prior_name: np.asarray(x)}, cost=Cost(), independent=True)


class Bare:
    """What a method needs at least: no base class, no options."""

    name = "bare"

    def check(self, problem):
        pass

    def draw(self, problem, key, resources):
        return Flat().draw(problem, key, resources)


def test_one_object_adds_a_method_to_table_json_and_page(cubic_problem, tmp_path):
    chosen = [Flat(), Flat(width=0.1, label="narrow"), Bare()]
    runs = run(cubic_problem(0.0, 0.3), chosen, KEY, store=tmp_path / "run", progress=False)
    assert list(runs) == ["flat", "narrow", "bare"]
    assert np.abs(runs["narrow"]["posterior"]["x"]).max() <= 0.1
    assert runs["flat"].attrs["method"] == runs["narrow"].attrs["method"] == "flat"
    comparison = compare(runs)
    assert list(comparison.table.index) == list(runs)
    page = comparison.to_html(tmp_path / "report.html").read_text()
    for label in runs:
        assert f'"{label}"' in comparison.to_json() and f"<td>{label}</td>" in page
    # and again from the store, where the own method's draws are as good as any
    again = run(cubic_problem(0.0, 0.3), chosen, KEY, store=tmp_path / "run", progress=False)
    np.testing.assert_array_equal(again["flat"]["posterior"]["x"], runs["flat"]["posterior"]["x"])


def test_draws_depend_on_the_label_and_not_on_the_other_methods(cubic_problem):
    problem = cubic_problem(0.0, 0.3)
    both = run(problem, [Flat(), Flat(label="again")], KEY, progress=False)
    alone = run(problem, [Flat(label="again")], KEY, progress=False)
    x = {name: tree["posterior"]["x"].to_numpy() for name, tree in both.items()}
    assert not np.array_equal(x["flat"], x["again"])
    np.testing.assert_array_equal(alone["again"]["posterior"]["x"], x["again"])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: methods.Dps(num_step=9), TypeError, "Did you mean 'num_steps'.*step_size, label"),
        (lambda: methods.Dps(9), TypeError, r"takes its options by name, got \(9,\)"),
        (lambda: methods.Dps(num_steps=1), ValueError, "whole number of at least 2, got 1"),
        (lambda: methods.Dps(num_steps=10.0), TypeError, "at least 2, got float 10.0"),
        (lambda: methods.Dps(num_steps=True), TypeError, "got bool True"),
        (lambda: methods.Dps(step_size=float("nan")), ValueError, "above 0 or None, got nan"),
        (lambda: methods.Dps(label=3), TypeError, "label must be text, got int 3"),
        (lambda: methods.Nuts(num_samples=0), ValueError, "at least 4, got 0"),
        (lambda: methods.Psis(num_importance_draws=10), ValueError, "at least 25, got 10"),
        (lambda: methods.Psis(defensive_share=1.0), ValueError, "of at least 0 and below 1"),
        (lambda: methods.Psis(proposal="prior"), TypeError, "a NumPyro distribution or None"),
        (lambda: methods.Smc(target_ess=1), ValueError, "above 0 and below 1, got 1"),
        (lambda: methods.Linearized(max_rank=0), ValueError, "at least 1 or None, got 0"),
        (lambda: Flat(width="wide"), TypeError, "Flat's option width must be a number above 0"),
    ],
)
def test_bad_options_are_refused_when_the_method_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("method", methods.METHODS.values(), ids=lambda method: method.name)
def test_methods_are_values(method):
    """Equal by their options, hashable, copied and pickled as they are; all options have a type."""
    same = type(method)()
    assert same == method and hash(same) == hash(method) and method.label == method.name
    assert pickle.loads(pickle.dumps(method)) == copy.deepcopy(method) == method
    assert dataclasses.replace(method, label="other") != method
    declared = {f.name for f in dataclasses.fields(method) if f.name != "label"}
    assert declared == set(options_of(method))
    assert all("option" in f.metadata for f in dataclasses.fields(method) if f.name != "label")
    # each option is explained, by the class or by the one that it has it from
    text = "".join(kind.__doc__ or "" for kind in type(method).__mro__)
    assert all(f"{name}:" in text for name in declared)


def test_a_new_option_at_its_default_leaves_old_draws_readable():
    attrs = method_identity(Flat(num_samples=20))
    old = {**attrs, "options": '{"num_samples": 20}'}  # before there was a width
    assert method_differences(old, Flat(num_samples=20)) == ""
    assert "option width 1.0 there, 2.0 here" in method_differences(
        old, Flat(num_samples=20, width=2.0)
    )
    assert "without the options" in method_differences({"method": "flat"}, Flat())


def test_options_that_are_objects_are_told_apart_by_their_numbers():
    one, same, other = (
        methods.Psis(proposal=dist.Normal(jnp.asarray(0.0), jnp.asarray(scale)))
        for scale in (1.0, 1.0, 2.0)
    )
    attrs = method_identity(one)
    assert attrs["options"].count("Normal ") == 1
    assert method_differences(attrs, same) == ""
    assert "option proposal Normal" in method_differences(attrs, other)


def test_another_method_of_the_same_store_may_have_other_options(cubic_problem, tmp_path):
    problem = cubic_problem(0.0, 0.3)
    run(problem, [Flat()], KEY, store=tmp_path, progress=False)
    wide = Flat(width=3.0)
    with pytest.raises(ValueError, match="option width 1.0 there, 3.0 here. Give the method anoth"):
        run(problem, [wide], KEY, store=tmp_path, progress=False)
    run(problem, [dataclasses.replace(wide, label="wide")], KEY, store=tmp_path, progress=False)
    assert list(load_trees(tmp_path / "draws.nc")) == ["flat", "wide"]


@pytest.mark.parametrize("stored", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_methods_of_one_run_linearize_once(cubic_problem, tmp_path, monkeypatch, stored):
    """Both want the posterior linearized at its modes."""
    made = []

    def counted(problem, **arguments):
        made.append(arguments["store"])
        return default_proposal(problem, **arguments)

    monkeypatch.setattr("ppl_memprior.comparison.methods._proposal.default_proposal", counted)
    tiny = methods.configured(
        ["psis", "mode-jump"], num_samples=4, num_warmup=2, num_chains=1, num_importance_draws=25
    )
    store = tmp_path if stored else None
    runs = run(cubic_problem(0.0, 0.3), tiny, KEY, store=store, progress=False)
    assert len(made) == 1 and (made[0] is not None) == stored
    # each is charged for it nevertheless, as if it had run alone
    assert runs["psis"].attrs["num_gradient_evaluations"] >= 5
    jumps = runs["mode-jump"]
    own = int(jumps["sample_stats"]["num_forward_evaluations"].sum())
    assert jumps.attrs["num_forward_evaluations"] > own + 5


def test_what_is_shared_is_made_once_for_each_problem(cubic_problem):
    resources = Resources()
    made = []
    one, other = cubic_problem(0.0, 0.3), cubic_problem(0.1, 0.3)
    for problem in (one, one, other):
        resources.once(problem, "thing", lambda: made.append(1) or len(made))
    assert len(made) == 2
    assert resources.once(one, "thing", lambda: None) == 1
    assert resources.folder("a") is None


@pytest.mark.parametrize("name", ["psis", pytest.param("mode-jump", marks=pytest.mark.slow)])
def test_a_proposal_of_ones_own_is_used(cubic_problem, name):
    """And no linearization is made."""
    problem = cubic_problem(0.0, 0.3)
    sizes = {"num_samples": 4, "num_warmup": 2, "num_chains": 1, "num_importance_draws": 25}
    (method,) = methods.configured([name], **sizes)
    own = dataclasses.replace(method, proposal=dist.Normal(0.0, 1.0))
    tree = run(problem, [own], KEY, progress=False)[name]
    if name == "psis":
        assert tree.attrs["num_forward_evaluations"] == 25
    shifted = dataclasses.replace(method, proposal=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with pytest.raises(ValueError, match=r"event shape \(2,\)"):
        run(problem, [shifted], KEY, progress=False)


def test_configured_gives_each_method_the_options_that_it_has():
    dps, nuts, fifty = methods.configured(
        ["dps", "nuts", "fifty=dps"], {"fifty": {"num_steps": 50}}, num_samples=8, num_chains=2
    )
    assert dps == methods.Dps(num_samples=8)
    assert nuts == methods.Nuts(num_samples=8, num_chains=2)
    assert fifty == methods.Dps(num_samples=8, num_steps=50, label="fifty")
    with pytest.raises(ValueError, match="'fitfy', which is not among.*Did you mean 'fifty'"):
        methods.configured(["fifty=dps"], {"fitfy": {}})
    with pytest.raises(ValueError, match="unknown method 'dpss'"):
        methods.configured(["a=dpss"])


def test_options_are_read_from_text():
    (read,) = methods.overridden([methods.Dps()], {"dps": {"num_steps": "5", "step_size": "0.5"}})
    assert read == methods.Dps(num_steps=5, step_size=0.5)
    (again,) = methods.overridden([read], {"dps": {"step_size": "None"}})
    assert again == methods.Dps(num_steps=5)
    with pytest.raises(TypeError, match="Did you mean 'num_steps'"):
        methods.overridden([read], {"dps": {"num_step": "5"}})
    with pytest.raises(TypeError, match="proposal can be given in Python only"):
        methods.overridden([methods.Psis()], {"psis": {"proposal": "prior"}})
    with pytest.raises(ValueError, match="must be a whole number of at least 2, got '1e3'"):
        methods.overridden([read], {"dps": {"num_steps": "1e3"}})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (dist.Normal(0.0, 1.0).to_event(0), dist.Cauchy(0.0, 1.0).to_event(0)),
        (
            dist.Normal(0.0, 1.0).expand([2]).to_event(1),
            dist.Laplace(0.0, 1.0).expand([2]).to_event(1),
        ),
        ({"a": 1, "b": 2}, {"c": 1, "d": 2}),
        ((1, None), (None, 1)),
        ([1, [2, 3]], [[1, 2], 3]),
        (np.zeros(3), np.ones(3)),
        (jax.random.key(0), jax.random.key(1)),
        (lambda x: x + 1, lambda x: x + 2),
        (Flat(), Flat(width=2.0)),
    ],
    ids=[
        *("distributions", "inner", "keys", "order", "nesting", "arrays", "random keys"),
        *("functions", "methods"),
    ],
)
def test_values_of_options_are_told_apart_by_their_content(one, other):
    assert plain("option", one) != plain("option", other)
    assert plain("option", one) == plain("option", copy.copy(one))
    assert " at 0x" not in plain("option", one)


def test_a_value_without_content_is_refused_before_any_work(cubic_problem):
    method = Bare()
    method.denoiser = object()
    with pytest.raises(TypeError, match="option denoiser holds a object, by which draws cannot"):
        run(cubic_problem(0.0, 0.3), [method], KEY, progress=False)


def test_attributes_of_a_bare_object_are_its_options(cubic_problem, tmp_path):
    method = Bare()
    method.width = 1.0
    run(cubic_problem(0.0, 0.3), [method], KEY, store=tmp_path, progress=False)
    method.width = 2.0
    with pytest.raises(ValueError, match="option width 1.0 there, 2.0 here"):
        run(cubic_problem(0.0, 0.3), [method], KEY, store=tmp_path, progress=False)


@pytest.mark.parametrize("label", [".", "..", "a/b", " "])
def test_labels_that_no_file_can_hold_are_refused(cubic_problem, label):
    with pytest.raises(ValueError, match="label must be text without '/' that is more than dots"):
        run(cubic_problem(0.0, 0.3), [Flat(label=label)], KEY)


X = np.zeros((1, 8), np.float32)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"latents": {"x": X[0]}}, ValueError, r"shape \(chains, draws, \*event\); got .* \(8,\)"),
        ({"latents": {"x": X[:, :0]}}, ValueError, "at least one chain of at least 4 draws"),
        ({"latents": {"x": X[..., None]}}, ValueError, r"of shape \(1, 8\), got \(1, 8, 1\)"),
        ({"latents": {"x": X, "z": X}}, ValueError, r"sites \['x'\], got those of \['x', 'z'\]"),
        ({"sample_stats": {"a": X[:, :7]}}, ValueError, r"statistic 'a' of shape \(1, 8\)"),
        ({"example_weights": np.ones(7)}, ValueError, r"example_weights of shape \(5,\), got \(7"),
        ({"cost": None}, TypeError, "its cost as inference.Cost, got NoneType"),
        ({"numbers": {"a": "text"}}, TypeError, "single numbers, got 'a' = str 'text'"),
        ({"numbers": {"prior_site": 1}}, ValueError, "'prior_site' under another name"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_draws_of_another_form_are_named(cubic_problem, parts, error, message):
    given = {"latents": {"x": X}, "cost": Cost(), "independent": False, **parts}
    with pytest.raises(error, match=f"the method 'bare' must return .*{message}"):
        check_draws("bare", Draws(**given), cubic_problem(0.0, 0.3))


def test_what_is_no_draws_is_named(cubic_problem):
    with pytest.raises(TypeError, match="must return inference.Draws, got dict"):
        check_draws("bare", {"x": X}, cubic_problem(0.0, 0.3))


def test_the_wall_time_of_what_is_shared_counts_for_each():
    resources = Resources()
    problem = object()
    resources.once(problem, "slow", lambda: time.sleep(0.02))
    assert resources.take_borrowed_seconds() == 0.0, "its own time counts as it passes"
    resources.once(problem, "slow", lambda: None)
    assert resources.take_borrowed_seconds() >= 0.02
    assert resources.take_borrowed_seconds() == 0.0
