"""A way to a Redis on which answers are late, come in drops, or are cut off."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_ENDS = 30.0


class Relay:
    """Passes on what is said; answers come `late` seconds later, or `drop` by drop (bytes).

    Once `cut` is set, the next answer ends in its middle, and the connection with it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 6379)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._ended = threading.Event()
        self.late = 0.0
        self.drop = 0
        self.cut = threading.Event()
        self.cuts = 0
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        self._begin(self._accept)

    def close(self) -> None:
        """End every connection and thread."""
        self._ended.set()
        # A listener that is closed does not wake the thread that accepts from it.
        socket.create_connection(self._listener.getsockname(), timeout=_ENDS).close()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_ENDS)
        for each in (*self._open, self._listener):
            each.close()

    def _begin(self, run: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._ended.is_set():
                client.close()
                return
            server = socket.create_connection(self._target)
            self._open += (client, server)
            self._begin(self._ask, client, server)
            self._begin(self._answer, server, client)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                server.sendall(data)
        self._hang_up(client, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                if self.late and self._ended.wait(self.late):
                    break
                if self.cut.is_set():
                    self.cuts += 1
                    client.sendall(data[: len(data) // 2])
                    break
                step = self.drop or len(data)
                for place in range(0, len(data), step):
                    if self.drop and self._ended.wait(0.03):
                        break
                    client.sendall(data[place : place + step])
        self._hang_up(client, server)

    def _hang_up(self, *ends: socket.socket) -> None:
        for each in ends:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(url: str) -> Iterator[Relay]:
    """A relay while the block runs."""
    made = Relay(url)
    try:
        yield made
    finally:
        made.close()
