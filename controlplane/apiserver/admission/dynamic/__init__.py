"""Admission that users configure: webhooks, and policies in CEL. Nothing is paid for while there are none.

    configured.py   what is configured now, compiled; follows the store
    matching.py     which operations a webhook or policy is about
    question.py     an operation as webhooks and expressions see it
    expressions.py  CEL with the variables of admission
    webhooks.py     Mutating- and ValidatingWebhookConfiguration
    calls.py        the HTTPS request to a webhook, and what its answer means
    bound.py        policies and their bindings, of both kinds
    policies.py     ValidatingAdmissionPolicy
    mutations.py    MutatingAdmissionPolicy
    changing.py     putting a change into the object that is being written
    plugin.py       the two places in a write where all this happens

`plugin.Dynamic.mutate` is the last of the plugins that may change an object; `plugin.Dynamic.validate` runs when the
object is final, before it is stored.
"""
