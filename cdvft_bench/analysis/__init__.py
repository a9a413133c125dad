"""From records to frames and findings: pandas, and nothing that draws."""
