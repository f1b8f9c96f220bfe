"""Names of suites, policies and methods, and the adapters behind them, imported only when asked for.

An installed package adds names by entry points: `vla_bench.suites` names a mapping from suite name to `Suite`,
`vla_bench.policies` and `vla_bench.methods` name a callable that makes one, `vla_bench.method_packages` a package whose
modules are a method each. A script adds them by `register`.
"""

import ast
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from vla_bench.errors import MissingPackageError, SpecError, UnknownNameError
from vla_bench.policy import Division, Method, Policy
from vla_bench.suite import Suite

Kind = Literal["policy", "method"]
GROUPS: dict[Kind, str] = {"policy": "vla_bench.policies", "method": "vla_bench.methods"}
SUITE_GROUP = "vla_bench.suites"
GYMNASIUM_GROUP = "vla_bench.gymnasium"
COMMAND_GROUP = "vla_bench.commands"
PACKAGE_GROUP = "vla_bench.method_packages"
"""Packages whose modules are a method each: `vla_cache.py` with `METHOD = VlaCache` is `vla-cache`."""

_registered: dict[tuple[str, str], Any] = {}


def register(kind: Literal["suite", "policy", "method"], name: str, item: Any) -> None:
    """Add a `Suite`, or a callable that makes a policy or a method, under `name` for this process."""
    _registered[kind, name] = item
    suites.cache_clear()


def registered(policy: str, methods: tuple[str, ...]) -> dict[tuple[str, str], Any]:
    """Return what `register` has added of a policy and some methods, for another process to register as well."""
    wanted = {("policy", policy.strip().partition(":")[0])}
    wanted |= {("method", part.strip().partition(":")[0]) for spec in methods for part in spec.split("+")}
    return {key: item for key, item in _registered.items() if key in wanted}


def take(items: Mapping[tuple[str, str], Any]) -> None:
    """Register what `registered` has returned in another process."""
    _registered.update(items)


def register_environments() -> None:
    """Make every installed environment known to Gymnasium; done by `import vla_bench`, starts no simulator."""
    for entry in entry_points(group=GYMNASIUM_GROUP):
        _load(entry)()


def commands() -> dict[str, Any]:
    """Return the commands that adapters add to the command line, by name."""
    return {entry.name: _load(entry) for entry in entry_points(group=COMMAND_GROUP)}


def family(method: str) -> str:
    """Return a method's name without options, which its budgets share: `random+refresh` for `random:0.6+refresh:8`."""
    return "+".join(part.partition(":")[0] for part in method.split("+"))


def names(kind: Kind) -> list[str]:
    """Return the known names, without importing what is behind them."""
    installed = set(_installed(kind))
    return sorted(installed | {name for registered, name in _registered if registered == kind})


@cache
def suites() -> Mapping[str, Suite]:
    """Return all suites by name."""
    found: dict[str, Suite] = {}
    for entry in entry_points(group=SUITE_GROUP):
        found.update(_load(entry))
    return found | {name: item for (kind, name), item in _registered.items() if kind == "suite"}


def suite(name: str) -> Suite:
    """Return the suite of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in suites():
        raise UnknownNameError("suite", name, suites())
    return suites()[name]


def policy(spec: str) -> Policy:
    """Return a new policy from `name` or `name:argument,keyword=value`."""
    return _build("policy", spec)


def method(spec: str) -> Method:
    """Return a new method; `a:1+b:2` applies `a`, then `b` around it."""
    parts = [_build("method", part) for part in spec.split("+")]
    return parts[0] if len(parts) == 1 else _Composed(tuple(parts))


def division(method: Method) -> Division:
    """Return what a method gives up or needs; of several around each other, the most."""
    parts = method.parts if isinstance(method, _Composed) else (method,)
    return Division.most(getattr(part, "division", Division.LOSSY) for part in parts)


def _installed(kind: Kind) -> dict[str, EntryPoint]:
    """Return what packages have installed, by name, without importing more than the packages of methods themselves."""
    found = {entry.name: entry for entry in entry_points(group=GROUPS[kind])}
    if kind == "method":
        for entry in entry_points(group=PACKAGE_GROUP):
            package = _load(entry)
            for module in pkgutil.iter_modules(package.__path__):
                name = module.name.replace("_", "-")
                found[name] = EntryPoint(name, f"{package.__name__}.{module.name}:METHOD", GROUPS[kind])
    return found


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except ImportError as caught:
        raise MissingPackageError(entry.name, entry.module, caught) from caught


def taken_apart(spec: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Return name, positional and keyword arguments of a specification.

    Raises:
        SpecError: If it cannot be read.
    """
    name, _, text = spec.strip().partition(":")
    return name, *_arguments(spec, text)


def _build(kind: Kind, spec: str) -> Any:
    name, args, kwargs = taken_apart(spec)
    if (kind, name) in _registered:
        make = _registered[kind, name]
    else:
        entries = _installed(kind)
        if name not in entries:
            raise UnknownNameError(kind, name, names(kind))
        make = _load(entries[name])
    _check_arguments(make, name, spec, args, kwargs)
    return make(*args, **kwargs)


def _arguments(spec: str, text: str) -> tuple[list[Any], dict[str, Any]]:
    """Split `0.6,seed=3` into positional and keyword arguments; what is no Python literal is a string."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = part.rpartition("=")
        if not equals:
            if kwargs:
                raise SpecError(spec, f"{part!r} follows a keyword argument", "name:0.6,seed=3")
            args.append(_literal(value))
        else:
            kwargs[key.replace("-", "_")] = _literal(value)
    return args, kwargs


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _check_arguments(make: Callable[..., Any], name: str, spec: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    signature = inspect.signature(make)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as caught:
        fields = ", ".join(
            key if field.default is field.empty else f"{key}={field.default!r}"
            for key, field in signature.parameters.items()
        )
        raise SpecError(spec, f"{caught}; {name!r} takes ({fields})", f"{name}:key=value") from caught


class _Composed:
    """Several methods, the first one innermost."""

    def __init__(self, methods: tuple[Method, ...]) -> None:
        self.parts = methods

    @property
    def name(self) -> str:
        return "+".join(method.name for method in self.parts)

    def apply(self, policy: Policy) -> Policy:
        for method in self.parts:
            policy = method.apply(policy)
        return policy
