"""The networks: one file each, and the table that lists them. Torch only; no files, no network."""
