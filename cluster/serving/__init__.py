"""The Kubernetes API's own forms, shared by gateway and embedded API server: paths, options, documents, tables."""
