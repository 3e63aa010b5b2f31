"""Stores how a picture was made in its XMP, which all supported formats can hold."""

from __future__ import annotations

from xml.etree import ElementTree

from restore_cli.image.raw_metadata import Metadata
from restore_cli.image.xmp import RDF, Packet

NAMESPACE = "urn:restore-cli:xmp:1.0/"
_PREFIX = f"{{{NAMESPACE}}}"
ElementTree.register_namespace("restore", NAMESPACE)


def add_to_packet(packet: Packet, provenance: tuple[tuple[str, str], ...]) -> Packet:
    """Replace the provenance in a packet by XML attributes with these names and values."""
    packet.remove(lambda name: name.startswith(_PREFIX))
    for one in list(packet.descriptions()):
        if not len(one) and set(one.attrib) <= {f"{{{RDF}}}about"}:
            packet.rdf.remove(one)
    if provenance:
        values = {f"{_PREFIX}{name}": _printable(text) for name, text in provenance}
        about = {f"{{{RDF}}}about": ""}
        ElementTree.SubElement(packet.rdf, f"{{{RDF}}}Description", about | values)
    return packet


def _printable(text: str) -> str:
    """Replace what XML cannot hold: control characters, and bytes that are not UTF-8."""
    whole = text.encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in whole)


def read_provenance(metadata: Metadata) -> dict[str, str]:
    """Return the provenance of a picture; empty if `restore` did not make it."""
    packet = None if metadata.xmp is None else Packet.parse(metadata.xmp)
    return {} if packet is None else dict(provenance_in(packet))


def provenance_in(packet: Packet) -> tuple[tuple[str, str], ...]:
    """Return what `add_to_packet` wrote into a packet."""
    return tuple(
        (name.removeprefix(_PREFIX), value)
        for one in packet.descriptions()
        for name, value in one.attrib.items()
        if name.startswith(_PREFIX)
    )
