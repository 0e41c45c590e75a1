"""The Common Expression Language as Kubernetes speaks it, in rules of custom resources and in admission policies.

    environment.py   compile once, evaluate often; errors in the words of Kubernetes
    library.py       the functions that Kubernetes adds, as a list of overloads
    values.py        quantities, IP addresses, URLs, versions: what those functions work on
    structs.py       literals of the types that mutating policies name
    convert.py       a JSON value as its schema makes CEL see it

The language itself is Google's C++ implementation (PyPI: cel-expr-python), loaded at the first expression. Everything
is dynamically typed here: a misspelt field is an error when the rule runs, not when it is written.
"""
