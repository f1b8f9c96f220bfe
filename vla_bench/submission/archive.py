"""A pack as a file: a zip whose bytes follow from its content, and that is not trusted when it is read."""

import io
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from vla_bench.errors import OptionError, ResultsWriteError, VlaBenchError
from vla_bench.submission import layout

MADE = (1980, 1, 1, 0, 0, 0)
"""Time of every entry, the first that a zip can hold: the same content makes the same bytes."""

MAX_PACK_BYTES = 1 << 29
MAX_UNPACKED_BYTES = 1 << 31
MAX_RATIO = 100
"""Unpacked size over packed size; journals have 4 to 15, repeated ones of a toy up to 40."""
SPARED_BYTES = 1 << 20
"""Unpacked size below which no ratio is asked for."""
MAX_FILES = 2000

LOCAL_BYTES = 30
"""Header of an entry, its name excluded. Source: PKWARE APPNOTE 6.3.10, section 4.3.7."""

UTF8_NAME = 0x800
"""Flag of an entry whose name is not ASCII. Source: as above, section 4.4.4."""

FIXED = (
    "filename", "date_time", "compress_type", "create_system", "create_version", "extract_version", "reserved",
    "volume", "internal_attr", "external_attr", "extra", "comment",
)  # fmt: skip
"""What every entry of a name has alike."""

BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError,
    OverflowError, LookupError,
)  # fmt: skip
"""What the standard library raises for a damaged zip, by the place of the damage."""


class PackError(VlaBenchError):
    """Refuse a file that is no untouched pack."""

    def __init__(self, pack: object, found: Sequence[str]) -> None:
        self.found = list(found)
        super().__init__(
            f"{pack} cannot be read as a pack: {'; '.join(self.found)}: ask for an untouched copy, or make it again "
            f"with 'vla-bench submit'"
        )


def packed(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of these files: sorted, one fixed time, deflated; equal for equal content and one zlib."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted(files):
            archive.writestr(_entry(name), files[name], compresslevel=9)
    return content.getvalue()


def write(path: Path, content: bytes) -> None:
    """Replace a file as a whole.

    Raises:
        ResultsWriteError: If it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as caught:
        raise ResultsWriteError(path, caught) from caught


@contextmanager
def unpacked(pack: Path) -> Iterator[Path]:
    """Unpack into a directory that is gone afterwards. Says nothing about hashes: see `manifest.check`.

    Raises:
        OptionError: If there is no such file.
        PackError: If it is no zip, or holds anything that a pack does not hold, before any of it is unpacked.
    """
    if not pack.is_file():
        raise OptionError("PACK", str(pack), "a file that 'vla-bench submit' wrote")
    if pack.stat().st_size > MAX_PACK_BYTES:
        raise PackError(pack, [f"it has {pack.stat().st_size} bytes; at most {MAX_PACK_BYTES} are read"])
    with TemporaryDirectory(prefix="vla-bench-pack-") as directory:
        if found := _extract(pack, Path(directory)):
            raise PackError(pack, found)
        yield Path(directory)


def _extract(pack: Path, root: Path) -> list[str]:
    """Unpack, and return what is wrong with entries; if there is anything wrong with their list, unpack nothing."""
    try:
        with zipfile.ZipFile(pack) as archive:
            entries = archive.infolist()
            if found := [*_wrong_names(entries), *_wrong_sizes(entries), *_wrong_frame(pack, archive)]:
                return found
            return [found for entry in entries if (found := _extract_one(archive, entry, root))]
    except BROKEN as caught:
        return [f"it is no zip, or one that was cut or damaged ({type(caught).__name__}: {caught})"]


def _extract_one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, root: Path) -> str:
    """Write one file, and return what is wrong with it; the standard library reads no more than was declared."""
    try:
        content = archive.read(entry)
        path = root / entry.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except BROKEN as caught:
        return f"{entry.filename!r} is damaged ({type(caught).__name__}: {caught})"
    return ""


def _wrong_names(entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    names = Counter(entry.filename for entry in entries)
    for name, n in names.items():
        if n > 1:
            yield f"{name!r} is in it {n} times"
        if layout.meaning(name) is None:
            yield f"{name!r} belongs in no pack"
    runs = {name.rpartition("/")[0] for name in names if name.startswith("runs/")}
    needed = [layout.MANIFEST, layout.SUMMARY, *(f"{run}/{name}" for run in sorted(runs) for name in layout.RUN_FILES)]
    yield from (f"{name!r} is missing" for name in needed if name not in names)
    if not runs:
        yield "it holds no run"


def _wrong_sizes(entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    if len(entries) > MAX_FILES:
        yield f"it holds {len(entries)} files; at most {MAX_FILES} are read"
    unpacked_bytes = sum(entry.file_size for entry in entries)
    packed_bytes = sum(entry.compress_size for entry in entries)
    most = min(MAX_UNPACKED_BYTES, max(SPARED_BYTES, MAX_RATIO * packed_bytes))
    if unpacked_bytes > most:
        yield f"its {packed_bytes} bytes would unpack to {unpacked_bytes}; at most {most} are unpacked"


def _wrong_frame(pack: Path, archive: zipfile.ZipFile) -> Iterator[str]:
    """Refuse what `packed` never writes: encryption, other compressions, and bytes that are in no entry or in two."""
    end, directory = 0, b""
    content = pack.read_bytes()
    for entry in sorted(archive.infolist(), key=lambda one: one.header_offset):
        expected = _entry(entry.orig_filename)
        plain = all(getattr(entry, name) == getattr(expected, name) for name in FIXED)
        if not plain or entry.flag_bits not in (0, UTF8_NAME):
            yield f"{entry.filename!r} was not written by 'vla-bench submit' (its flags, time, compression or mode)"
            continue
        header = entry.FileHeader(zip64=False)
        if entry.header_offset != end or content[end : end + len(header)] != header:
            yield f"{entry.filename!r} does not begin where and how its entry says"
        end = entry.header_offset + len(header) + entry.compress_size
        directory += _listed(entry, header)
    n_files = len(archive.infolist())
    directory += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, n_files, n_files, len(directory), end, 0)
    if archive.start_dir != end or content[end:] != directory:
        yield f"it does not end with the directory of its {n_files} files: {len(content)} bytes, {end} of them files"


def _listed(entry: zipfile.ZipInfo, header: bytes) -> bytes:
    """Return how the directory at the end repeats an entry's header. Source: APPNOTE 6.3.10, section 4.3.12."""
    made_by = struct.pack("<4sBB", b"PK\1\2", entry.create_version, entry.create_system)
    place = struct.pack("<3H2L", 0, 0, 0, entry.external_attr, entry.header_offset)
    return made_by + header[4:LOCAL_BYTES] + place + header[LOCAL_BYTES:]


def _entry(name: str) -> zipfile.ZipInfo:
    """Return how a file is entered, whoever packs it."""
    entry = zipfile.ZipInfo(name, MADE)
    entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
    return entry
