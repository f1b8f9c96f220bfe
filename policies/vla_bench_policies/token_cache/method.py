"""A token method: a rule, put into any policy whose decoder a token cache drives."""

import ast
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol, runtime_checkable

from vla_bench.errors import OptionError, VlaBenchError
from vla_bench.policy import Policy
from vla_bench_policies.token_cache.rule import PUBLISHED_LAYERS, CacheRule


class NoTokenRowsError(VlaBenchError):
    """Refuse to apply a token method to a policy without token rows."""

    def __init__(self, method: str, policy: str) -> None:
        super().__init__(
            f"{method!r} chooses token rows, and {policy!r} has none that a cache could keep: apply it to a policy "
            f"with a token cache such as 'reference'; what fits any policy comes after it: '{method}+action-reuse:2'"
        )


@runtime_checkable
class TokenPolicy(Policy, Protocol):
    """A policy whose decoder a token cache drives."""

    @property
    def rule(self) -> CacheRule:
        """Return the rule that it follows; a plain `CacheRule` computes everything."""
        ...

    def with_rule(self, rule: CacheRule) -> "TokenPolicy":
        """Return a policy with the same weights that follows another rule and remembers nothing yet."""
        ...


@dataclass(frozen=True)
class TokenMethod:
    """A method that is a rule and nothing else; subclasses have the rule's constants as fields.

    The rule is made anew at every `apply`, so that no two policies share what it remembers.
    """

    NAME: ClassVar[str] = ""
    """What the command line calls it."""

    def rule(self) -> CacheRule:
        """Return a new rule."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Return the specification that makes this method again: the first field, and what differs from the default."""
        values = [written(getattr(self, own.name)) for own in fields(self)]
        shown = [
            value if index == 0 else f"{own.name.replace('_', '-')}={value}"
            for index, (own, value) in enumerate(zip(fields(self), values, strict=True))
            if index == 0 or getattr(self, own.name) != own.default
        ]
        return f"{self.NAME}:{','.join(shown)}" if shown else self.NAME

    def apply(self, policy: Policy) -> Policy:
        """Return the policy that follows the rule.

        Raises:
            NoTokenRowsError: If the policy has no token cache.
        """
        if not isinstance(policy, TokenPolicy):
            raise NoTokenRowsError(self.name, policy.name)
        return policy.with_rule(self.rule())


def written(value: object) -> str:
    """Return an option as a specification has it: words without quotes where they are read as words again."""
    if not isinstance(value, str) or set(value) & set(",=+"):
        return repr(value)
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return repr(value)


def check_layer(method: str, value: object) -> None:
    """Refuse what is no layer of the published models.

    Raises:
        OptionError: If it is not an integer from 1 to 31.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < PUBLISHED_LAYERS:
        raise OptionError(
            f"{method}: layer", value, f"a layer of the published model, from 1 to {PUBLISHED_LAYERS - 1}"
        )


def check_share(method: str, field: str, value: object) -> None:
    """Refuse what is no share.

    Raises:
        OptionError: If it is not a number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise OptionError(f"{method}: {field}", value, f"a share from 0 to 1, as in '{method}:0.6'")
