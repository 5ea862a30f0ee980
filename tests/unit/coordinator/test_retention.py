from shoal.coordinator.discovery_parse import DiscoveredGroup, DiscoveredVersion
from shoal.coordinator.retention import Retention
from shoal.coordinator.settings import DiscoverySettings
from shoal.shards.model.resources import Resource, ResourceType

WIDGETS = Resource("example.com", "v1", "widgets")


def look(*names):
    found = tuple(
        ResourceType(resource=Resource("example.com", "v1", name), kind="K", namespaced=True)
        for name in names
    )
    return (DiscoveredGroup("example.com", (DiscoveredVersion("v1", found),)),) if names else ()


def names(groups):
    return sorted(
        known.resource.name for group in groups for version in group.versions for known in version.resources
    )


def test_what_is_missing_for_a_moment_is_kept():
    retention = Retention(DiscoverySettings(vanish_s=3))
    assert names(retention.update(look("widgets", "gadgets"), declared=(), now=0)) == ["gadgets", "widgets"]
    assert names(retention.update(look("gadgets"), declared=(), now=2)) == ["gadgets", "widgets"]
    assert retention.missing == (WIDGETS,)
    assert names(retention.update((), declared=(), now=4)) == ["gadgets", "widgets"]
    assert names(retention.update(look("widgets", "gadgets"), declared=(), now=6)) == ["gadgets", "widgets"]
    assert retention.missing == ()


def test_what_stays_missing_is_dropped():
    retention = Retention(DiscoverySettings(vanish_s=3))
    retention.update(look("widgets", "gadgets"), declared=(), now=0)
    retention.update(look("gadgets"), declared=(), now=2)
    assert names(retention.update(look("gadgets"), declared=(), now=4)) == ["gadgets", "widgets"]
    assert names(retention.update(look("gadgets"), declared=(), now=5)) == ["gadgets"]
    assert names(retention.update(look("gadgets"), declared=(), now=6)) == ["gadgets"]


def test_time_without_looks_does_not_count():
    retention = Retention(DiscoverySettings(vanish_s=3))
    retention.update(look("widgets"), declared=(), now=0)
    assert names(retention.update((), declared=(), now=100)) == ["widgets"], (
        "the server has only just come back"
    )


def test_what_a_definition_declares_is_kept_longer():
    retention = Retention(DiscoverySettings(vanish_s=3, vanish_defined_s=60))
    retention.update(look("widgets"), declared=(), now=0)
    for now in range(1, 50):
        assert names(retention.update((), declared={WIDGETS}, now=now)) == ["widgets"]
    assert names(retention.update((), declared=(), now=50)) == [], "its definition is gone"


def test_what_goes_with_its_definition_is_gone_at_once():
    retention = Retention(DiscoverySettings(vanish_s=3))
    retention.update(look("widgets", "gadgets"), declared={WIDGETS}, now=0)
    assert names(retention.update((), declared=(), now=1)) == ["gadgets"]
