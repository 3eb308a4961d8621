"""What kvd plugs into Twisted: ``twistd kvd``, and the stores. Modules are named by string and imported late."""

from twisted.application.service import ServiceMaker

from kvd.plugins import StorePlugin

kvd = ServiceMaker(
    "kvd",
    "kvd.tap",
    "A key/value daemon with interactive, strictly serializable transactions.",
    "kvd",
)

memory = StorePlugin("memory", "kvd.stores.memory.store:memory", "keeps everything in memory, and forgets it on exit")
