"""Authorisation: may this user do that? Node authoriser first, then RBAC; system:masters may do everything."""
