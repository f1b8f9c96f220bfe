"""Recorded: `mani_skill2_real2sim/__init__.py` says where the data lie, as a `pathlib.Path`."""

from pathlib import Path

ASSET_DIR = Path(__file__).parent.parent / "data"
