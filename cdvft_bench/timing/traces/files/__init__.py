"""From the bytes of a trace file to batches of events: compressed, in an archive, malformed or torn."""
