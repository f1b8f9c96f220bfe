"""`vla-bench train gates-card`: what trained networks were made of and what they do, as Markdown made from headers."""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from vla_bench_policies.acl.scorer import KIND as ACL
from vla_bench_policies.lac.gates import KIND as LAC
from vla_bench_policies.learned import checkpoint
from vla_bench_policies.learned.checkpoint import WEIGHTS, Kind, Trained

KINDS: dict[str, Kind] = {"lac": LAC, "vla-acl": ACL}
FEATURES = ("saving", "stage", "stride", "window", "self_made", "rotate", "task_loss", "first_layer", "keep")
"""Of a recipe, what tells one operating point from another."""


@dataclass(frozen=True)
class GatesCard:
    """Write the card of the networks that ship for a learned method: data, seed, steps, time, and what they reach."""

    method: Literal["lac", "vla-acl"] = "lac"
    """Whose networks."""

    folder: Path | None = None
    """Directory of safetensors files; by default the one that ships with the package."""

    def run(self) -> int:
        """Write card.md beside the networks, and print where.

        Raises:
            NetworksError: If a file holds no networks of the method.
        """
        kind = KINDS[self.method]
        folder = self.folder or Path(str(files(kind.package).joinpath(WEIGHTS)))
        trained = {path: checkpoint.load(path, kind) for path in sorted(folder.glob("*.safetensors"))}
        out = folder / "card.md"
        out.write_text("\n".join(_lines(kind, trained)) + "\n")
        print(out)
        return 0


def _lines(kind: Kind, trained: dict[Path, Trained]) -> list[str]:
    columns = list(dict.fromkeys(key for one in trained.values() for key in _row(one)))
    rows = [
        [f"`{path.stem}`", *(_row(one).get(column, "") for column in columns), f"{path.stat().st_size / 1e3:.0f} kB"]
        for path, one in trained.items()
    ]
    head = ["operating point", *columns, "file"]
    sources = {json.dumps(source): source for one in trained.values() for source in one.history.get("sources", ())}
    return [
        f"# Networks of {kind.method}",
        "",
        f"Written by `vla-bench train gates-card` from the headers of files that `{kind.command}` wrote; do not edit.",
        "",
        "* policy: beginning of the SHA-256 of its weights, as its own card has it",
        *(f"* data: {source['episodes']} episodes, {source['frames']} frames; `{source.get('command', source['name'])}`"
          for source in sources.values()),
        "* held out: every tenth episode; distances are means over the entries of normalised actions",
        "",
        f"| {' | '.join(head)} |",
        f"|{'|'.join(' --- ' for _ in head)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]  # fmt: skip


def _row(trained: Trained) -> dict[str, str]:
    """Return what the table says of one operating point, by column."""
    history = trained.history
    recipe: dict[str, Any] = history.get("recipe", {})
    shape = recipe.get("gates") or recipe.get("scorer") or {}
    told = {**recipe, **shape}
    row = {"policy": f"`{trained.policy[:8]}`"}
    row |= {name.replace("_", " "): str(told[name]) for name in FEATURES if name in told}
    if "flow" in shape:
        row |= {"flow": shape["flow"], "language": "yes" if shape.get("text_width") else "no"}
    found = {key.removeprefix("held_out_"): value for key, value in history.get("validation", {}).items()}
    row |= {
        "episodes": str(sum(source["episodes"] for source in history.get("sources", ()))),
        "begun from": str(history.get("begin", "")),
        "seed": str(recipe.get("seed", "")),
        "steps": str(recipe.get("steps", "")),
        "minutes": f"{history.get('seconds', 0) / 60:.0f} ({history.get('threads', '?')} threads)",
    }
    names = {
        "ratio": "reused or deleted", "task": "L1", "task_full": "L1, full", "distance": "distance to full",
        "alignment": "alignment error", "entropy": "entropy [nat]",
    }  # fmt: skip
    return row | {shown: f"{found[name]:.4f}" for name, shown in names.items() if name in found}
