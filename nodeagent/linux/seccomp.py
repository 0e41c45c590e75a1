SET_MODE_FILTER = 1


def program(profile: str, bounding: int) -> bytes:
    return b""
