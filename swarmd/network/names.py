"""A peer's name for people: three words that follow from its peer id, the same ones that GenRL's nodes show."""

from __future__ import annotations

from genrl.misc_utils.name_utils import get_name_from_peer_id


def name_of(peer_id: str) -> str:
    """The three words for a peer id (base58), such as "galloping bold alpaca".

    GenRL's own function with GenRL's own word lists: a copy would part from them with the first word they change. Its
    module imports nothing but the standard library, in about a millisecond.
    """
    return str(get_name_from_peer_id(peer_id))
