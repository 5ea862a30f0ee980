from support.discovery import recorded_body

from shoal.coordinator.catalogue import build_catalogue, compare_catalogues
from shoal.coordinator.discovery_parse import DiscoveredGroup, DiscoveredVersion, parse_root
from shoal.coordinator.settings import FollowSettings
from shoal.shards.model.resources import Resource, ResourceType


def recorded_groups():
    return (
        *parse_root(recorded_body("discovery-aggregated-api"), "/api").groups,
        *parse_root(recorded_body("discovery-aggregated-apis"), "/apis").groups,
    )


def followed(catalogue):
    return [str(known.resource) for known in catalogue.followed]


def known(name, *, group="", version="v1", verbs=("list", "watch"), kind="Kind"):
    return ResourceType(resource=Resource(group, version, name), kind=kind, namespaced=True, verbs=verbs)


def one_group(name, **versions):
    return DiscoveredGroup(name, tuple(DiscoveredVersion(version, few) for version, few in versions.items()))


def test_what_a_real_server_serves():
    catalogue = build_catalogue(recorded_groups(), FollowSettings())
    names = followed(catalogue)
    assert names == sorted(names, key=Resource.parse)
    assert {"v1/pods", "v1/events", "autoscaling/v2/horizontalpodautoscalers", "apps/v1/deployments"} <= set(
        names
    )
    assert len(names) == 57
    reasons = dict(catalogue.excluded)
    assert reasons == {
        "v1/bindings": "it cannot be followed: the server offers no list and no watch for it",
        "v1/componentstatuses": "it cannot be followed: the server offers no watch for it",
        "v1/secrets": "Secrets are left out unless follow.secrets says include or redact",
        "events.k8s.io/v1/events": "the same objects are followed as v1/events",
        "autoscaling/v1/horizontalpodautoscalers": "its objects are followed as "
        "autoscaling/v2/horizontalpodautoscalers, the preferred version",
        **dict.fromkeys(
            (
                "authentication.k8s.io/v1/selfsubjectreviews",
                "authentication.k8s.io/v1/tokenreviews",
                "authorization.k8s.io/v1/localsubjectaccessreviews",
                "authorization.k8s.io/v1/selfsubjectaccessreviews",
                "authorization.k8s.io/v1/selfsubjectrulesreviews",
                "authorization.k8s.io/v1/subjectaccessreviews",
            ),
            "it cannot be followed: the server offers no list and no watch for it",
        ),
    }
    assert catalogue.warnings == ()


def test_every_resource_is_followed_or_has_a_reason():
    groups = recorded_groups()
    every = {
        str(entry.resource) for group in groups for version in group.versions for entry in version.resources
    }
    for settings in (FollowSettings(), FollowSettings(include=("*.apps",), exclude=("deployments",))):
        catalogue = build_catalogue(groups, settings)
        excluded = [name for name, _ in catalogue.excluded]
        assert sorted([*followed(catalogue), *excluded]) == sorted(every)


def test_rules_include_and_exclude():
    settings = FollowSettings(include=("apps/*", "pods"), exclude=("*sets",))
    catalogue = build_catalogue(recorded_groups(), settings)
    assert followed(catalogue) == ["v1/pods", "apps/v1/controllerrevisions", "apps/v1/deployments"]
    reasons = dict(catalogue.excluded)
    assert reasons["apps/v1/daemonsets"] == "follow.exclude names it ('*sets')"
    assert reasons["v1/nodes"] == "follow.include does not name it"


def test_secrets_are_followed_only_when_asked_for():
    for rule in ("include", "redact"):
        assert "v1/secrets" in followed(build_catalogue(recorded_groups(), FollowSettings(secrets=rule)))
    named = build_catalogue(recorded_groups(), FollowSettings(include=("secrets",)))
    assert followed(named) == []
    excluded = build_catalogue(recorded_groups(), FollowSettings(secrets="include", exclude=("secrets",)))
    assert "v1/secrets" not in followed(excluded)


def test_the_other_of_two_groups_can_be_preferred_or_is_taken_when_the_first_is_excluded():
    preferred = build_catalogue(
        recorded_groups(), FollowSettings(same_objects={"events": ("events.k8s.io", "")})
    )
    assert "events.k8s.io/v1/events" in followed(preferred)
    assert dict(preferred.excluded)["v1/events"] == "the same objects are followed as events.k8s.io/v1/events"
    fallen_back = build_catalogue(recorded_groups(), FollowSettings(exclude=("v1/events",)))
    assert "events.k8s.io/v1/events" in followed(fallen_back)


def test_settings_can_name_more_groups_that_serve_the_same():
    groups = (one_group("a.example.com", v1=(known("things", group="a.example.com"),)),
              one_group("b.example.com", v1=(known("things", group="b.example.com"),)))  # fmt: skip
    both = build_catalogue(groups, FollowSettings())
    assert len(both.followed) == 2
    one = build_catalogue(groups, FollowSettings(same_objects={"things": ("b.example.com", "a.example.com")}))
    assert followed(one) == ["b.example.com/v1/things"]


def test_another_version_is_followed_for_what_the_preferred_one_lacks_or_rules_leave_out():
    group = one_group(
        "g",
        v2=(known("a", group="g", version="v2"), known("b", group="g", version="v2", verbs=("get",))),
        v1=(known("a", group="g"), known("b", group="g"), known("c", group="g")),
    )
    assert followed(build_catalogue((group,), FollowSettings())) == ["g/v1/b", "g/v1/c", "g/v2/a"]
    assert followed(build_catalogue((group,), FollowSettings(exclude=("g/v2/*",)))) == [
        "g/v1/a",
        "g/v1/b",
        "g/v1/c",
    ]


def test_a_resource_without_a_kind_is_not_followed():
    catalogue = build_catalogue((one_group("g", v1=(known("a", group="g", kind=""),)),), FollowSettings())
    assert catalogue.excluded == (("g/v1/a", "discovery does not name its kind"),)


def test_rules_without_effect_are_named():
    catalogue = build_catalogue(recorded_groups(), FollowSettings(include=("*", "podz"), exclude=("x/*",)))
    assert catalogue.warnings == (
        "follow.include: 'podz' matches no resource of this server",
        "follow.exclude: 'x/*' matches no resource of this server",
    )


def test_two_catalogues_are_compared():
    before = build_catalogue((one_group("g", v1=(known("a"), known("b"))),), FollowSettings())
    changed = known("b", kind="Other")
    after = build_catalogue((one_group("g", v1=(changed, known("c"))),), FollowSettings())
    change = compare_catalogues(before, after)
    assert [resource.name for resource in change.added] == ["c"]
    assert [resource.name for resource in change.removed] == ["a"]
    assert [resource.name for resource in change.changed] == ["b"]
    assert change
    assert not compare_catalogues(after, after)
