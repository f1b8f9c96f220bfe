"""Measure a 7B VLA's step close to the limit of a GPU: dense, with rows reused or deleted, in all combinations.

    python benchmarks/gpu_steps.py --out results/released/gpu            # on one GPU of 80 GB, about 7 minutes
    python benchmarks/gpu_steps.py --out results/gpu-try --small --device cpu   # a test of the script, in seconds

Weights are random: time does not depend on them. Pictures come as 224 px squares in pinned host memory; a rendered
picture's JPEG round trip and resizing, which LIBERO's published evaluation does on the host, are not in these numbers.

    decoder_ms   rows of the prompt ready -> last hidden states, and the head's actions or the first token;
                 in the ladder with all tokens
    policy_ms    pictures in host memory -> actions in host memory
    step_ms      policy_ms over the actions of an answer

`_ms` is the median by the device's events, `_wall_ms` by the host's clock around a step that is awaited, `_p5` and
`_p95` percentiles of the first. Steps that are compared take turns. Each file begins with the machine; `run.json` has
errors and fallbacks. A section that does not fit into the time is skipped, and said to be.
"""

import argparse
import gc
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from vla_bench_policies.static import roofline
from vla_bench_policies.static.check import Check, checks
from vla_bench_policies.static.decoder import StaticDecoder, Watch
from vla_bench_policies.static.energy import EnergyMeter
from vla_bench_policies.static.factorial import effects
from vla_bench_policies.static.gates import Gate, LacGate, PixelGate, RandomGate, VlaCacheGate
from vla_bench_policies.static.ledger import Ledger
from vla_bench_policies.static.models import RATIOS, PromptShape, RandomModel, Sizes, openvla, openvla_oft
from vla_bench_policies.static.pointwise import PLAIN, Kernels, compiled
from vla_bench_policies.static.policy import Saving, StaticPolicy
from vla_bench_policies.static.programs import Recorder
from vla_bench_policies.static.rows import Buckets
from vla_bench_policies.static.stock import StockLlama
from vla_bench_policies.static.timing import Times, Watchmaker, speed_up, unprepared
from vla_bench_policies.static.vision import StaticSight
from vla_bench_policies.static.weights import LlamaWeights
from vla_bench_policies.token_cache.rule import at_depth

SHAPES = ("openvla-oft", "openvla")

PLAN = (
    "check", "roofline", "ladder openvla-oft", "reuse openvla-oft", "ladder openvla", "reuse openvla",
    "methods openvla-oft", "factorial", "energy openvla-oft", "ladder openvla-oft-25", "reuse openvla-oft-25",
    "methods openvla", "energy openvla",
)  # fmt: skip
"""Sections with the shape that they are for, most important first."""

SECTIONS = tuple(dict.fromkeys(entry.split()[0] for entry in PLAN))

DELETION_LAYER = 3
"""Of 32, from which rows are deleted: FastV as released."""

BUDGETS = (0.2, 0.4, 0.6, 0.8, 0.9)
"""Shares of the visual rows that methods leave out."""

REPLAYED = {"vla-acl": 0, "vla-adp": 0, "specprune": 1, "vla-pruner": 3}
"""Layer of 32 from which other methods delete; of them only the decoder's time is measured, with a mask of that size.
Sources: the modules of `vla_bench_policies.methods`. SparseVLM deletes in three steps and is left out."""

REUSED = 0.6
"""Share in the factorial and in the breakdown."""


