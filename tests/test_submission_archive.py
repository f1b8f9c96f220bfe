"""A pack is a zip that nobody trusts: whatever was done to its bytes is found, and nothing outside is written."""

import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_submission import SMALL, content, packed, quickly

from vla_bench.submission import PackError, archive, claims, examine, opened


@pytest.fixture(scope="module", autouse=True)
def _quickly() -> Iterator[None]:
    with quickly():
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pack of two episodes; not to be changed."""
    return packed(tmp_path_factory.mktemp("small"), SMALL)


def test_every_byte_of_a_pack_counts(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped byte is found, or lies where no content is."""
    monkeypatch.setattr(claims, "differences", lambda root: ([], 0))  # without any help of the figures
    whole, files = small.read_bytes(), content(small)
    path = tmp_path / "flipped.zip"
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(small) as opened_pack:
        frame = [entry.header_offset + byte for entry in opened_pack.infolist() for byte in range(30)]
        frame += range(opened_pack.start_dir, len(whole))
    for position in [*frame[:: max(1, len(frame) // 150)], *rng.integers(0, len(whole), 150)]:
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        if not examine(path).found:  # the last bits of a compressed file that are not used
            assert position not in frame
            assert content(path) == files


def test_a_pack_that_was_cut_anywhere_is_refused(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    for end in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
        (tmp_path / "cut.zip").write_bytes(whole[:end])
        (found,) = examine(tmp_path / "cut.zip").found
        assert found.startswith("it is no zip, or one that was cut or damaged (")
    with pytest.raises(PackError, match="cannot be read as a pack"):
        opened(tmp_path / "cut.zip")


def zipped(path: Path, entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> list[str]:
    """Write a zip as others would, and return what is found in it."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archived:
        warnings.simplefilter("ignore")  # of duplicate names
        for name, file in entries:
            entry = zipfile.ZipInfo(name, archive.MADE)
            entry.create_system, entry.external_attr, entry.compress_type = 3, 0o644 << 16, compression
            archived.writestr(entry, file)
    return examine(path).found


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "runs/../../evil", "runs/a/b/journal.jsonl", "C:\\evil", "runs/"]
)
def test_a_path_that_belongs_in_no_pack_is_refused_before_anything_is_unpacked(
    name: str, small: Path, tmp_path: Path
) -> None:
    found = zipped(tmp_path / "pack.zip", [*content(small).items(), (name, b"evil")])
    assert found[0] == f"{name!r} belongs in no pack"
    assert [path.name for path in tmp_path.iterdir()] == ["pack.zip"]


def test_entries_that_are_double_missing_or_stored_otherwise_are_named(small: Path, tmp_path: Path) -> None:
    entries, path = list(content(small).items()), tmp_path / "pack.zip"
    assert "'manifest.json' is in it 2 times" in zipped(path, [*entries, ("manifest.json", b"{}")])
    for name, _ in entries:
        found = zipped(path, [(other, file) for other, file in entries if other != name])
        assert f"{name!r} is missing" in found or "it holds no run" in found
    assert sum("was not written by" in one for one in zipped(path, entries, zipfile.ZIP_LZMA)) == len(entries)
    assert zipped(path, entries) == []


def test_bytes_that_belong_to_no_file_are_refused(small: Path, tmp_path: Path) -> None:
    whole, path = small.read_bytes(), tmp_path / "pack.zip"
    for changed in (b"hidden" + whole, whole + b"hidden", whole[:-2] + struct.pack("<H", 6) + b"hidden"):
        path.write_bytes(changed)
        assert examine(path).found


def test_a_bomb_is_refused_by_what_it_declares_and_by_what_it_holds(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    files = content(small)
    (found,) = zipped(path, list((files | {"claims/comparison.csv": bytes(1 << 26)}).items()))
    assert "would unpack to 671" in found
    whole = bytearray(small.read_bytes())
    with zipfile.ZipFile(small) as opened_pack:
        start = opened_pack.start_dir
    whole[start + 24 : start + 28] = struct.pack("<L", 0xFFFFFFF0)  # the declared size of the first file
    path.write_bytes(whole)
    assert any("would unpack to 4294" in one for one in examine(path).found)
    whole[start + 24 : start + 28] = whole[22:26] = struct.pack("<L", 10)  # less than it holds, in both its headers
    path.write_bytes(whole)
    assert any("is damaged" in one for one in examine(path).found)


def test_too_many_files_and_too_large_a_pack_are_refused(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    assert examine(small).found == ["it holds 4 files; at most 2 are read"]
    monkeypatch.setattr(archive, "MAX_PACK_BYTES", 100)
    assert examine(small).found == [f"it has {small.stat().st_size} bytes; at most 100 are read"]


def test_what_no_deflate_stream_is_made_of_is_no_traceback(small: Path, tmp_path: Path) -> None:
    whole = bytearray(small.read_bytes())
    with zipfile.ZipFile(small) as opened_pack:
        entry = opened_pack.getinfo("manifest.json")
    begin = entry.header_offset + 30 + len(entry.filename)
    whole[begin : begin + entry.compress_size] = b"\xff" * entry.compress_size
    (tmp_path / "pack.zip").write_bytes(whole)
    assert examine(tmp_path / "pack.zip").found[0].startswith("'manifest.json' is damaged (error: Error -3")
    assert zlib.error in archive.BROKEN
