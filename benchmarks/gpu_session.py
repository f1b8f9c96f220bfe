"""Do all that waits for a GPU in the minutes for which one is there: `make gpu`.

    python benchmarks/gpu_session.py --pack results/gpu-pack --out results/released/gpu          # at most 25 minutes
    python benchmarks/gpu_session.py --pack results/gpu-pack --out results/gpu-try --device cpu --small --minutes 5

    part        minutes   what it does, and what it leaves
    steps         9       benchmarks/gpu_steps.py: a 7B step piece by piece; ladder, reuse, methods, stages, factorial,
                          energy, roofline
    reference     5       benchmarks/gpu_reference.py: the reference VLA under every method and budget, with success
    train         8       `train reference --preset gpu` on the pack's demonstrations; its best weights so far
    gates         2       `train lac --stage 1` for these weights

It needs no network and no simulator, and no installation: torch, transformers, NumPy, SciPy, pandas, pyarrow, Pillow,
matplotlib, OpenCV, safetensors, tokenizers, jaxtyping, msgpack, tabulate, jinja2 and tqdm have to be there, as on most
machines of the kind; `--pack`, made before, anywhere, by `make gpu-pack`, has wheels of the rest and recorded
demonstrations. Where `vla-bench` is installed nothing is put anywhere.

A part that has not finished in time is interrupted and keeps what it has written; a part that fails does not stop the
others. `session.json` says how each has ended. Exit status: 0 if all have, 1 if not.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).parent
MINUTES = 25.0
"""Of device time for everything, as the project promises."""

LEAST_S = 20.0
"""Time with which a part is still begun."""

PATIENCE_S = 20.0
"""For a part that has been interrupted to write what it has; counted in its time."""

STEPS = "4000"
"""Of training: a third of the preset's, whose twenty minutes are an estimate."""

RECORDINGS = "libero-object-fast"
"""Folder of the pack with demonstrations."""


@dataclass(frozen=True)
class Part:
    """A command with its share of the time."""

    name: str
    minutes: float
    command: tuple[str, ...]


@dataclass
class Ending:
    """How a part has ended."""

    name: str
    ended: str
    """`finished`, `failed`, `interrupted` or `skipped`."""
    seconds: float = 0.0
    status: int | None = None
    command: str = ""


def parts(options: argparse.Namespace) -> tuple[Part, ...]:
    """Return what is to be done, most important first."""
    data, out, work = options.pack / RECORDINGS, options.out, options.work
    device = ("--device", options.device)
    small = ("--small", "--plain", "--repetitions", "1") if options.small else ()
    few = ("--method", "full", "--method", "random:0.6") if options.small else ()
    steps = ("--steps", "2") if options.small else ()
    many = steps or ("--steps", STEPS)
    cli = (sys.executable, "-m", "vla_bench.cli")
    weights = work / "reference" / "checkpoint.safetensors"
    common = ("--data", str(data), "--cache", str(work / "frames"), *device)
    return (
        Part("steps", 9, (
            sys.executable, str(HERE / "gpu_steps.py"), "--out", str(out), "--minutes", "8", *device, *small,
        )),
        Part("reference", 5, (
            sys.executable, str(HERE / "gpu_reference.py"), "--data", str(data), "--out", str(out), "--minutes", "4",
            "--work", str(work / "replay"), "--success", *map(str, options.success), *device, *few,
        )),
        Part("train", 8, (
            *cli, "train", "reference", "--preset", "gpu", "--out", str(weights.parent), *common, *many,
        )),
        Part("gates", 2, (
            *cli, "train", "lac", "--policy", str(weights), "--stage", "1", "--flow", "difference", "--out",
            str(work / "gates"), *common, *steps,
        )),
    )  # fmt: skip


def do(every: Iterable[Part], minutes: float, environment: Mapping[str, str], log: Path) -> list[Ending]:
    """Run parts one after the other until the time is up, and write after each how it has ended."""
    until, endings = perf_counter() + 60 * minutes, []
    for part in every:
        left = min(60 * part.minutes, until - perf_counter())
        ending = Ending(part.name, "skipped") if left < LEAST_S else run(part, left, environment)
        endings.append(ending)
        log.write_text(json.dumps([asdict(one) for one in endings], indent=1) + "\n")
        print(f"== {ending.name}: {ending.ended}, {ending.seconds:.0f} s", flush=True)
    return endings


