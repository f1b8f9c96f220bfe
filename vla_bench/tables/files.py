"""Tables as files: CSV with every column for programs, Markdown and LaTeX as a person reads them."""

from pathlib import Path

import pandas as pd

from vla_bench.errors import OptionError, ResultsWriteError

FORMATS = (".csv", ".md", ".tex")


def beside(source: Path, name: str) -> tuple[Path, ...]:
    """Return where a source's table is written if nobody says where: in it, or nowhere if it is a file (a pack)."""
    return () if source.is_file() else (source / name,)


def write(frame: pd.DataFrame, path: Path, shown: pd.DataFrame | None = None) -> None:
    """Replace a file as a whole, in the format that its suffix names.

    Args:
        frame: What CSV holds: all columns, limits of intervals in columns of their own.
        path: Ends in `.csv`, `.md` or `.tex`. LaTeX is a `tabular` for the package booktabs.
        shown: What Markdown and LaTeX hold, intervals in brackets; by default the same.

    Raises:
        OptionError: If the suffix is another one.
        ResultsWriteError: If the file cannot be written.
    """
    text = _content(frame, frame if shown is None else shown, path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        partial.replace(path)
    except OSError as caught:
        raise ResultsWriteError(path, caught) from caught


def _content(frame: pd.DataFrame, shown: pd.DataFrame, path: Path) -> str:
    match path.suffix:
        case ".csv":
            return frame.to_csv(index=False)
        case ".md":
            return shown.to_markdown(index=False, disable_numparse=True) + "\n"
        case ".tex":
            columns = "".join("r" if pd.api.types.is_numeric_dtype(kind) else "l" for kind in shown.dtypes)
            escaped = shown.style.format(escape="latex").format_index(escape="latex", axis=1).hide(axis="index")
            return escaped.to_latex(hrules=True, column_format=columns)
    raise OptionError("a table's file", path, f"a name that ends in {', '.join(FORMATS)}")
