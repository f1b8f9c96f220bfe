"""The command line of SIMPLER: `vla-bench simpler-fetch`."""

from dataclasses import dataclass

from vla_bench_envs.simpler import assets
from vla_bench_envs.simpler.download import fetch, sources


@dataclass(frozen=True)
class Fetch:
    """Download the official meshes and photographs to ManiSkill's asset folder (MS_ASSET_DIR); goes on after a stop."""

    def run(self) -> int:
        """Fetch what is not there."""
        for source in sources(assets.folder()):
            done = fetch(source)
            print(f"{'fetched' if done else 'there already'}: {source.target}")
        assets.check()
        return 0
