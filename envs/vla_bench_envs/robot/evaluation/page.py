"""The operator page: one HTML file and a websocket, served by the process that plays.

Not by the robot server: that one is there for safety, knows no plan, and must not serve strangers' browsers. A page
that hangs, or floods, then costs a trial at most; heartbeats and watchdogs do not know of it. Not by `vla_bench.link`
either, whose messages are msgpack, which a browser reads with somebody's library only: here are JSON and JPEG.

Only this computer can open it, and only a page from here can talk to it: the origin of every websocket is checked.
"""

import json
import logging
import threading
from base64 import b64encode
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from types import TracebackType

import numpy as np
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Origin

from vla_bench.errors import OptionError, VlaBenchError
from vla_bench_envs.robot.evaluation.desk import Desk
from vla_bench_envs.robot.evaluation.scene import jpeg

log = logging.getLogger(__name__)

HOST = "127.0.0.1"

LOOK_S = 0.1
"""How often a page is told what is new, pictures included; what it sends is heard at once."""

OPEN_S = 2.0
"""Patience with a connection that says nothing, as browsers keep one in reserve: closing the page waits for it."""

LONGEST_BYTES = 8192
"""Of a message from a page."""

KINDS = {"live": b"\x00", "reference": b"\x01"}
"""First byte of a picture's frame; a JPEG follows, or nothing for no picture."""


class OperatorPage:
    """A desk, in browsers: as many as like."""

    def __init__(self, desk: Desk, port: int = 0) -> None:
        """Listen at this computer; port 0 takes a free one.

        Raises:
            OptionError: If the port is taken.
        """
        self._desk = desk
        self._closing = threading.Event()
        self._page = page().encode()
        self._origins: list[Origin] = []
        try:
            self._server = serve(
                self._converse, HOST, port, process_request=self._answer, origins=self._origins, compression=None,
                max_size=LONGEST_BYTES, open_timeout=OPEN_S, close_timeout=1,
            )  # fmt: skip
        except OSError as caught:
            raise OptionError("--page-port", port, f"a port that is free ({caught.strerror})") from caught
        own = self._server.socket.getsockname()[1]
        self.url = f"http://{HOST}:{own}"
        """What the operator opens."""
        self._origins += [Origin(self.url), Origin(f"http://localhost:{own}")]
        self._thread = threading.Thread(target=self._server.serve_forever, name="operator page", daemon=True)
        self._thread.start()

    def __enter__(self) -> "OperatorPage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the page; browsers say so."""
        self._closing.set()
        self._server.shutdown()
        self._thread.join()

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return the page for a browser; None lets a websocket open."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        if request.path != "/":
            return connection.respond(HTTPStatus.NOT_FOUND, "the page is at /\n")
        headers = Headers(
            [
                ("Content-Type", "text/html; charset=utf-8"),
                ("Content-Length", str(len(self._page))),
                ("Cache-Control", "no-store"),
                ("X-Frame-Options", "DENY"),  # nobody lays a page of theirs over the buttons
                ("Connection", "close"),
            ]
        )
        return Response(HTTPStatus.OK, "OK", headers, self._page)

    def _converse(self, connection: ServerConnection) -> None:
        """Tell one page what is shown, and hear what is pressed, until it is closed."""
        told: dict[str, object] = {}
        try:
            while not self._closing.is_set():
                self._tell(connection, told)
                try:
                    self._hear(connection.recv(timeout=LOOK_S))
                except TimeoutError:
                    continue
            self._tell(connection, told)  # the last word, that all is done
        except ConnectionClosed:
            pass

    def _tell(self, connection: ServerConnection, told: dict[str, object]) -> None:
        view = self._desk.view()
        for kind, (number, picture) in view.pictures.items():
            if told.get(kind) != number:
                encoded = jpeg(picture) if isinstance(picture, np.ndarray) else picture or b""
                connection.send(KINDS[kind] + encoded)
                told[kind] = number
        facts = {"view": view.number, **view.facts}
        if told.get("facts") != facts:
            connection.send(json.dumps(facts, allow_nan=False))
            told["facts"] = facts

    def _hear(self, raw: str | bytes) -> None:
        try:
            said = json.loads(raw)
            word, number, note = str(said["do"]), int(said["view"]), str(said.get("note", ""))
            milestones, failure = [str(name) for name in said.get("milestones", [])], str(said.get("failure", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("a page sent what is no press: %.60r", raw)
            return
        try:
            self._desk.press(word, number, note, milestones, failure)
        except VlaBenchError as caught:  # only a stop can fail, and who pressed it must know at once
            log.error("%s", caught)
            self._desk.amend(alarm=f"The stop is NOT confirmed: use the hardware stop. {caught}")


def page() -> str:
    """Return the page: one file that needs no other."""
    folder = files("vla_bench_envs.robot.evaluation")
    html, style, script = (folder.joinpath(f"page.{suffix}").read_text("utf-8") for suffix in ("html", "css", "js"))
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return html.replace("{{ style }}", style).replace("{{ script_hash }}", digest).replace("{{ script }}", script)