class Bench:
    """What the sections share."""

    def __init__(self, options: argparse.Namespace) -> None:
        device = torch.device(options.device)
        self.began, self.until = perf_counter(), perf_counter() + 60 * options.minutes
        self.device, self.small, self.shapes = device, options.small, options.shape
        self.clock = Watchmaker(device, options.repetitions, self.until)
        self.rng = np.random.default_rng(0)
        self.ledger = Ledger(options.out, device, {"size": "small" if options.small else "7B"})
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        self.model = RandomModel(Sizes.small() if options.small else Sizes(), device, dtype)
        self.kernels: Kernels = PLAIN if options.plain else compiled()
        self.fast_sight = not options.plain
        self.ceilings: roofline.Ceilings | None = None
        self._narrow: LlamaWeights | None = None

    @property
    def narrow(self) -> LlamaWeights:
        """Return the weights in 8 bits."""
        if self._narrow is None:
            self._narrow = self.model.weights.narrow()
        return self._narrow

    @property
    def n_layers(self) -> int:
        """Return the decoder's layers."""
        return self.model.sizes.decoder.layers

    def prompt(self, name: str) -> PromptShape:
        """Return a prompt by the name of its shape."""
        rows = self.model.rows_per_view
        return openvla(rows) if name == "openvla" else openvla_oft(25 if name.endswith("25") else 8, rows)

    def decoder(self, prompt: PromptShape, narrow: bool = False) -> StaticDecoder:
        """Return a decoder with the best kernels."""
        return self.model.decoder(prompt, self.kernels, self.narrow if narrow else None)

    def sight(self, prompt: PromptShape) -> StaticSight:
        """Return towers with the best kernels."""
        return self.model.sight(prompt, self.fast_sight)

    def pictures(self, prompt: PromptShape) -> Callable[[], torch.Tensor]:
        """Return what shows the next pictures."""
        return self.model.pictures(prompt, pinned=self.device.type == "cuda")

    def recorder(self, graphs: bool = True) -> Recorder:
        """Return a recorder with memory of its own."""
        return Recorder(self.device, graphs)

    def deletion_layer(self, published: int = DELETION_LAYER) -> int:
        """Return a published layer at the depth of this decoder."""
        return at_depth(published, self.n_layers) if published else 0

    def compare(
        self, steps: dict[str, Callable[[], Any]], prepare: Callable[[str], None] = unprepared
    ) -> dict[str, Times]:
        """Return the times of steps that take turns."""
        return self.clock.compare(steps, self.rng, prepare)


