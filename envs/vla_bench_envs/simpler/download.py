"""Official assets from ManiSkill's own list of sources, with what its downloader lacks.

It goes on where it stopped, and a folder that is there is complete.
"""

import hashlib
import logging
import shutil
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from vla_bench.progress import Progress
from vla_bench_envs.simpler.errors import DownloadError

log = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60.0
"""Without a byte, after which a download counts as stopped."""


@dataclass(frozen=True)
class Source:
    """An archive and where its one folder goes."""

    url: str
    target: Path
    """Folder that the archive's only folder becomes."""
    sha256: str | None
    """Of the archive; None where ManiSkill gives none, and the archive's own checksums must do."""


def fetch(source: Source, show_progress: bool | None = None) -> bool:
    """Put an archive's folder in its place, and say whether there was anything to do; goes on where it stopped.

    Raises:
        DownloadError: If it does not come, or is not what it should be.
    """
    if source.target.exists():
        return False
    source.target.parent.mkdir(parents=True, exist_ok=True)
    partial = source.target.with_name(f"{source.target.name}.zip.partial")
    _receive(source.url, partial, show_progress)
    _check(source, partial)
    _unpack(source, partial)
    partial.unlink()
    return True


def _receive(url: str, partial: Path, show_progress: bool | None) -> None:
    """Append what is missing to a file."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            goes_on = answer.status == 206
            have = have if goes_on else 0
            length = int(answer.headers.get("Content-Length") or 0)
            bar = Progress(
                total=have + length or None,
                initial=have,
                unit="B",
                unit_scale=True,
                desc=partial.name.removesuffix(".zip.partial"),
                show=show_progress,
            )
            with bar, partial.open("ab" if goes_on else "wb") as stream:
                n_bytes = 0
                while block := answer.read(BLOCK_BYTES):
                    n_bytes += stream.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as caught:
        if have and caught.code == 416:  # nothing is missing
            return
        raise DownloadError(url, f"the server answers {caught.code} {caught.reason}") from caught
    except OSError as caught:
        raise DownloadError(url, f"{type(caught).__name__}: {caught}") from caught
    if n_bytes < length:
        raise DownloadError(url, f"ended after {have + n_bytes} of {have + length} bytes")


def _check(source: Source, archive: Path) -> None:
    """Refuse an archive that is not what it should be; it is removed, since nothing can be added to it."""
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if source.sha256 not in (None, found):
        archive.unlink()
        raise DownloadError(source.url, f"its SHA-256 is {found}, expected {source.sha256}; what came is removed")
    if source.sha256 is None:
        log.info("%s has no known checksum; its SHA-256 is %s", source.url, found)


def _unpack(source: Source, archive: Path) -> None:
    """Unpack beside the target, then rename: a folder that is there is complete."""
    with TemporaryDirectory(dir=source.target.parent, prefix=".unpacking-") as scratch:
        try:
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(scratch)
        except zipfile.BadZipFile as caught:
            archive.unlink()
            raise DownloadError(source.url, f"is no sound archive ({caught}); what came is removed") from caught
        inside = [path for path in Path(scratch).iterdir() if path.name != "__MACOSX"]
        if len(inside) != 1 or not inside[0].is_dir():
            raise DownloadError(source.url, f"holds {sorted(path.name for path in inside)}, expected one folder")
        shutil.move(str(inside[0]), source.target)


def sources(folder: Path) -> list[Source]:
    """Return the archives that the WidowX tasks need, from ManiSkill's own list.

    Raises:
        MissingSimulatorError: If ManiSkill is not installed.
    """
    from vla_bench_envs.simpler.startup import asset_sources

    return [
        Source(found.url, folder / str(found.target_path), found.checksum)
        for found in (asset_sources()[name] for name in ("bridge_v2_real2sim", "widowx250s"))
    ]
