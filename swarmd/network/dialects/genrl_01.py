"""Records of GenRL 0.1.11: its own binary format, batch ids as numbers."""

from __future__ import annotations

from swarmd.network import strict_tlv
from swarmd.network.dialects.genrl_payload import BatchId, GenrlDialect, md5
from swarmd.network.genrl_objects import Payload
from swarmd.network.strict_bounds import Bounds, Parsed


class Genrl01Dialect(GenrlDialect):
    name = "genrl-0.1"

    def write(self, value: dict[BatchId, list[Payload]]) -> bytes:
        return strict_tlv.write(value)

    def parse(self, value: bytes, bounds: Bounds) -> Parsed:
        return strict_tlv.read(value, bounds)

    def batch_id(self, question: str) -> int:
        return int.from_bytes(md5(question), "big")
