"""One question in, questions to the right shards out, one answer back."""
