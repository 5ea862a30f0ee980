"""Sentences for a Shoal that does not answer, or not to us: what is wrong, and which option says otherwise."""

from __future__ import annotations

from ...shards.model.errors import CertificateRejected, ConnectionFailed
from .connecting import Target

SHOALS_OWN = "/shoal/"
"""Pages that no cluster role of Kubernetes' own allows."""


def unreachable(target: Target, error: ConnectionFailed) -> str:
    """No answer at all."""
    if target.access is not None:
        return f"no Shoal answers at the server of {target.where} ({error})"
    if isinstance(error, CertificateRejected):
        what = str(error).partition("; name the right authority")[0]
        return (
            f"{what}; name its authority with --certificate-authority, or, only where nobody can listen, use "
            "--insecure-skip-tls-verify"
        )
    other = " or with https://" if target.where.startswith("http:") and error.sent else ""
    return f"no Shoal answers at {target.where} ({error}). Start one with `shoal up`, or name it with --server{other}."


def refused(target: Target, status: int, path: str, message: str) -> str:
    """An error's `message`, and what to do about it where that is ours to say."""
    if status == 401 and target.known:
        return "the token or certificate is not, or no longer, one of the cluster that this Shoal follows"
    if status == 401:
        return (
            "say who you are with --token ($SHOAL_TOKEN), with --client-certificate and --client-key, or with "
            "--kubeconfig and --context"
        )
    if status == 403 and path.startswith(SHOALS_OWN):
        return (
            f"{message}; a cluster role with the verb get on the non-resource URL {path} lets you, and "
            "gateway.authentication.open_paths can let everybody"
        )
    return message