class Full:
    """A dense policy, by which others are divided, and rows of tables for what is compared with it."""

    def __init__(self, bench: Bench, prompt: PromptShape) -> None:
        self.bench, self.prompt = bench, prompt
        self.recorder, self.sight, self.decoder = bench.recorder(), bench.sight(prompt), bench.decoder(prompt)
        self.answer = bench.model.answer(prompt, self.decoder)
        self.buckets = Buckets(prompt.layout, prompt.n_given, bench.device)
        self.policy = self.with_saving(Saving())
        self.show = bench.pictures(prompt)

    def with_saving(self, saving: Saving, gate: Gate | None = None, watch: Watch | None = None) -> StaticPolicy:
        """Return a policy on the same buffers that leaves out something."""
        answer = self.answer if saving.cut is None else self.bench.model.answer(self.prompt, self.decoder, saving.cut)
        return StaticPolicy(self.sight, self.decoder, answer, self.recorder, saving, gate, watch)

    def fastv(self, share: float, published_layer: int = DELETION_LAYER) -> StaticPolicy:
        """Return a policy that deletes rows by the attention of the prompt's last row."""
        layout, cut = self.prompt.layout, self.bench.deletion_layer(published_layer)
        looked = torch.zeros(layout.n_visual, device=self.bench.device)
        watch = Watch(cut - 1, slice(layout.proprio, layout.proprio + 1), looked)
        return self.with_saving(Saving((self.buckets.reusing(share),), cut), watch=watch)

    def lac(self) -> tuple[StaticPolicy, LacGate]:
        """Return a policy whose gates choose the bucket, and the gates."""
        gate = LacGate(self.bench.model.gates, self.sight.images, self.buckets)
        sizes = dict.fromkeys(self.buckets.reusing(ratio) for ratio in RATIOS)
        return self.with_saving(Saving(tuple(sizes)), gate), gate

    def acting(self, policy: StaticPolicy) -> Callable[[], Any]:
        """Return the step of a policy that is shown the next pictures."""
        return lambda: policy.act(self.show())

    def rows(
        self, table: str, policies: dict[str, tuple[StaticPolicy, dict[str, Any]]], lac: LacGate | None = None
    ) -> None:
        """Measure policies beside the full one and add a row for each.

        Args:
            table: To which rows are added.
            policies: By name, each with what the row says besides; `share` is what it is asked to leave out.
            lac: Gates that are told a policy's share before its turn.
        """
        every = {"full": (self.policy, {"share": 0.0, "verb": "none"})} | policies

        def prepare(name: str) -> None:
            if lac is not None and every[name][1].get("gate") == "lac":
                lac.force(every[name][1]["share"])

        waited: dict[str, list[float]] = {name: [] for name in every}

        def act(name: str) -> None:
            every[name][0].act(self.show())
            waited[name].append(every[name][0].waited_ms)

        acted = self.bench.compare({name: partial(act, name) for name in every}, prepare)
        buckets = {name: self._bucket(*every[name]) for name in every}
        thought = self.bench.compare({name: every[name][0].think[buckets[name]] for name in every})
        for name, (_, said) in every.items():
            self._row(table, name, said, buckets[name], thought, acted, float(np.median(waited[name])))

    def _bucket(self, policy: StaticPolicy, said: dict[str, Any]) -> int:
        return self.buckets.reusing(said["share"]) if len(policy.think) > 1 else next(iter(policy.think))

    def _row(
        self, table: str, name: str, said: dict[str, Any], bucket: int, thought: dict[str, Times],
        acted: dict[str, Times], waited_ms: float,
    ) -> None:  # fmt: skip
        bench, layout = self.bench, self.prompt.layout
        cut = said.get("layer") if said["verb"] == "delete" else None
        stage = roofline.of_prefill(self.decoder, bucket, self.answer.n_wanted, cut)
        ceilings = bench.ceilings
        decoder, low, high = speed_up(thought["full"].device_ms, thought[name].device_ms, bench.rng)
        policy, policy_low, policy_high = speed_up(acted["full"].wall_ms, acted[name].wall_ms, bench.rng)
        bench.ledger.add(
            table, shape=self.prompt.name, variant=name, **said, rows=bucket, of_rows=self.prompt.n_given,
            left_out=1 - (bucket - self.buckets.n_rest) / layout.n_visual, prefill_gflop=stage.flops / 1e9,
            prefill_gbyte=stage.n_bytes / 1e9, floor_ms=stage.floor_ms(ceilings) if ceilings else float("nan"),
            decoder_speed_up=decoder, decoder_low=low, decoder_high=high, policy_speed_up=policy,
            policy_low=policy_low, policy_high=policy_high, waited_ms=waited_ms,
            **thought[name].summary("decoder"), **acted[name].summary("policy"),
            step_ms=float(np.median(acted[name].wall_ms)) / self.prompt.chunk,
        )  # fmt: skip


def check(bench: Bench) -> None:
    """Compare every kind of step with the token cache at a small size; leave out what fails."""
    variants = {
        "eager": (PLAIN, False, False), "recorded": (PLAIN, True, False),
        "recorded, compiled": (bench.kernels, True, False), "recorded, compiled, 8 bits": (bench.kernels, True, True),
    }  # fmt: skip
    for name, variant in variants.items():
        found = bench.ledger.attempt(f"check of {name}", partial(_checked, bench, variant))
        worst = max(found or [], key=lambda one: one.error / one.limit, default=None)
        failed = [one for one in found or [] if not one.passed]
        passed = found is not None and not failed
        state = "PASSED" if passed else "FAILED"
        print(f"check {name}: {state}, worst {worst}", flush=True)
        bench.ledger.tell(**{f"check {name}": f"{state}; worst: {worst}; failed: {failed[:5]}"})
        if not passed and name == "recorded, compiled":
            bench.kernels, bench.fast_sight = PLAIN, False
            bench.ledger.tell(fallback="compiled kernels failed their check: everything below is not compiled")
    bench.ledger.attempt("compiled towers", lambda: _check_sight(bench))


def _checked(bench: Bench, variant: tuple[Kernels, bool, bool]) -> list[Check]:
    return list(checks(bench.device, {"": variant}))


