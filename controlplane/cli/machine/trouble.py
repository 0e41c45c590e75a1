"""Why a command on a machine did not do what it should, in words for the person in front of it."""


class Trouble(Exception):
    """The message says what is wrong, `way_out` what to do about it."""

    def __init__(self, what: str, way_out: str = "") -> None:
        super().__init__(what)
        self.way_out = way_out
