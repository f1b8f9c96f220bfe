"""VLA-ACL (arXiv:2610.08133): delete the rows that a trained scorer ranks lowest, view by view."""

from dataclasses import dataclass
from typing import ClassVar

from vla_bench_policies.acl.rule import AclRule
from vla_bench_policies.acl.scorer import KIND
from vla_bench_policies.learned.checkpoint import Kind
from vla_bench_policies.learned.method import LearnedMethod


@dataclass(frozen=True)
class VlaAcl(LearnedMethod):
    """Keep a share of each view's rows, at their original positions; the others are gone before the first layer."""

    NAME: ClassVar[str] = "vla-acl"
    KIND: ClassVar[Kind] = KIND

    def rule(self) -> AclRule:
        """Return a new rule."""
        return AclRule(self.name, first_is_full=False, scorer=self.trained().network)


METHOD = VlaAcl
