"""The controllers: one file a controller, each a client of the API that moves what is towards what is wanted.

Every controller has a pure part (objects in, actions out) and a thin one that reads the shared informers and executes
the actions. See README.md for the map. Not here: scheduling, and anything that talks to the store or to a node.
"""
