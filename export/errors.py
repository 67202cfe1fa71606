"""The one error of export."""


class ExportError(Exception):
    """A checkpoint that cannot become a bundle; the message says what stands in the way."""
