"""Custom resources: CustomResourceDefinitions become resources, and resources' objects are read as they say.

    naming.py      who may have which names; the conditions of a definition (pure)
    rows.py        a definition as rows of the resource table (pure)
    strategy.py    what happens to a definition when it is written
    served.py      keeps the table of resources true, and clears away what a deleted definition leaves
    reading.py     stored objects of older schemas and other versions
    conversion.py  versions that only a webhook can convert

What a schema does with an object is controlplane.api.schema; whether a definition is right is
controlplane.api.validation.customresources.
"""
