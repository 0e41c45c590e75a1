"""API priority and fairness: no client can take the server away from the others.

    request ──> schemas.py: which FlowSchema? ──> its priority level and the flow (user or namespace) within it
            ──> levels.py:  a seat of that level, or a place in the flow's queue, or 429
            ──> turnstile.py: if it is expensive, its turn
            ──> the rest of the pipeline

`filter.py` puts it together and follows the FlowSchema and PriorityLevelConfiguration objects; `defaults.py` has those
that every cluster starts with. Concepts and objects are Kubernetes' own (kubernetes.io/docs, "API Priority and
Fairness"); the mechanics fit one event loop.
"""
