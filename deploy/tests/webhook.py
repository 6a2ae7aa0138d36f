"""A receiver of webhooks on loopback: a real HTTP server, that can be dead for a while."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Post:
    key: str | None
    body: bytes

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return json.loads(self.body)["alerts"]


class Webhook:
    """Keeps what Alertmanager or `leeway alert` posts."""

    def __init__(self, log: Path | None = None) -> None:
        self.log = log
        self.posts: list[Post] = []
        # What is done with a post that is kept: it is answered, by default.
        self.react: Callable[[Callable[[], None]], None] = lambda answer: answer()
        self.server = self.bound(0)
        self.thread = threading.Thread()

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return [alert for post in list(self.posts) for alert in post.alerts]

    def keep(self, post: Post) -> None:
        self.posts.append(post)
        if self.log:
            with self.log.open("ab") as log:
                log.write(post.body + b"\n")

    def bound(self, port: int) -> http.server.ThreadingHTTPServer:
        """Has the port, so that nobody else gets it, and refuses connections until it is started."""
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.keep(Post(self.headers["Idempotency-Key"], body))
                webhook.react(self.answer)

            def answer(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                self.wfile.flush()

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler, bind_and_activate=False)
        server.server_bind()
        return server

    def start(self) -> None:
        self.server.server_activate()
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def kill(self) -> None:
        port = self.port
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.server = self.bound(port)

    @contextlib.contextmanager
    def listening(self) -> Iterator["Webhook"]:
        self.start()
        try:
            yield self
        finally:
            if self.thread.is_alive():
                self.server.shutdown()
            self.server.server_close()
