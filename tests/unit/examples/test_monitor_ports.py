"""Which endpoints of a service answer on the port that a route leads to."""

import pytest
from gateway_monitor.correlation import Model
from gateway_monitor.settings import Checks
from support.gateway_objects import PODS, ROUTES, SERVICES, SLICES, endpoints, pod, route, service

TWO = [{"name": "http", "port": 80}, {"name": "admin", "port": 9000}]


def found(*objects):
    """What is wrong with the route: the summary, and what explains it."""
    model = Model(Checks())
    for now, (resource, document) in enumerate(objects, 1):
        model.added(resource, document, float(now))
    model.evaluate(100.0)
    return [(one.summary, one.details) for one in model.findings.values()]


def world(*slices, port=80, ports=TWO):
    return (
        (ROUTES, route(port=port)),
        (SERVICES, service(ports=ports)),
        *((SLICES, one) for one in slices),
        (PODS, pod("web-1")),
    )


@pytest.mark.parametrize("port", [80, "80", "http"])
def test_a_route_whose_port_no_endpoint_has_is_down(port):
    [(summary, details)] = found(*world(endpoints(ready=["web-1"], ports=["admin"]), port=port))
    assert summary == f"route shop/web is down: no endpoint of service shop/web has port {port}"
    assert details == ("ports of its endpoints: admin", "pod shop/web-1: ready")


def test_only_slices_with_the_port_count():
    ready, unready = endpoints(ready=["web-1"], ports=["admin"]), endpoints("b", unready=["web-2"])
    [(summary, details)] = found(*world(ready, unready))
    assert summary == "route shop/web is down: none of the 1 endpoints of service shop/web is ready"
    assert details == ("pod shop/web-2: there is no such pod", "without port 80, so not counted: 1 endpoint")
    assert found(*world(ready, unready, port=9000)) == []
    assert found(*world(ready, endpoints("b", ready=["web-2"]))) == []


@pytest.mark.parametrize(
    ("port", "ports", "slices"),
    [
        (80, TWO, ["http", "admin"]),
        (None, TWO, ["admin"]),
        (80, TWO, []),
        (80, [], ["admin"]),
        (80, [{"port": 80}], [""]),
        (53, [{"name": "dns", "port": 53}, {"name": "dns-tcp", "port": 53}], ["dns-tcp"]),
    ],
    ids=["both", "any will do", "not said", "headless", "without a name", "two of one number"],
)
def test_endpoints_that_have_the_port(port, ports, slices):
    assert found(*world(endpoints(ready=["web-1"], ports=slices), port=port, ports=ports)) == []


def test_a_port_without_a_name_is_one():
    ports = [{"port": 80}]
    document = endpoints(ready=["web-1"])
    document["ports"] = [{"name": None, "port": 8080}]
    assert found(*world(document, ports=ports)) == []
    document["ports"] = [{"name": "admin", "port": 8080}]
    [(_, details)] = found(*world(document, ports=ports))
    assert details[0] == "ports of its endpoints: admin"


def test_it_follows_the_ports_of_slices_and_services():
    model = Model(Checks())
    for resource, document in world(endpoints(ready=["web-1"])):
        model.added(resource, document, 1.0)
    assert model.evaluate(2.0) == []
    model.updated(
        SLICES, endpoints(ready=["web-1"]), endpoints(version=2, ready=["web-1"], ports=["admin"]), 3.0
    )
    assert [type(one).__name__ for one in model.evaluate(4.0)] == ["Opened"]
    moved = service(version=2, ports=[{"name": "admin", "port": 80}])
    model.updated(SERVICES, service(ports=TWO), moved, 5.0)
    assert [type(one).__name__ for one in model.evaluate(6.0)] == ["Resolved"]
