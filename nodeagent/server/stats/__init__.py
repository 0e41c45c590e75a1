"""What node, pods and containers use: `sample.py` measures, `summary.py` and `exposition.py` say it in the two forms
that the field reads (kubelet's Summary, Prometheus' text)."""
