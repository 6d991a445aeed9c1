"""The error that ends a build with one line."""


class BuildError(Exception):
    """Something that the user can put right; the message is one line that says how."""