def _check_sight(bench: Bench) -> None:
    """Compare compiled towers, recorded on two streams, with plain ones; go on with the plain ones if they differ."""
    works = False
    try:
        prompt = bench.prompt("openvla-oft")
        plain, fast = bench.model.sight(prompt), bench.sight(prompt)
        plain.images.copy_(bench.pictures(prompt)())
        fast.images.copy_(plain.images)
        wanted, found = plain.rows(), bench.recorder().record(fast.rows)()
        error = float((found - wanted).norm() / wanted.norm())
        works = error < 0.05
        bench.ledger.tell(towers_error=f"{error:.2e}")
        print(f"check towers: error {error:.2e}", flush=True)
    finally:
        if not works:
            bench.fast_sight = False
            bench.ledger.tell(fallback_towers="compiled towers failed their check: plain ones are used")


def measure_roofline(bench: Bench) -> None:
    """Measure the machine's ceilings."""
    sizes = {"side": 256, "n_bytes": 1 << 22} if bench.small else {}
    bench.ceilings = found = roofline.Ceilings.measured(bench.clock, **sizes)
    for name, value, unit in (
        ("copy", found.copied / 1e9, "GB/s read and written"), ("read", found.read / 1e9, "GB/s"),
        ("product bf16", found.wide / 1e12, "TFLOP/s"), ("product fp8", found.narrow / 1e12, "TFLOP/s"),
    ):  # fmt: skip
        bench.ledger.add("roofline", what=name, value=value, unit=unit)


def ladder(bench: Bench, prompt: PromptShape) -> None:
    """Measure the dense policy from stock code to the fastest, a rung at a time, and its stages beside their floors."""
    rungs: dict[str, tuple[Callable[[], Any], Callable[[], Any], float]] = {}

    def built(kernels: Kernels, graphs: bool, fast: bool, narrow: bool) -> tuple[Callable, Callable, float]:
        before = _reserved_gb(bench.device)
        decoder = bench.model.decoder(prompt, kernels, bench.narrow if narrow else None)
        answer = bench.model.answer(prompt, decoder)
        policy = StaticPolicy(bench.model.sight(prompt, fast), decoder, answer, bench.recorder(graphs))
        show = bench.pictures(prompt)

        def thought() -> None:
            policy.think[prompt.n_given]()
            for _ in range(answer.n_more if policy.more else 0):
                policy.more() if policy.more else None

        return thought, lambda: policy.act(show()), _reserved_gb(bench.device) - before

    settings = {
        "static": (PLAIN, False, False, False), "+ graphs": (PLAIN, True, False, False),
        "+ compiled": (bench.kernels, True, bench.fast_sight, False),
        "+ 8-bit weights": (bench.kernels, True, bench.fast_sight, True),
    }  # fmt: skip
    stock = bench.ledger.attempt("stock", lambda: _stock(bench, prompt))
    if stock is not None:
        rungs["stock"] = stock
    for name, setting in settings.items():
        rung = bench.ledger.attempt(f"ladder {prompt.name} {name}", lambda setting=setting: built(*setting))
        if rung is not None:
            rungs[name] = rung
    times = bench.compare({f"{name}|{part}": rung[part] for name, rung in rungs.items() for part in (0, 1)})
    for name, rung in rungs.items():
        narrow = name.endswith("weights")
        bench.ledger.add(
            "ladder", shape=prompt.name, rung=name, floor_ms=_dense_floor_ms(bench, prompt, narrow),
            **times[f"{name}|0"].summary("decoder"), **times[f"{name}|1"].summary("policy"),
            step_ms=float(np.median(times[f"{name}|1"].wall_ms)) / prompt.chunk, own_gb=rung[2],
        )  # fmt: skip


