"""The log of a session: MCAP, one JSON message a record, pictures as JPEG; readable while it is written and when cut.

Topics are the messages' types (`/cmd`, `/act`, `/act_ack`, `/obs`, `/event`, ...), and `/image/<camera>` as
`foxglove.CompressedImage`. A chunk is closed every 64 KiB, so a process that is killed loses at most that.
"""

import base64
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader
from mcap.writer import Writer
from PIL import Image

from vla_bench_envs.robot.errors import LogError

CHUNK_BYTES = 64 << 10
JPEG_QUALITY = 90


class Log:
    """Write what happens, as it happens."""

    def __init__(self, path: Path) -> None:
        """Create the file.

        Raises:
            LogError: If it exists, or cannot be written.
        """
        try:
            self._file = path.open("xb")
        except OSError as caught:
            raise LogError(path, f"cannot be created ({caught.strerror})") from caught
        self._writer = Writer(self._file, chunk_size=CHUNK_BYTES)
        self._writer.start(profile="", library="vla-bench")
        self._schema = self._writer.register_schema("vla_bench.robot", "jsonschema", b'{"type": "object"}')
        self._picture = self._writer.register_schema("foxglove.CompressedImage", "jsonschema", _PICTURE)
        self._channels: dict[str, int] = {}
        self.n_written = 0

    def write(self, topic: str, message: Mapping[str, Any], t_ns: int) -> None:
        """Add a message under a topic, at a time on the server's clock."""
        self._add(topic, self._schema, _plain(dict(message)), t_ns)

    def picture(self, camera: str, pixels: np.ndarray, t_ns: int) -> None:
        """Add a picture (height, width, 3) `uint8`, at the time of its capture."""
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
        stamp = {"sec": t_ns // 10**9, "nsec": t_ns % 10**9}
        data = base64.b64encode(stream.getvalue()).decode()
        message = {"timestamp": stamp, "frame_id": camera, "format": "jpeg", "data": data}
        self._add(f"/image/{camera}", self._picture, message, t_ns)

    def close(self) -> None:
        """Write the index and close the file; safe to call twice."""
        if not self._file.closed:
            self._writer.finish()
            self._file.close()

    def _add(self, topic: str, schema: int, message: Any, t_ns: int) -> None:
        if topic not in self._channels:
            self._channels[topic] = self._writer.register_channel(topic, "json", schema)
        data = json.dumps(message, allow_nan=False).encode()
        self._writer.add_message(self._channels[topic], t_ns, data, t_ns, self.n_written)
        self.n_written += 1


def read(path: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield topic, time [ns] and message in the order of writing; the end of a file that was cut is left out.

    Raises:
        LogError: If the file cannot be opened, or is no MCAP file.
    """
    try:
        file = path.open("rb")
    except OSError as caught:
        raise LogError(path, f"cannot be opened ({caught.strerror})") from caught
    with file:
        n_read = 0
        try:
            for _, channel, message in NonSeekingReader(file).iter_messages(log_time_order=False):
                n_read += 1
                yield channel.topic, message.log_time, json.loads(message.data)
        except (McapError, EOFError, ValueError) as caught:
            if not n_read:
                raise LogError(path, f"is no log of this bridge ({type(caught).__name__})") from caught


def pixels(message: Mapping[str, Any]) -> np.ndarray:
    """Return the picture (height, width, 3) `uint8` of a message of `/image/<camera>`."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(message["data"]))).convert("RGB"))


def _plain(found: Any) -> Any:
    """Return JSON values: arrays as lists, numbers that are not finite as words, bytes as their number."""
    if isinstance(found, dict):
        return {str(key): _plain(value) for key, value in found.items()}
    if isinstance(found, np.ndarray | np.generic):
        return _plain(found.tolist())
    if isinstance(found, list | tuple):
        return [_plain(value) for value in found]
    if isinstance(found, float) and not math.isfinite(found):
        return str(found)
    return f"{len(found)} bytes" if isinstance(found, bytes) else found


_PICTURE = json.dumps(
    {
        "type": "object",
        "properties": {
            "timestamp": {"type": "object", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}},
            "frame_id": {"type": "string"},
            "data": {"type": "string", "contentEncoding": "base64"},
            "format": {"type": "string"},
        },
    }
).encode()
"""Source: Foxglove's documentation of its message schemas, "CompressedImage"."""
