"""The columns of services and what stands around them: endpoints, ingresses, policies, addresses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from .cells import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    Cell,
    Column,
    Meta,
    Printer,
    Selector,
    View,
    created,
    cut_short,
    label_text,
    selector_text,
)


class _Ingress(msgspec.Struct, frozen=True):
    ip: str = ""
    hostname: str = ""


class _LoadBalancer(msgspec.Struct, frozen=True):
    ingress: list[_Ingress] | None = None

    def addresses(self) -> list[str]:
        return sorted({point.ip or point.hostname for point in self.ingress or ()} - {""})


class _BalancedStatus(msgspec.Struct, frozen=True, rename="camel"):
    load_balancer: _LoadBalancer = _LoadBalancer()


# -- services -------------------------------------------------------------------------------------------


class _ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    port: int
    protocol: str = "TCP"
    node_port: int = 0


class _ServiceSpec(msgspec.Struct, frozen=True, rename="camel"):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    external_ips: list[str] | None = msgspec.field(name="externalIPs", default=None)
    external_name: str = ""
    ports: list[_ServicePort] | None = None
    selector: dict[str, str] | None = None


class ServiceView(View, frozen=True):
    """The fields of a service that its cells rest on."""

    spec: _ServiceSpec = _ServiceSpec()
    status: _BalancedStatus = _BalancedStatus()


def _service(view: ServiceView, meta: Meta, now: datetime) -> list[Cell]:
    spec = view.spec
    return [
        meta.name,
        spec.type,
        spec.cluster_ip or NONE,
        _external_ip(view),
        ",".join(map(_port_text, spec.ports or ())) or NONE,
        created(meta, now),
        label_text(spec.selector),
    ]


def _port_text(port: _ServicePort) -> str:
    number = f"{port.port}:{port.node_port}" if port.node_port > 0 else str(port.port)
    return f"{number}/{port.protocol}"


def _external_ip(view: ServiceView) -> str:
    external = view.spec.external_ips or []
    match view.spec.type:
        case "ClusterIP" | "NodePort":
            return ",".join(external) or NONE
        case "LoadBalancer":
            return ",".join(view.status.load_balancer.addresses() + external) or "<pending>"
        case "ExternalName":
            return view.spec.external_name
        case _:
            return UNKNOWN


SERVICES = Printer(
    (
        NAME,
        Column("Type", description="How the service is exposed."),
        Column("Cluster-IP", description="Address inside the cluster."),
        Column("External-IP", description="Addresses outside the cluster."),
        Column("Port(s)", description="Ports of the service, with the ports on nodes behind a colon."),
        AGE,
        Column("Selector", description="Labels of the pods that traffic goes to.", priority=1),
    ),
    ServiceView,
    _service,
)


# -- endpoints ------------------------------------------------------------------------------------------


class _EndpointPort(msgspec.Struct, frozen=True):
    port: int | None = None
    name: str | None = None


class _EndpointAddress(msgspec.Struct, frozen=True):
    ip: str = ""


class _Subset(msgspec.Struct, frozen=True):
    addresses: list[_EndpointAddress] | None = None
    ports: list[_EndpointPort] | None = None


class EndpointsView(View, frozen=True):
    """The fields of an Endpoints object that its cells rest on."""

    subsets: list[_Subset] | None = None


def _endpoints(view: EndpointsView, meta: Meta, now: datetime) -> list[Cell]:
    text = NONE if not view.subsets else cut_short(_subset_addresses(view.subsets), empty="")
    return [meta.name, text, created(meta, now)]


def _subset_addresses(subsets: list[_Subset]) -> Iterator[str]:
    for subset in subsets:
        for port in subset.ports or (None,):
            for address in subset.addresses or ():
                host = f"[{address.ip}]" if ":" in address.ip and port is not None else address.ip
                yield host if port is None else f"{host}:{port.port or 0}"


ENDPOINTS = Printer(
    (NAME, Column("Endpoints", description="Addresses and ports that implement the service."), AGE),
    EndpointsView,
    _endpoints,
)


class _Endpoint(msgspec.Struct, frozen=True):
    addresses: list[str] | None = None


class EndpointSliceView(View, frozen=True):
    """The fields of an endpoint slice that its cells rest on."""

    address_type: str = ""
    ports: list[_EndpointPort] | None = None
    endpoints: list[_Endpoint] | None = None


def _endpoint_slice(view: EndpointSliceView, meta: Meta, now: datetime) -> list[Cell]:
    ports = (str(port.port) if port.port is not None else port.name or "*" for port in view.ports or ())
    addresses = (address for endpoint in view.endpoints or () for address in endpoint.addresses or ())
    return [meta.name, view.address_type, cut_short(ports), cut_short(addresses), created(meta, now)]


ENDPOINT_SLICES = Printer(
    (
        NAME,
        Column("AddressType", description="Family of the addresses."),
        Column("Ports", description="Ports of every endpoint in the slice."),
        Column("Endpoints", description="Addresses of the endpoints in the slice."),
        AGE,
    ),
    EndpointSliceView,
    _endpoint_slice,
)


# -- ingresses ------------------------------------------------------------------------------------------


_HOSTS_SHOWN = 3


class _Rule(msgspec.Struct, frozen=True):
    host: str = ""


class _IngressSpec(msgspec.Struct, frozen=True, rename="camel"):
    ingress_class_name: str | None = None
    rules: list[_Rule] | None = None
    tls: list[msgspec.Raw] | None = None


class IngressView(View, frozen=True):
    """The fields of an ingress that its cells rest on."""

    spec: _IngressSpec = _IngressSpec()
    status: _BalancedStatus = _BalancedStatus()


def _ingress(view: IngressView, meta: Meta, now: datetime) -> list[Cell]:
    spec = view.spec
    return [
        meta.name,
        spec.ingress_class_name or NONE,
        _hosts(spec.rules or []),
        ",".join(view.status.load_balancer.addresses()),
        "80, 443" if spec.tls else "80",
        created(meta, now),
    ]


def _hosts(rules: list[_Rule]) -> str:
    """Up to three hosts; what is left is counted in rules, with a host or without, as the API server does."""
    hosts: list[str] = []
    for rule in rules:
        if len(hosts) == _HOSTS_SHOWN:
            return f"{','.join(hosts)} + {len(rules) - _HOSTS_SHOWN} more..."
        if rule.host:
            hosts.append(rule.host)
    return ",".join(hosts) or "*"


INGRESSES = Printer(
    (
        NAME,
        Column(
            "Class",
            description="The name of the IngressClass resource that should be used for additional configuration",
        ),
        Column(
            "Hosts", description="Hosts that incoming requests are matched against before the ingress rule"
        ),
        Column("Address", description="Address is a list containing ingress points for the load-balancer"),
        Column("Ports", description="Ports of TLS configurations that open"),
        AGE,
    ),
    IngressView,
    _ingress,
)


class _Parameters(msgspec.Struct, frozen=True, rename="camel"):
    kind: str = ""
    name: str = ""
    api_group: str | None = None


class _IngressClassSpec(msgspec.Struct, frozen=True):
    controller: str = ""
    parameters: _Parameters | None = None


class IngressClassView(View, frozen=True):
    """The fields of an ingress class that its cells rest on."""

    spec: _IngressClassSpec = _IngressClassSpec()


def _ingress_class(view: IngressClassView, meta: Meta, now: datetime) -> list[Cell]:
    named = view.spec.parameters
    text = NONE
    if named is not None:
        kind = f"{named.kind}.{named.api_group}" if named.api_group else named.kind
        text = f"{kind}/{named.name}"
    return [meta.name, view.spec.controller, text, created(meta, now)]


INGRESS_CLASSES = Printer(
    (
        NAME,
        Column("Controller", description="Controller that is responsible for handling this class"),
        Column("Parameters", description="A reference to a resource with additional parameters"),
        AGE,
    ),
    IngressClassView,
    _ingress_class,
)


# -- policies and addresses -----------------------------------------------------------------------------


class _PolicySpec(msgspec.Struct, frozen=True, rename="camel"):
    pod_selector: Selector = Selector()


class NetworkPolicyView(View, frozen=True):
    """The fields of a network policy that its cells rest on."""

    spec: _PolicySpec = _PolicySpec()


def _network_policy(view: NetworkPolicyView, meta: Meta, now: datetime) -> list[Cell]:
    return [meta.name, selector_text(view.spec.pod_selector), created(meta, now)]


NETWORK_POLICIES = Printer(
    (NAME, Column("Pod-Selector", description="Pods the policy applies to."), AGE),
    NetworkPolicyView,
    _network_policy,
)


class _Parent(msgspec.Struct, frozen=True):
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""


class _AddressSpec(msgspec.Struct, frozen=True, rename="camel"):
    parent_ref: _Parent | None = None


class IPAddressView(View, frozen=True):
    """The fields of an IPAddress that its cells rest on."""

    spec: _AddressSpec = _AddressSpec()


def _ip_address(view: IPAddressView, meta: Meta, now: datetime) -> list[Cell]:
    del now
    parent = view.spec.parent_ref
    if parent is None:
        return [meta.name, NONE]
    resource = f"{parent.resource}.{parent.group}" if parent.group else parent.resource
    parts = (resource, parent.namespace, parent.name) if parent.namespace else (resource, parent.name)
    return [meta.name, "/".join(parts)]


IP_ADDRESSES = Printer(
    (NAME, Column("ParentRef", description="The object the address is allocated to.")),
    IPAddressView,
    _ip_address,
)


class _RangeSpec(msgspec.Struct, frozen=True):
    cidrs: list[str] | None = None


class ServiceCIDRView(View, frozen=True):
    """The fields of a ServiceCIDR that its cells rest on."""

    spec: _RangeSpec = _RangeSpec()


def _service_cidr(view: ServiceCIDRView, meta: Meta, now: datetime) -> list[Cell]:
    return [meta.name, ",".join(view.spec.cidrs or ()), created(meta, now)]


SERVICE_CIDRS = Printer(
    (NAME, Column("CIDRs", description="Ranges that services' addresses are taken from."), AGE),
    ServiceCIDRView,
    _service_cidr,
)
