"""The networks, one file each, and their registry. Nothing here reads files or the network."""
