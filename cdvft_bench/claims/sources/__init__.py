"""The sources of a claim's figures: closed forms, counts, records, profiles."""
