"""API aggregation: groups that another server in the cluster answers, behind this one (metrics.k8s.io and the like).

    apiservices.py   which APIServices there are, and to whom they lead
    relay.py         passing a request on, with the user in headers
    availability.py  whether they answer; their discovery documents; APIServices for what we serve ourselves
    aggregator.py    all of it, as the server sees it

The other server trusts our client certificate and reads from kube-system/extension-apiserver-authentication how.
"""
