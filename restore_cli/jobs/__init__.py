"""One run over many pictures: every refusal first, then picture after picture."""
