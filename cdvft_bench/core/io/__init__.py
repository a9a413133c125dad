"""Files: atomic writes, bounded reads, locks, the record log and caches."""
