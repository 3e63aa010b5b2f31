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
_SEGMENT = 60_000  # bytes, of 65,535 that also hold a name
_OURS = re.compile(
    # As `add_to_xmp` writes it, to the letter: time is linear in the packet, whoever wrote that.
    rf'<rdf:Description rdf:about="" xmlns:restore="{re.escape(NAMESPACE)}"[^<>]*/>'
)


def add_to_xmp(
    metadata: Metadata, facts: tuple[tuple[str, str], ...], *, small: bool = False
) -> tuple[Metadata, bool]:
    """Metadata whose XMP says how the picture was made, in place of what it said before.

    Args:
        metadata: of the picture that was restored.
        facts: names of XML attributes and their values.
        small: whether the packet must fit into one segment of a JPEG.

    Returns:
        The metadata, and whether the XMP that was there had to go.
    """
    before = next((value for name, _, value in metadata.fields if name == "xmp-data"), b"")
    packet = _OURS.sub("", bytes(before).decode("utf-8", "replace"))
    attributes = " ".join(f"restore:{name}={quoteattr(_printable(text))}" for name, text in facts)
    ours = f'<rdf:Description rdf:about="" xmlns:restore="{NAMESPACE}" {attributes}/></rdf:RDF>'
    whole = packet.replace("</rdf:RDF>", ours, 1)
    # Broken, of another prefix or in UTF-16: not to be mended here.
    replaced = bool(before) and ("</rdf:RDF>" not in packet or (small and len(whole) > _SEGMENT))
    if replaced or not before:
        whole = _PACKET.replace("</rdf:RDF>", ours, 1)
    others = tuple(field for field in metadata.fields if field[0] != "xmp-data")
    fields = (*others, ("xmp-data", BLOB, whole.encode()))
    return replace(metadata, fields=fields), replaced


def _printable(text: str) -> str:
    """Without what XML cannot hold: control characters, bytes of names that are not UTF-8."""
    whole = text.encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in whole)


def read_provenance(metadata: Metadata) -> dict[str, str]:
    """What `add_to_xmp` wrote; empty where `restore` did not make the picture."""
    packet = next((value for name, _, value in metadata.fields if name == "xmp-data"), b"")
    try:
        # Expat refuses entities that grow; nothing outside of the packet is fetched.
        root = ElementTree.fromstring(bytes(packet).strip(b"\0 \n"))
    except (ElementTree.ParseError, ValueError, LookupError):
        return {}
    prefix = f"{{{NAMESPACE}}}"
    return {
        name.removeprefix(prefix): value
        for element in root.iter(f"{{{_RDF}}}Description")
        for name, value in element.attrib.items()
        if name.startswith(prefix)
    }