def _stock(bench: Bench, prompt: PromptShape) -> tuple[Callable[[], Any], Callable[[], Any], float]:
    """Return decoder and policy steps of unmodified `transformers` on the same weights."""
    model, decoder = StockLlama(bench.model.weights), bench.model.decoder(prompt, PLAIN)
    sight, answer, show = bench.model.sight(prompt), bench.model.answer(prompt, decoder), bench.pictures(prompt)
    x = decoder.rows[: prompt.n_given]

    @torch.no_grad()
    def thought() -> torch.Tensor:
        if not prompt.one_pass:
            return model.tokens(x, answer.actions.shape[1])
        answer.begin(model.one_pass(x, bidirectional=True)[-answer.n_wanted :])
        return answer.actions

    @torch.no_grad()
    def acted() -> torch.Tensor:
        sight.images.copy_(show(), non_blocking=True)
        x[prompt.layout.visual].copy_(sight.rows())
        return thought().cpu()

    acted()
    return thought, acted, 0.0


def _dense_floor_ms(bench: Bench, prompt: PromptShape, narrow: bool) -> float:
    """Return the least time of the decoder and of all its tokens [ms]."""
    if bench.ceilings is None:
        return float("nan")
    decoder = bench.decoder(prompt, narrow)
    answer = bench.model.answer(prompt, decoder)
    floor = roofline.of_prefill(decoder, prompt.n_given, answer.n_wanted).floor_ms(bench.ceilings, narrow)
    return floor + answer.n_more * roofline.of_one_more(decoder).floor_ms(bench.ceilings)


def _reserved_gb(device: torch.device) -> float:
    return torch.cuda.memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0


def reuse(bench: Bench, prompt: PromptShape) -> None:
    """Measure reuse by LAC's gates and deletion by attention at the same shares, and the stages of a step."""
    full = Full(bench, prompt)
    lac, gate = full.lac()
    policies: dict[str, tuple[StaticPolicy, dict[str, Any]]] = {
        f"reuse {share}": (lac, {"share": share, "verb": "reuse", "gate": "lac"}) for share in RATIOS
    }
    layer = bench.deletion_layer()
    for share in RATIOS[1:]:
        policy = bench.ledger.attempt(f"delete {share}", lambda share=share: full.fastv(share))
        if policy is not None:
            policies[f"delete {share}"] = (policy, {"share": share, "verb": "delete", "gate": "fastv", "layer": layer})
    full.rows("reuse", policies, gate)
    gate.force(REUSED)
    for name, policy in (("full", full.policy), (f"reuse {REUSED}", lac)):
        _stages(bench, full, name, policy)


def _stages(bench: Bench, full: Full, name: str, policy: StaticPolicy) -> None:
    """Add the stages of a step beside the floor of each."""
    times = bench.clock.stages(lambda mark: policy.act(full.show(), mark))
    floors: dict[str, float] = {}
    if bench.ceilings is not None:
        sight = roofline.of_sight(bench.model.towers, bench.model.projector, full.prompt.layout.n_views)
        prefill = roofline.of_prefill(full.decoder, policy.bucket, full.answer.n_wanted)
        floors["vision"] = sum(stage.floor_ms(bench.ceilings) for stage in sight.values())
        floors["prefill"] = prefill.floor_ms(bench.ceilings)
        floors["decode"] = full.answer.n_more * roofline.of_one_more(full.decoder).floor_ms(bench.ceilings)
    for stage, took in times.items():
        floor = floors.get(stage, 0.0)
        bench.ledger.add(
            "stages", shape=full.prompt.name, variant=name, stage=stage, ms=took, floor_ms=floor,
            of_floor=took / floor if floor else float("nan"),
        )  # fmt: skip


