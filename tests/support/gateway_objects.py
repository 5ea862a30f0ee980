"""Objects of an API gateway's cluster, as the recorded cluster has them, for the tests of the gateway monitor."""

GROUP = "gateway.example.com"
ROUTES, LIMITS = f"apiroutes.{GROUP}", f"ratelimitpolicies.{GROUP}"
AUTHN, SECURITY = f"authnpolicies.{GROUP}", f"securitypolicies.{GROUP}"
SERVICES, SLICES, PODS = "services", "endpointslices.discovery.k8s.io", "pods"
KINDS = {ROUTES: "APIRoute", LIMITS: "RateLimitPolicy", AUTHN: "AuthNPolicy", SECURITY: "SecurityPolicy"}

PRODUCTION = {"env": "production"}


def meta(name, version=1, *, namespace="shop", labels=None, annotations=None, uid=None, generation=1):
    made = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-of-{name}",
        "resourceVersion": str(version),
        "generation": generation,
        "creationTimestamp": "2026-11-20T09:32:40Z",
    }
    if labels is not None:
        made["labels"] = labels
    if annotations is not None:
        made["annotations"] = annotations
    return made


def custom(resource, name, spec, version=1, **metadata):
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": KINDS.get(resource, "Other"),
        "metadata": meta(name, version, **metadata),
        "spec": spec,
    }


def route(name="web", version=1, *, service="web", port=80, labels=PRODUCTION, spec=None, **metadata):
    made = {
        "host": f"{name}.example.com",
        "path": f"/{name}",
        "methods": ["GET", "POST"],
        "timeoutMs": 5000,
        "backend": {"service": service, "port": port},
        **(spec or {}),
    }
    return custom(ROUTES, name, made, version, labels=labels, **metadata)


def limit(name="web", version=1, *, rate=100, burst=50, target="web", **metadata):
    spec = {"requestsPerSecond": rate, "burst": burst, "targetRef": {"kind": "APIRoute", "name": target}}
    return custom(LIMITS, name, spec, version, **metadata)


def authn(name="web", version=1, *, spec=None, target="web", **metadata):
    made = {"jwt": {"issuer": "https://id.example.com", "audiences": ["shop"]}} if spec is None else spec
    return custom(
        AUTHN, name, {**made, "targetRef": {"kind": "APIRoute", "name": target}}, version, **metadata
    )


def security(name="web", version=1, *, deny=("203.0.113.0/24",), waf="block", target="web", **metadata):
    spec = {"denyCIDRs": list(deny), "wafMode": waf, "targetRef": {"kind": "APIRoute", "name": target}}
    return custom(SECURITY, name, spec, version, **metadata)


def service(name="web", version=1, *, port=80, ports=None, kind="ClusterIP", selector=None, **metadata):
    return {
        "metadata": meta(name, version, **metadata),
        "spec": {
            "type": kind,
            "selector": {"app": name} if selector is None else selector,
            "ports": [{"name": "http", "port": port, "targetPort": "http"}] if ports is None else ports,
        },
    }


def endpoints(name="web", version=1, *, service="web", ready=(), unready=(), ports=("http",), **metadata):
    """A slice; `ready` and `unready` are names of pods, `ports` those of ports."""
    return {
        "metadata": meta(
            f"{name}-slice",
            version,
            labels={"kubernetes.io/service-name": service} if service else {},
            **metadata,
        ),
        "addressType": "IPv4",
        "ports": [{"name": port, "port": 8080, "protocol": "TCP"} for port in ports],
        "endpoints": [
            {
                "addresses": [f"10.0.0.{number}"],
                "conditions": {"ready": is_ready},
                "targetRef": {"kind": "Pod", "namespace": metadata.get("namespace", "shop"), "name": pod},
            }
            for number, (pod, is_ready) in enumerate(
                [*((p, True) for p in ready), *((p, False) for p in unready)]
            )
        ],
    }


def pod(name="web-1", version=1, *, app="web", waiting="", restarts=0, phase="Running", **metadata):
    """A pod, ready unless it waits for something."""
    state = {"waiting": {"reason": waiting, "message": "back-off"}} if waiting else {"running": {}}
    return {
        "metadata": meta(name, version, labels={"app": app}, **metadata),
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "False" if waiting else "True"}],
            "containerStatuses": [
                {"name": "main", "ready": not waiting, "restartCount": restarts, "state": state}
            ],
        },
    }
