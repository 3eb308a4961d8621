"""The simplest peer: a thread per client, blocking sockets, a dict and a lock. ``python threads_server.py PORT``

It speaks kvd's line protocol as far as the benchmark needs it, and has no transactions.
"""

from __future__ import annotations

import json
import socket
import sys
import threading

data: dict[str, str] = {}
lock = threading.Lock()


def answer(line: str) -> str:
    """The reply to one request."""
    command, _, rest = line.partition(" ")
    key, _, value = rest.partition(" ")
    reply: dict[str, str | None] = {"status": "Ok"}
    with lock:
        if command == "GET":
            reply["result"] = data.get(key)
        elif command == "PUT":
            data[key] = value
        elif command == "DEL":
            data.pop(key, None)
        elif command != "PING":
            reply = {"status": "Error", "mesg": f"{command} is not known"}
    return json.dumps(reply)


def serve(client: socket.socket) -> None:
    """Serve one client until it is gone."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    with client, client.makefile("r", encoding="utf-8", newline="\n") as lines:
        try:
            for line in lines:
                client.sendall(answer(line.rstrip("\n")).encode() + b"\n")
        except ConnectionError:
            pass


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client,), daemon=True).start()


if __name__ == "__main__":
    main()
