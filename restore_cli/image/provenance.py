"""How a picture was made, in its own metadata: written as XMP, which every format here holds."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from restore_cli.image.picture import Metadata
from restore_cli.image.vips import BLOB

NAMESPACE = "urn:restore-cli:xmp:1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="' + _RDF + '">'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
_OURS = re.compile(r"<rdf:Description[^>]*xmlns:restore=[^>]*/>")


def add_to_xmp(metadata: Metadata, facts: tuple[tuple[str, str], ...]) -> Metadata:
    """Metadata whose XMP says how the picture was made, in place of what it said before.

    Args:
        metadata: of the picture that was restored.
        facts: names of XML attributes and their values.
    """
    before = next((value for name, _, value in metadata.fields if name == "xmp-data"), b"")
    packet = bytes(before).decode("utf-8", "replace") or _PACKET
    packet = _OURS.sub("", packet)
    if "</rdf:RDF>" not in packet:  # broken, or of another prefix: not to be mended here
        packet = _PACKET
    attributes = " ".join(f"restore:{name}={quoteattr(value)}" for name, value in facts)
    ours = f'<rdf:Description rdf:about="" xmlns:restore="{NAMESPACE}" {attributes}/>'
    packet = packet.replace("</rdf:RDF>", f"{ours}</rdf:RDF>", 1)
    others = tuple(field for field in metadata.fields if field[0] != "xmp-data")
    return replace(metadata, fields=(*others, ("xmp-data", BLOB, packet.encode())))


def read_provenance(metadata: Metadata) -> dict[str, str]:
    """What `add_to_xmp` wrote; empty where `restore` did not make the picture."""
    packet = next((value for name, _, value in metadata.fields if name == "xmp-data"), b"")
    try:
        # Expat refuses entities that grow; nothing outside of the packet is fetched.
        root = ElementTree.fromstring(bytes(packet).strip(b"\0 \n"))
    except (ElementTree.ParseError, ValueError):
        return {}
    prefix = f"{{{NAMESPACE}}}"
    return {
        name.removeprefix(prefix): value
        for element in root.iter(f"{{{_RDF}}}Description")
        for name, value in element.attrib.items()
        if name.startswith(prefix)
    }
