"""Ledgers of claims: what can be written in one, read strictly."""
