import msgspec
import pytest

from shoal.coordinator.settings import CoordinatorSettings, FollowSettings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"include": []}, "follow.include is empty"),
        ({"exclude": ["Pods"]}, r"follow.exclude\[0\]: 'Pods' is not a resource pattern"),
        ({"carve": {"p*": ["a"]}}, r"follow.carve: 'p\*' has a \*"),
        ({"carve": {"pods": []}}, r"follow.carve\['pods'\] names no namespace"),
        ({"carve": {"pods": ["A"]}}, "'A' is not the name of a namespace"),
        ({"same_objects": {"events": [""]}}, "expected two groups or more"),
        ({"same_objects": {"v1/events": ["", "a"]}}, "expected the plural name alone"),
        ({"secrets": "maybe"}, "Invalid enum value 'maybe'"),
        ({"incluude": ["pods"]}, "unknown field `incluude`"),
    ],
)
def test_a_wrong_rule_says_where_and_what_was_expected(wrong, message):
    with pytest.raises(msgspec.ValidationError, match=message) as caught:
        msgspec.convert({"follow": wrong}, CoordinatorSettings)
    assert "$.follow" in str(caught.value)


def test_right_rules_are_taken():
    written = {
        "include": ["*"],
        "exclude": ["*.gateway.example.com", "v1/endpoints"],
        "secrets": "redact",
        "carve": {"pods": ["big-one", "kube-system"]},
        "same_objects": {"events": ["events.k8s.io", ""]},
    }
    assert msgspec.convert({"follow": written}, CoordinatorSettings).follow.carve == {
        "pods": ("big-one", "kube-system")
    }


def test_everything_but_secrets_is_followed_by_default():
    settings = FollowSettings()
    assert (settings.include, settings.exclude, settings.secrets) == (("*",), (), "exclude")
