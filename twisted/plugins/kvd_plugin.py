"""What kvd plugs into Twisted: ``twistd kvd``, stores and protocols. What they name is imported when it is used."""

from twisted.application.service import ServiceMaker

from kvd.plugins import ProtocolPlugin, StorePlugin

kvd = ServiceMaker(
    "kvd",
    "kvd.tap",
    "A key/value daemon with interactive, strictly serializable transactions.",
    "kvd",
)

memory = StorePlugin("memory", "kvd.stores.memory.store:memory", "keeps everything in memory, and forgets it on exit")

sqlite = StorePlugin("sqlite", "kvd.stores.sqlite.store:sqlite", "sqlite:PATH keeps everything in a file as well")

line = ProtocolPlugin("line", "kvd.protocols.line:factory", "kvd's own lines, for people and programs")