def run(part: Part, seconds: float, environment: Mapping[str, str]) -> Ending:
    """Run one part; interrupt it shortly before its time is up, and kill it then."""
    began = perf_counter()
    print(f"== {part.name}: {' '.join(part.command)}", flush=True)
    with subprocess.Popen(part.command, env=dict(environment), start_new_session=True) as process:
        ended = "finished"
        try:
            process.wait(max(0.0, seconds - PATIENCE_S))
        except subprocess.TimeoutExpired:
            ended = "interrupted"
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    if ended == "finished" and status:
        ended = "failed"
    return Ending(part.name, ended, round(perf_counter() - began, 1), status, " ".join(part.command))


def environment_for(pack: Path, work: Path) -> dict[str, str]:
    """Return the environment of the parts: as it is where `vla-bench` is installed, else made for this tree.

    Then the tree itself is what is imported, and a folder beside it has the pack's wheels, and what an installation
    would say of the tree: names of policies and methods are found by that.

    Raises:
        SystemExit: If the pack's wheels cannot be installed.
    """
    environment = {"OMP_NUM_THREADS": str(os.cpu_count() or 1), "PYTHONUNBUFFERED": "1", **os.environ}
    if is_installed(environment):
        return environment
    site, tree = (work / "site").resolve(), HERE.parent
    wheels = sorted((pack / "wheels").glob("*.whl"))
    if wheels:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]
        if subprocess.run([*install, "--target", str(site), *map(str, wheels)], check=False).returncode:
            raise SystemExit(f"the wheels in {pack / 'wheels'} cannot be installed; expected some for {sys.executable}")
    describe(tree / "pyproject.toml", site)
    paths = (site, tree, tree / "envs", tree / "policies", os.environ.get("PYTHONPATH", ""))
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, map(str, paths)))}


def is_installed(environment: Mapping[str, str]) -> bool:
    """Tell whether an installation of `vla-bench` is found."""
    asks = "from importlib.metadata import distribution; distribution('vla-bench')"
    done = subprocess.run([sys.executable, "-c", asks], env=dict(environment), capture_output=True, check=False)
    return done.returncode == 0


def describe(project: Path, site: Path) -> None:
    """Write what an installation says of a project: its name, version and entry points."""
    said = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    folder = site / f"{said['name'].replace('-', '_')}-{said['version']}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {said['name']}\nVersion: {said['version']}\n")
    groups = said["entry-points"] | {"console_scripts": said["scripts"]}
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in entries.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, default=Path("results/gpu-pack"), help="made by 'make gpu-pack'")
    parser.add_argument("--out", type=Path, default=Path("results/released/gpu"), help="folder of the tables")
    parser.add_argument("--work", type=Path, default=Path("results/gpu"), help="folder of weights, frames, journals")
    parser.add_argument("--success", type=Path, nargs="*", default=[Path("results/released/main")],
                        help="episodes whose success is set beside the times")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all parts together (default: 25)")
    parser.add_argument("--part", action="append", help="do only these")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: cuda; never chosen for you)")
    parser.add_argument("--small", action="store_true", help="tiny, for a rehearsal on a processor")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Do the parts; 1 if one of them has not finished."""
    options = read_options(arguments)
    wanted = [part for part in parts(options) if not options.part or part.name in options.part]
    if unknown := sorted(set(options.part or ()) - {part.name for part in wanted}):
        raise SystemExit(f"no part named {unknown[0]!r}; known: {', '.join(part.name for part in parts(options))}")
    if not (options.pack / RECORDINGS).is_dir() and {part.name for part in wanted} != {"steps"}:
        raise SystemExit(f"{options.pack} has no {RECORDINGS}; expected demonstrations: run 'make gpu-pack' before")
    options.out.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    environment = environment_for(options.pack, options.work)
    endings = do(wanted, options.minutes, environment, options.out / "session.json")
    return 0 if all(ending.ended == "finished" for ending in endings) else 1


if __name__ == "__main__":
    sys.exit(main())
