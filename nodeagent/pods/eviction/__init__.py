"""Ending pods before the node ends: pressure of memory, disk, inodes and process ids, and limits of local storage.

    thresholds.py   when is there pressure (pure)
    ranking.py      whom to end first, and the words for it (pure)
    storage.py      who holds more local storage than its own limits allow (pure), and how much pods hold
    manager.py      looks, keeps the node's conditions, ends one pod at a time
"""
