import pytest

from shoal.cluster.settings import ShoalSettings, load_settings, parse_settings
from shoal.shards.model.errors import SettingsError


def test_no_file_gives_the_defaults():
    assert load_settings(None) == ShoalSettings()


def test_a_file_overrides_what_it_names_and_nothing_else(tmp_path):
    file = tmp_path / "shoal.yaml"
    file.write_text("shards: 5\nwatch:\n  page_limit: 100\n")
    settings = load_settings(file)
    assert settings.shards == 5
    assert settings.watch.page_limit == 100
    assert settings.store == ShoalSettings().store


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (
            {"source": {"kubecnfig": "x"}},
            "x.yaml: source.kubecnfig: unknown setting; expected one of: kubeconfig, context, in_cluster",
        ),
        ({"shards": "many"}, "x.yaml: shards: expected `int`, got `str`"),
        (
            {"log": {"level": "loud"}},
            "x.yaml: log.level: invalid enum value 'loud'; expected one of: debug, info, warning, error",
        ),
        ({1: 2}, "x.yaml: the file: names of settings are text"),
        (
            {"watch": {"backoff_first_s": 10, "backoff_max_s": 1}},
            "x.yaml: watch.backoff_first_s is 10: expected at most watch.backoff_max_s, 1",
        ),
        (
            {"watch": {"timeout_min_s": float("inf")}},
            "x.yaml: watch.timeout_min_s: expected `float` <= 1000000000.0",
        ),
        ({"shards": 0}, "x.yaml: shards: expected `int` >= 1"),
        ({"watch": {"page_limit": 0}}, "x.yaml: watch.page_limit: expected `int` >= 1"),
        (
            {"follow": {"include": []}},
            "x.yaml: follow.include is empty, so nothing would be followed; leave it out for everything",
        ),
        (
            {"source": {"in_cluster": True, "context": "x"}},
            "x.yaml: source.in_cluster goes neither with source.kubeconfig nor with source.context",
        ),
        (["shards"], "x.yaml: the file: expected `object`, got `array`"),
    ],
)
def test_a_wrong_setting_names_its_path_and_what_was_expected(document, sentence):
    with pytest.raises(SettingsError) as caught:
        parse_settings(document, where="x.yaml")
    assert str(caught.value) == sentence


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml cannot be read"):
        load_settings(tmp_path / "none.yaml")


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("a: [1,\n")
    with pytest.raises(SettingsError, match=r"bad\.yaml is not YAML"):
        load_settings(file)


def test_an_empty_file_is_all_defaults(tmp_path):
    file = tmp_path / "empty.yaml"
    file.write_text("")
    assert load_settings(file) == ShoalSettings()
