"""What every room speaks of: cases, records, intervals, files. Standard library only."""
