"""The page: one HTML file, the same as Markdown."""
