"""Names lead to suites, policies and methods, and wrong names to advice."""

import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
from toy import TOY, ToyPolicy

import vla_bench
from vla_bench import registry
from vla_bench.errors import MissingPackageError, OptionError, SpecError, UnknownNameError
from vla_bench.policy import Method, Policy
from vla_bench.suite import Suite
from vla_bench_policies.methods.action_reuse import ActionReuse
from vla_bench_policies.methods.full import Full


def test_a_method_is_as_lossy_as_the_most_lossy_of_its_parts() -> None:
    found = {
        spec: str(registry.division(registry.method(spec)))
        for spec in ("full", "fastv:0.5", "random:0.6", "random:0.6+refresh:8", "fastv:0.5+action-reuse:2")
    }
    assert found == {
        "full": "exact",
        "fastv:0.5": "lossy",
        "random:0.6": "temporal-cache",
        "random:0.6+refresh:8": "temporal-cache",
        "fastv:0.5+action-reuse:2": "lossy",
    }


def test_a_method_that_says_nothing_is_lossy() -> None:
    assert str(registry.division(SimpleNamespace())) == "lossy"  # pyright: ignore[reportArgumentType]


def test_what_we_ship_is_known_by_name() -> None:
    assert {"full", "action-reuse"} <= set(registry.names("method"))
    assert "expert" in registry.names("policy")
    assert {"libero-spatial@1", "libero-object@1", "libero-goal@1", "libero-10@1"} <= set(registry.suites())


def test_what_a_script_registers_is_found_and_satisfies_the_interfaces() -> None:
    assert registry.suite("toy@1") is TOY
    assert isinstance(registry.suite("toy@1"), Suite)
    assert isinstance(registry.policy("toy"), Policy)
    assert isinstance(registry.method("full"), Method)
    assert "toy" in registry.names("policy")


def test_a_suite_can_be_registered_after_the_suites_were_listed() -> None:
    registry.suites()
    vla_bench.register("suite", "toy-late@1", TOY)
    assert registry.suite("toy-late@1") is TOY


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("toy", ToyPolicy()),
        ("toy:3", ToyPolicy(3)),
        (" toy: 3 ,delay-s=0.5", ToyPolicy(3, delay_s=0.5)),
        ("toy:n_actions=4,name=other", ToyPolicy(4, name="other")),
        ("toy:cameras=None", ToyPolicy(cameras=None)),
    ],
)
def test_a_specification_is_a_name_and_arguments(spec: str, policy: ToyPolicy) -> None:
    assert registry.policy(spec) == policy


@pytest.mark.parametrize("name", ["full", "action-reuse:1", "action-reuse:7", "action-reuse:2+full+action-reuse:3"])
def test_a_methods_name_makes_it_again(name: str) -> None:
    assert registry.method(registry.method(name).name).name == name


def test_methods_are_put_around_each_other_the_first_innermost() -> None:
    @dataclass
    class Tagging:
        tag: str
        name: str = "tag"

        def apply(self, policy):
            return (*policy, self.tag)

    vla_bench.register("method", "tag", Tagging)
    assert registry.method("tag:a+tag:b").apply(()) == ("a", "b")


def test_two_calls_make_two_objects() -> None:
    assert registry.policy("toy") is not registry.policy("toy")
    assert registry.method("full") == Full()
    assert registry.method("action-reuse:2") == ActionReuse(2)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: registry.suite("toi@1"), r"no suite named 'toi@1'\. Did you mean 'toy@1'\?"),
        (lambda: registry.policy("expret"), r"no policy named 'expret'\. Did you mean 'expert'\?"),
        (lambda: registry.method("action_reuse:2"), r"no method named 'action_reuse'\. Did you mean 'action-reuse'\?"),
        (lambda: registry.method("full+"), r"no method named ''\. Known: "),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(ask, message: str) -> None:
    with pytest.raises(UnknownNameError, match=f"^{message}"):
        ask()


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("toy:n_actions=2,3", "'3' follows a keyword argument"),
        ("toy:speed=3", "got an unexpected keyword argument 'speed'; 'toy' takes \\(n_actions=2, delay_s=0.0, "),
        ("toy:2,n_actions=2", "multiple values for argument 'n_actions'"),
    ],
)
def test_wrong_arguments_are_answered_with_the_right_ones(spec: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        registry.policy(spec)


@pytest.mark.parametrize("repeats", ["0", "two", "1.5", "True"])
def test_action_reuse_repeats_a_positive_whole_number_of_times(repeats: str) -> None:
    with pytest.raises(OptionError, match="action-reuse: repeats is "):
        registry.method(f"action-reuse:{repeats}")


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("far", "no_such_package.adapter:Policy", registry.GROUPS["policy"])
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert "far" in registry.names("policy")
    with pytest.raises(MissingPackageError, match=r"^'far' needs 'no_such_package.adapter', which cannot be imported"):
        registry.policy("far")


def test_listing_names_imports_no_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("vla_bench_policies")]:
        monkeypatch.delitem(sys.modules, name)
    registry.names("method")
    packages = {"vla_bench_policies", "vla_bench_policies.methods"}  # they hold nothing but a sentence
    assert {name for name in sys.modules if name.startswith("vla_bench_policies")} <= packages
