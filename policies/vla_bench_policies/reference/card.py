"""`vla-bench train card`: what a checkpoint was made of, and what it reaches, as Markdown made from records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vla_bench import registry, stats, tables
from vla_bench.errors import NoResultsError, OptionError
from vla_bench.types import Outcome
from vla_bench_policies.reference import checkpoint as checkpoints
from vla_bench_policies.reference import flops
from vla_bench_policies.reference.checkpoint import Checkpoint
from vla_bench_policies.reference.policy import find

N_TEXT = 10
"""Rows of text for which operations are given: the median of LIBERO's instructions."""


@dataclass(frozen=True)
class Card:
    """Write the card of a checkpoint: its data, recipe, size, and success a task from recorded runs."""

    weights: str = "cpu-deep"
    """Name of a checkpoint that ships, or the path of a safetensors file."""

    results: tuple[Path, ...] = ()
    """Runs of this checkpoint: directories of `vla-bench run`, or of frames that `vla-bench table --export` wrote."""

    out: Path | None = None
    """File to write; by default card.md beside the weights, by their name."""

    def run(self) -> int:
        """Write the card, and print where."""
        if not self.results:
            raise OptionError("--results", "missing", "directories of runs of this checkpoint")
        path = find(self.weights)
        checkpoint = checkpoints.load(path)
        episodes = pd.concat([_episodes(directory, checkpoint) for directory in self.results])
        out = self.out or path.with_suffix(".md")
        out.write_text("\n".join(_lines(path, checkpoint, episodes)) + "\n")
        print(out)
        return 0


def _episodes(directory: Path, checkpoint: Checkpoint) -> pd.DataFrame:
    exported = (directory / "episodes.parquet").exists()
    results = tables.read_exported(directory) if exported else tables.load(directory)
    for name in results.runs["policy"].unique():
        if not name.startswith(checkpoint.sha256[:16]):
            raise NoResultsError(directory, f"holds episodes of another checkpoint ({name}, not {checkpoint.sha256})")
    return results.episodes


def _lines(path: Path, checkpoint: Checkpoint, episodes: pd.DataFrame) -> list[str]:
    model, history = checkpoint.model, checkpoint.history
    n_parameters = sum(weight.numel() for weight in model.parameters())
    size = f"{n_parameters / 1e6:.2f} M parameters, {path.stat().st_size / 1e6:.1f} MB in half precision"
    return [
        f"# Checkpoint `{path.stem}` of the reference VLA",
        "",
        "Written by `vla-bench train card` from the checkpoint's header and recorded episodes; do not edit.",
        "",
        f"* weights: `{path.name}`, sha256 of their content `{checkpoint.sha256}`; {size}",
        *(f"* {line}" for line in _shape(checkpoint)),
        *(f"* data: {_described(source)}" for source in history.get("sources", ())),
        f"* training: {_training(history)}",
        *([f"* begun as: {_training(history['before'])}"] if "before" in history else []),
        f"* held-out episodes: {_validation(history.get('validation', {}))}",
        "",
        "## Success on official initial states",
        "",
        "An episode that ended in an error is in no rate. Intervals: Wilson, 95 %.",
        *(line for key, group in episodes.groupby(["policy", "suite", "protocol"]) for line in _success(key, group)),
    ]


def _shape(checkpoint: Checkpoint) -> list[str]:
    config = checkpoint.model.config
    costs = {head: flops.of_query(config, N_TEXT, head) for head in ("oft", "ar")}
    return [
        f"views: {', '.join(config.cameras)}; {config.n_visual} visual rows; decoder {config.layers} x {config.width}",
        *(
            f"a query of `reference-{head}` with {N_TEXT} text rows: {cost.total / 1e9:.2f} GFLOP, of which the "
            f"decoder {cost.decoder_share:.0%}"
            for head, cost in costs.items()
        ),
    ]


def _described(source: dict[str, Any]) -> str:
    counts = f"{source['episodes']} episodes, {source['frames']} frames, {source['bytes'] / 1e6:.0f} MB"
    return f"{counts}" + (f"; `{source['command']}`" if "command" in source else f" of `{source['name']}`")


def _training(history: dict[str, Any]) -> str:
    hours = history.get("seconds", 0) / 3600
    return (
        f"recipe `{history.get('recipe')}`, seed {history.get('seed')}, {history.get('steps')} steps of "
        f"{history.get('batch')} frames from {history.get('frames')} in {hours:.1f} h on {history.get('device')} "
        f"({history.get('threads')} threads), torch {history.get('torch')}; `{history.get('command')}`"
    )


def _validation(found: dict[str, float]) -> str:
    if not found:
        return "not measured"
    lines = (
        f"first action {found['translation_mm']:.2f} mm and {found['rotation_mrad']:.1f} mrad an axis",
        f"{found['translation_blind_mm']:.2f} mm with the pictures of another frame",
        f"gripper right in {found['gripper']:.1%}, chunk L1 {found['chunk_l1']:.3f}",
        f"action token right in {found['token']:.1%}",
        f"hand's place {found['place_now_mm']:.1f} mm, at its next grasp or release {found['place_then_mm']:.1f} mm",
    )
    return "; ".join(lines)


def _success(key: Any, group: pd.DataFrame) -> list[str]:
    policy, suite, protocol = key
    instructions = [task.instruction for task in registry.suite(suite).tasks()]
    whole = group[group["method"] == tables.REFERENCE_METHOD]
    rows = [
        f"| {task} | {instructions[task]} | {_rate(whole[whole['task'] == task])} |"
        for task in sorted(set(whole["task"]))
    ]
    title = f"### `{policy}` on {suite}, protocol {protocol.partition(' ')[0]}"
    return [
        "",
        title,
        "",
        "| task | instruction | success |",
        "| --- | --- | --- |",
        *rows,
        f"| all | | {_rate(whole)} |",
    ]


def _rate(episodes: pd.DataFrame) -> str:
    valid = episodes[episodes["outcome"] != str(Outcome.ERROR)]
    errors = len(episodes) - len(valid)
    if not len(valid):
        return f"- ({errors} errors)"
    successes = int(valid["success"].sum())
    rate = stats.wilson(successes, len(valid))
    shown = f"{successes}/{len(valid)} = {rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
    return f"{shown}, {errors} errors" if errors else shown
