"""What reviewers asked, answered from a frame of records, runs, verdicts and findings."""
