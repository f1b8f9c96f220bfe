"""What a method promises."""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium

from vla_bench import registry
from vla_bench.policy import Method, Policy, PrivilegedPolicy
from vla_bench.testing.policies import Played, check_policy, first_difference
from vla_bench.testing.promises import hold
from vla_bench.types import Task


def check_method(
    method: Method, make_policy: Callable[[], Policy], env: gymnasium.Env, task: Task, exact: Method | None = None
) -> None:
    """Hold a method to its contract, and what it makes of a policy to the contract of a policy.

    `exact` is the method at the setting that must change no action; None if it has no such setting.

    Raises:
        ContractError: Naming the first promise that is broken.
    """
    case = _Wrapped(method, make_policy, env, task, exact)
    hold(method.name, case, _name_makes_the_method_again, _the_policy_stays_what_it_says_it_is)
    check_policy(method.apply(make_policy()), env, task)
    hold(method.name, case, _the_exact_setting_changes_no_action)


@dataclass(frozen=True)
class _Wrapped:
    method: Method
    make_policy: Callable[[], Policy]
    env: gymnasium.Env
    task: Task
    exact: Method | None


def _name_makes_the_method_again(case: _Wrapped) -> str | None:
    known = registry.names("method")
    if any(part.partition(":")[0] not in known for part in case.method.name.split("+")):
        return None
    again = registry.method(case.method.name)
    same = type(again) is type(case.method) and again.name == case.method.name
    return None if same else f"the registry makes {again.name!r} ({type(again).__name__})"


def _the_policy_stays_what_it_says_it_is(case: _Wrapped) -> str | None:
    policy = case.make_policy()
    wrapped = case.method.apply(policy)
    for name in ("name", "action_spec", "cameras"):
        if getattr(wrapped, name) != getattr(policy, name):
            return f"{name} became {getattr(wrapped, name)!r}, was {getattr(policy, name)!r}"
    return None


def _the_exact_setting_changes_no_action(case: _Wrapped) -> str | None:
    if case.exact is None:
        return None
    policies = (case.make_policy(), case.exact.apply(case.make_policy()))
    for policy in policies:
        if isinstance(policy, PrivilegedPolicy):
            policy.attach(case.env)
    alone, wrapped = (Played(policy, case.env, case.task, 20).play() for policy in policies)
    return first_difference(alone, wrapped, f"{case.exact.name!r} against the policy alone")