def methods(bench: Bench, prompt: PromptShape) -> None:
    """Measure the methods at several budgets: their own decision where it is made here, else the decoder alone."""
    full = Full(bench, prompt)
    images, layout = full.sight.images, prompt.layout
    relevant = 4 * layout.rows_per_view // 10
    cached = VlaCacheGate(images, layout.grid, relevant)
    watch = Watch(at_depth(15, bench.n_layers), layout.text, cached.looked)
    gates: dict[str, tuple[Gate, Watch | None, str]] = {
        "random": (RandomGate(layout.n_visual, bench.device), None, "all"),
        "pixel-difference": (PixelGate(images, layout.grid), None, "all"),
        "vla-cache": (cached, watch, "similarity and attention; no schedule of layers"),
    }
    lac, lac_gate = full.lac()
    fixed = RandomGate(layout.n_visual, bench.device)
    policies: dict[str, tuple[StaticPolicy, dict[str, Any]]] = {}

    def add(name: str, share: float, policy: StaticPolicy | None, **said: Any) -> None:
        if policy is not None:
            policies[f"{name}:{share}"] = (policy, {"method": name, "share": share} | said)

    for share in BUDGETS:
        bucket = full.buckets.reusing(share)
        for name, (gate, looks, decision) in gates.items():
            policy = bench.ledger.attempt(
                f"{name}:{share}",
                lambda bucket=bucket, gate=gate, looks=looks: full.with_saving(Saving((bucket,)), gate, looks),
            )
            add(name, share, policy, verb="reuse", decision=decision)
        add("lac", share, lac, verb="reuse", gate="lac", decision="all, flow 'difference'; no recovery")
        policy = bench.ledger.attempt(f"fastv:{share}", lambda share=share: full.fastv(share))
        add("fastv", share, policy, verb="delete", layer=bench.deletion_layer(), decision="all")
        for name, published in REPLAYED.items():
            layer = bench.deletion_layer(published)
            policy = bench.ledger.attempt(
                f"{name}:{share}",
                lambda bucket=bucket, layer=layer: full.with_saving(Saving((bucket,), layer), fixed),
            )
            add(name, share, policy, verb="delete", layer=layer, decision="none: mask replayed, by chance")
    full.rows("methods", policies, lac_gate)


FACTORS = ("reuse", "one-pass", "graphs", "8-bit weights", "action reuse")


def factorial(bench: Bench) -> None:
    """Measure all combinations of what is said to save time, for one action of seven numbers from two pictures.

    Action reuse skips every second query: half the time by definition, once that is amortised, whatever the rest is.
    """
    rows = bench.model.rows_per_view
    prompts = {True: openvla_oft(1, rows), False: openvla(rows, n_views=2)}
    steps: dict[tuple[bool, ...], Callable[[], Any]] = {}
    for one_pass, graphs, narrow in product((False, True), repeat=3):
        prompt = prompts[one_pass]
        decoder, sight, recorder = bench.decoder(prompt, narrow), bench.sight(prompt), bench.recorder(graphs)
        answer, show = bench.model.answer(prompt, decoder), bench.pictures(prompt)
        buckets = Buckets(prompt.layout, prompt.n_given, bench.device)
        gate = PixelGate(sight.images, prompt.layout.grid)
        for reused in (False, True):
            saving = Saving((buckets.reusing(REUSED),)) if reused else Saving()
            policy = bench.ledger.attempt(
                f"factorial {reused, one_pass, graphs, narrow}",
                lambda s=sight, d=decoder, a=answer, r=recorder, saving=saving, g=gate if reused else None: (
                    StaticPolicy(s, d, a, r, saving, g)
                ),
            )
            if policy is not None:
                steps[reused, one_pass, graphs, narrow] = lambda policy=policy, show=show: policy.act(show())
    times = bench.compare({repr(setting): step for setting, step in steps.items()})
    medians: dict[tuple[bool, ...], float] = {}
    for setting in steps:
        for skips in (False, True):
            own = times[repr(setting)]
            took = float(np.median(own.wall_ms)) * (0.5 if skips else 1.0)
            medians[*setting, skips] = took
            said = dict(zip(FACTORS, (*setting, skips), strict=True))
            bench.ledger.add("factorial", kind="cell", **said, step_ms=took, device_ms=float(np.median(own.device_ms)))
    if len(medians) < 2 ** len(FACTORS):
        return
    for factors, ratio in effects(medians, FACTORS).items():
        if len(factors) < 4:
            bench.ledger.add("factorial", kind="effect" if len(factors) == 1 else "interaction",
                             of=" x ".join(factors), time_ratio=ratio)  # fmt: skip


