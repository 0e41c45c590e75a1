"""`Object{spec: Object.spec{replicas: 1}}` and `JSONPatch{op: "add", ...}` as maps.

Expressions of MutatingAdmissionPolicies make values of types that they name. The CEL library knows types only from
protobuf, so their literals are written as maps before they are compiled: the same value, without a check of its fields.
"""

import re

_TOKEN = re.compile(
    r"(?P<text>[rRbB]{0,2}(?:'''(?:.|\n)*?'''|\"\"\"(?:.|\n)*?\"\"\"|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"))"
    r"|(?P<struct>\b(?:Object(?:\.\w+)*|JSONPatch)\s*\{)"
    r"|(?P<field>\??\b[A-Za-z_]\w*\s*:)"
    r"|(?P<open>[{\[(])|(?P<close>[}\])])|(?P<comma>,)|(?P<space>\s+)|(?P<other>.)",
    re.ASCII,
)


def as_maps(text: str) -> str:
    """`text` with the literals of named types as maps."""
    if "Object" not in text and "JSONPatch" not in text:
        return text
    made: list[str] = []
    around: list[str] = []  # what each open bracket is: "struct" or anything else
    begins = False  # whether a struct's field may begin here
    for found in _TOKEN.finditer(text):
        kind, part = found.lastgroup, found.group()
        if kind == "struct":
            made.append("{")
            around.append("struct")
            begins = True
            continue
        if kind == "field" and begins and around and around[-1] == "struct":
            name = part.rstrip(":").strip()
            optional = name.startswith("?")
            made.append(f'{"?" if optional else ""}"{_plain(name.lstrip("?"))}":')
            begins = False
            continue
        if kind == "open":
            around.append(part)
        elif kind == "close" and around:
            around.pop()
        if kind == "comma":
            begins = bool(around) and around[-1] == "struct"
        elif kind != "space":
            begins = False
        made.append(part)
    return "".join(made)


def _plain(name: str) -> str:
    """A field's name from an identifier that stands for it (convert.escaped)."""
    if name.startswith("__") and name.endswith("__") and len(name) > 4 and "__" not in name[2:-2]:
        return name[2:-2]
    for escaped, char in (("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__")):
        name = name.replace(escaped, char)
    return name
