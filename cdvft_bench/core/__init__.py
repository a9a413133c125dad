"""What every part shares: cases, records, intervals, files. Standard library only."""
