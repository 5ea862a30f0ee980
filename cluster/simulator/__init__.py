"""The embedded API server: behaves like kube-apiserver for what Shoal and its clients use, with faults on
demand.
"""
