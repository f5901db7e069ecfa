"""A workflow file: read, turned into what is executed, overridden, laid out and written back."""
