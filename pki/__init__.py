"""Who is who: keys, the cluster's certificate authority, component identities, tokens, kubeconfigs, paths."""
