"""A bounded pool of connections, each for one user at a time."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError, gatherResults
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure

from kvd.client.link import Link
from kvd.errors import Unavailable

T = TypeVar("T")


async def _wait_for(deferred: Deferred[T]) -> T:
    """Wait for something that is not wanted any more if the waiting coroutine is closed."""
    try:
        return await deferred
    except GeneratorExit:
        deferred.addErrback(_nobody_cares)
        deferred.cancel()
        raise


def _nobody_cares(_: Failure) -> None:
    pass


class Pool:
    """Leases connections. Who finds all of them in use waits; the one who came first is served first.

    :param size: the most connections.
    :param timeout: seconds that a reply may take, and that a caller waits for its turn.
    :param wait: seconds that making a connection may take.
    """

    def __init__(
        self, clock: IReactorTime, endpoint: IStreamClientEndpoint, size: int, timeout: float, wait: float
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._size = size
        self._timeout = timeout
        self._wait = wait
        self._turns = DeferredSemaphore(size)
        self._idle: list[Link] = []
        self._links: dict[Link, None] = {}  # in the order in which they were made, so that runs repeat
        self._closed = False

    async def lease(self) -> Link:
        """A connection for the caller alone, who must :meth:`give_back` or :meth:`drop` it.

        :raise kvd.errors.Unavailable: all were in use for too long, or the server can't be reached.
        """
        try:
            await _wait_for(self._turns.acquire().addTimeout(self._timeout, self._clock))
        except TimeoutError:
            raise Unavailable(
                f"all {self._size} connections for transactions were in use for {self._timeout:g} seconds"
            ) from None
        except CancelledError:
            if self._closed:
                raise Unavailable("the client is disconnected") from None
            raise
        try:
            return self._idle.pop() if self._idle else await self._connect()
        except BaseException:
            self._turns.release()
            raise

    async def _connect(self) -> Link:
        if self._closed:
            raise Unavailable("the client is disconnected")
        connecting: Deferred[Link] = connectProtocol(self._endpoint, Link(self._clock, self._timeout))
        try:
            link = await _wait_for(connecting.addTimeout(self._wait, self._clock))
        except CancelledError:
            raise
        except Exception as error:
            raise Unavailable(f"can't connect: {str(error) or type(error).__name__}; nothing was stored") from error
        self._links[link] = None
        link.when_lost().addCallback(self._lost, link)
        if self._closed:
            link.close()
        return link

    def _lost(self, _: None, link: Link) -> None:
        self._links.pop(link, None)
        if link in self._idle:
            self._idle.remove(link)

    def give_back(self, link: Link) -> None:
        """Take a connection back that is as good as new."""
        self._idle.append(link)
        self._turns.release()

    def drop(self, link: Link) -> None:
        """Close a connection in whose state nobody can trust; the server rolls back what is open on it."""
        if link.lost is None:
            link.abort(ConnectionAbortedError("the connection was dropped"))
        self._turns.release()

    def close(self) -> Deferred[list[None]]:
        """Close all connections, and turn away who waits for one."""
        self._closed = True
        for waiting in list(self._turns.waiting):
            waiting.cancel()
        links = list(self._links)
        for link in links:
            link.close()
        return gatherResults([link.when_lost() for link in links])
