"""Who owns what: roster, rendezvous hashing, placement. Pure."""

from ndml.placement.rendezvous import Ring, owner_key
from ndml.placement.roster import MemberPhase, NodeRecord, Roster, check_record, digest_of, epoch_of, is_address, join, newer
from ndml.placement.view import MemberState, Placement, PlacementNode

__all__ = [
    "MemberPhase",
    "MemberState",
    "NodeRecord",
    "Placement",
    "PlacementNode",
    "Ring",
    "Roster",
    "check_record",
    "digest_of",
    "epoch_of",
    "is_address",
    "join",
    "newer",
    "owner_key",
]
