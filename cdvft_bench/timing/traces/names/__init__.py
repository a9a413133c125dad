"""What names tell: the family of a kernel, what an operator or a runtime call does."""
