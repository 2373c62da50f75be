"""Records of GenRL 0.3: msgpack, batch ids in hexadecimal."""

from __future__ import annotations

from swarmd.network import strict_msgpack
from swarmd.network.dialects.genrl_payload import BatchId, GenrlDialect, md5
from swarmd.network.genrl_objects import Payload
from swarmd.network.strict_bounds import Bounds, Parsed


class Genrl03Dialect(GenrlDialect):
    name = "genrl-0.3"

    def write(self, value: dict[BatchId, list[Payload]]) -> bytes:
        return strict_msgpack.write_genrl(value)

    def parse(self, value: bytes, bounds: Bounds) -> Parsed:
        return strict_msgpack.read_genrl(value, bounds)

    def batch_id(self, question: str) -> str:
        return md5(question).hex()
