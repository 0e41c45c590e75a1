"""Custom resources' schemas at work: structural schemas (apiextensions.k8s.io/v1 JSONSchemaProps) and what they do.

    structural.py   a schema as a tree of nodes
    shape.py        pruning, nulls, defaults: what an object looks like after decoding
    values.py       validation of values, in the words of Kubernetes
    formats.py      `format` of strings
    rules.py        x-kubernetes-validations (CEL)
    paths.py        the JSONPath of printer columns, scale and selectable fields
    columns.py      additionalPrinterColumns as a Table
    kind.py         all of it for one served version: what the API server asks

Whether a CustomResourceDefinition itself is right is controlplane.api.validation's business (customresources.py,
schemas.py there). Nothing here knows a server or a store.
"""
