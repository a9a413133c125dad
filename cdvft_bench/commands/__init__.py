"""The commands, one module a group: each parses, calls and prints. Nothing heavy is imported before one runs."""
