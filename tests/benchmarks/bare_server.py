"""The limit of the approach: a LineReceiver on kvd's transport that answers Ok. ``python bare_server.py PORT``

It looks at nothing but the ends of lines, and answers all that arrived in one write. What a server in Python on this
transport does beyond that, it does on top of this.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from kvd.daemon.listen import server_endpoint
from kvd.reactor import install_reactor

OK = b'{"status": "Ok"}\n'


class Bare(LineReceiver):
    """Answers every line, however long it is, without reading it."""

    transport: ITransport

    def dataReceived(self, data: bytes) -> None:
        lines = data.count(b"\n")
        if lines:
            self.transport.write(OK * lines)


def main() -> None:
    install_reactor()
    from twisted.internet import reactor

    loop: Any = reactor
    server_endpoint(loop, f"tcp:{sys.argv[1]}:interface=127.0.0.1:backlog=1024").listen(Factory.forProtocol(Bare))
    loop.run()


if __name__ == "__main__":
    main()
