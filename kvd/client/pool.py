"""A bounded pool of connections, each for one user at a time."""

from __future__ import annotations

from typing import NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kvd.client.dialing import Dialer
from kvd.client.link import Link
from kvd.client.waiting import Lifetime, wait_for
from kvd.errors import InTransaction, Unavailable


class Turn:
    """The right to use one connection of the pool.

    :ivar granted: fires when it is granted.
    :ivar held: whether it has been granted.
    """

    def __init__(self) -> None:
        self.granted: Deferred[None] = Deferred()
        self.held = False


class Pool:
    """Leases connections. A caller who finds all of them in use waits; first come, first served.

    :param size: the most connections.
    :param timeout: seconds that a caller waits for its turn.
    """

    def __init__(self, clock: IReactorTime, dialer: Dialer, size: int, timeout: float, lifetime: Lifetime) -> None:
        self._clock = clock
        self._dialer = dialer
        self._size = size
        self._timeout = timeout
        self._lifetime = lifetime
        self._free = size  # turns that nobody holds
        self._waiting: dict[Turn, None] = {}  # in order
        self._granting = False
        self._idle: list[Link] = []

    async def lease(self, nested: bool) -> Link:
        """A connection for the caller alone, who must :meth:`give_back` or :meth:`drop` it.

        :param nested: whether the caller has one already; it then does not wait for another.
        :raise kvd.errors.Unavailable: all were in use for too long, or the server can't be reached.
        :raise kvd.errors.Busy: the server has too many clients.
        :raise kvd.errors.InTransaction: all are in use, and the caller has one of them.
        """
        if nested and (self._waiting or not self._free):
            raise InTransaction(
                f"a transaction inside another one needs a connection of its own, and all {self._size} of the pool are "
                "in use; use the transaction that is open, or connect with a larger pool"
            )
        turn = Turn()
        self._waiting[turn] = None
        self._grant()
        try:
            await wait_for(self._lifetime.bind(turn.granted).addTimeout(self._timeout, self._clock, self._too_late))
            return self._idle.pop() if self._idle else await self._connect()
        except BaseException:
            # Whatever the reason: the turn may have been granted though the caller never heard of it.
            self._waiting.pop(turn, None)
            if turn.held:
                self._release()
            raise

    def _too_late(self, result: object, limit: float) -> NoReturn:
        raise Unavailable(
            f"all {self._size} connections for transactions were in use for {limit:g} seconds; nothing was stored"
        )

    async def _connect(self) -> Link:
        link = await self._dialer.reach()
        link.when_lost().addCallback(self._lost, link)
        return link

    def _lost(self, _: None, link: Link) -> None:
        if link in self._idle:
            self._idle.remove(link)

    def _release(self) -> None:
        self._free += 1
        self._grant()

    def _grant(self) -> None:
        """Grant the turns that are free."""
        # A turn that is granted may be released at once: then this loop goes on with it, and doesn't begin anew inside
        # itself.
        if self._granting:
            return
        self._granting = True
        while self._free and self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            self._free -= 1
            turn.held = True
            turn.granted.callback(None)
        self._granting = False

    def give_back(self, link: Link) -> None:
        """Take a connection back that is as good as new."""
        if link.lost is None:
            self._idle.append(link)
        self._release()

    def drop(self, link: Link) -> None:
        """Close a connection whose state can't be trusted; the server rolls back what is open on it."""
        link.abort(ConnectionAbortedError("the connection was dropped"))
        self._release()