def energy(bench: Bench, prompt: PromptShape) -> None:
    """Measure energy and power of the main variants."""
    meter, full = EnergyMeter(bench.device), Full(bench, prompt)
    narrow = bench.decoder(prompt, narrow=True)
    lac, gate = full.lac()
    gate.force(REUSED)
    steps = {
        "full": full.acting(full.policy),
        f"reuse {REUSED}": full.acting(lac),
        "delete 0.6": full.acting(full.fastv(0.6)),
        "full, 8-bit weights": full.acting(
            StaticPolicy(full.sight, narrow, bench.model.answer(prompt, narrow), full.recorder)
        ),
    }
    for name, step in steps.items():
        found = bench.ledger.attempt(f"energy {name}", lambda step=step: meter.of(step))
        if found is not None:
            bench.ledger.add("energy", shape=prompt.name, variant=name, **found)
    bench.ledger.add("energy", shape=prompt.name, variant="idle", watt=meter.idle_w())


RUNS: dict[str, Callable[..., None]] = {
    "check": check, "roofline": measure_roofline, "ladder": ladder, "reuse": reuse, "methods": methods,
    "factorial": factorial, "energy": energy,
}  # fmt: skip

PRINTED = {
    "methods": ("shape", "variant", "rows", "decoder_ms", "policy_wall_ms", "policy_speed_up"),
    "factorial": ("kind", "of", "time_ratio"),
    "energy": ("shape", "variant", "joule", "watt", "ms"),
    "stages": ("shape", "variant", "stage", "ms", "floor_ms"),
    "reuse": ("shape", "variant", "rows", "floor_ms", "decoder_ms", "policy_wall_ms", "decoder_speed_up",
              "policy_speed_up", "waited_ms"),
    "ladder": ("shape", "rung", "decoder_ms", "floor_ms", "policy_ms", "policy_wall_ms", "step_ms"),
    "roofline": ("what", "value", "unit"),
}  # fmt: skip
"""Columns that are printed, what matters most last."""


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for at most eight small files; it is made")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no section begins (default: 7)")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: cuda; never chosen for you)")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES), help="models (default: both)")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what is measured")
    parser.add_argument("--repetitions", type=int, default=50, help="of every step that is timed (default: 50)")
    parser.add_argument("--small", action="store_true", help="tiny networks, to test the script")
    parser.add_argument("--plain", action="store_true", help="compile nothing")
    return parser.parse_args(arguments)


def wanted(entry: str, options: argparse.Namespace) -> bool:
    """Return whether an entry of the plan is asked for."""
    section, _, shape = entry.partition(" ")
    return section in options.sections and (not shape or shape.removesuffix("-25") in options.shape)


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    """Run the sections that fit into the time, and print the tables."""
    options = read_options(arguments)
    bench = Bench(options)
    for entry in (one for one in PLAN if wanted(one, options)):
        section, _, shape = entry.partition(" ")
        if perf_counter() > bench.until:
            bench.ledger.tell(**{f"skipped {entry}": "no time left"})
            print(f"skipped {entry}: no time left", flush=True)
            continue
        began = perf_counter()
        given = (bench, bench.prompt(shape)) if shape else (bench,)
        bench.ledger.attempt(entry, partial(RUNS[section], *given))
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
            bench.ledger.tell(peak_reserved_gb=f"{torch.cuda.max_memory_reserved() / 1e9:.1f}")
        bench.ledger.tell(**{f"seconds {entry}": round(perf_counter() - began, 1)})
        print(f"{entry}: {perf_counter() - began:.1f} s, {perf_counter() - bench.began:.0f} s in all", flush=True)
    for table, names in PRINTED.items():
        bench.ledger.print_table(table, names)
    for error in bench.ledger.errors:
        print(f"ERROR {error['what']}: {error['error'][:200]}")
    failed = [name for name, said in bench.ledger.facts.items() if str(said).startswith("FAILED")]
    if failed:
        raise SystemExit(f"{', '.join(failed)} FAILED: read run.json before any number")


if __name__ == "__main__":
    main()
