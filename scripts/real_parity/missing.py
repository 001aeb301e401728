"""What this command needs and does not have."""


class Missing(Exception):
    """Data, weights or a program that is not there; the text says what to do. The command ends with status 2."""
