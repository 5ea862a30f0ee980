"""What the monitor keeps: last good states in a file, settings from one, audit lines in another."""

import stat
from pathlib import Path

import gateway_monitor
import msgspec
import pytest
from gateway_monitor.correlation import Model
from gateway_monitor.facts import Place
from gateway_monitor.files import append_line, read_state, write_state
from gateway_monitor.lastgood import LastGood, StateInvalid
from gateway_monitor.relaxation import relaxed
from gateway_monitor.settings import Rule, Settings, SettingsInvalid, read_settings
from support.gateway_objects import LIMITS, ROUTES, limit, route

PACKAGE = Path(gateway_monitor.__file__).parent


def model():
    made = Model()
    made.added(ROUTES, route(), 0)
    made.added(LIMITS, limit(), 0)
    return made


# -- last good states ----------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_holds_nothing(tmp_path):
    assert len(read_state(str(tmp_path / "none"))) == 0


def test_a_change_made_while_nobody_looked_is_found(tmp_path):
    path = tmp_path / "deep" / "state.json"
    write_state(str(path), model().good.encode())
    again = Model(good=read_state(str(path)))
    again.added(ROUTES, route(version=50), 1)
    again.added(LIMITS, limit(version=51, rate=5000), 1)
    again.evaluate(1)
    assert {identity.check for identity in again.findings} == {"route_down", "policy_relaxed"}


def test_a_route_removed_while_nobody_looked_is_found_once_everything_is_known():
    again = Model(good=LastGood.decode(model().good.encode()), incomplete=[ROUTES])
    assert again.evaluate(1) == []
    again.complete(ROUTES)
    assert [one.finding.check for one in again.evaluate(1)] == ["production_route_removed"]


def test_a_remembered_state_counts_more_than_an_older_one_of_a_restored_server():
    again = Model(good=LastGood.decode(model().good.encode()))
    again.added(LIMITS, limit(version=0, rate=7), 1)
    assert again.good.get(LIMITS, Place("shop", "web")).facts.spec["requestsPerSecond"] == 100


def test_only_its_owner_may_read_it_and_nothing_is_left_behind(tmp_path):
    path = tmp_path / "state.json"
    write_state(str(path), b"one")
    write_state(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["state.json"]


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_state(str(path), b"one")

    def refused(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OSError, match="No space left"):
        write_state(str(path), b"two")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("state.json", b"one")]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is damaged"),
        (b"[1, 2", "it is damaged"),
        (b"[1]", "its format is None: expected 'shoal-gateway-monitor/2'"),
        (b'{"format": "shoal-gateway-monitor/9"}', "its format is 'shoal-gateway-monitor/9'"),
        (b'{"format": "shoal-gateway-monitor/2", "states": [{"resource": 7}]}', "it is damaged: .*states"),
    ],
)
def test_a_damaged_file_is_left_as_it_is(tmp_path, content, why):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(StateInvalid, match=f"state.json cannot be used: {why}.*move it away to start anew"):
        read_state(str(path))
    assert path.read_bytes() == content


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(StateInvalid, match="cannot be read: Is a directory"):
        read_state(str(tmp_path))


def test_states_of_objects_deleted_and_made_again_are_bounded():
    good = Model()
    for version in range(1, 50):
        good.added(LIMITS, limit(version=version, uid=f"life {version}"), 0)
    assert len(good.good) == 1
    assert good.good.get(LIMITS, Place("shop", "web")).version == 1


# -- the audit -----------------------------------------------------------------------------------------------


def test_lines_are_added(tmp_path):
    path = tmp_path / "audit"
    append_line(str(path), "one")
    append_line(str(path), "two")
    assert path.read_text() == "one\ntwo\n"


def test_a_line_that_cannot_be_written_is_logged_and_no_error(tmp_path, caplog):
    append_line(str(tmp_path), "one")
    assert [record.message for record in caplog.records] == ["audit line not written"]


# -- settings ------------------------------------------------------------------------------------------------


def test_the_file_that_shows_all_settings_shows_all_and_the_defaults():
    assert read_settings(PACKAGE / "settings.yaml") == Settings()
    shown = msgspec.yaml.decode((PACKAGE / "settings.yaml").read_bytes())
    assert set(shown) == {field.name for field in msgspec.structs.fields(Settings)}
    for part in ("checks", "alerts", "rollback"):
        known = {field.name for field in msgspec.structs.fields(type(getattr(Settings(), part)))}
        assert set(shown[part]) == known


def test_an_empty_file_is_all_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    assert read_settings(tmp_path / "empty.yaml") == Settings()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("checks: {limt_factor: 2}", r"unknown field `limt_factor` - at `\$.checks`"),
        ("checks: {limit_factor: 1}", r"Expected `float` > 1.0 - at `\$.checks.limit_factor`"),
        ("checks: {compared: [spec]}", r"'spec' is no JSON pointer"),
        ("checks: {rules: {x: [{path: /spec/a, sort: ordered}]}}", "`order` goes with sort `ordered`"),
        ("rollback: {restore: {x: {fields: [/status]}}}", "only fields of /spec and /metadata/labels"),
        ("alerts: {alertmanagers: [{url: x, expire_s: 1}]}", "at least twice resend_s"),
        ("rollback: {checks: [policy_relaxd]}", r"'policy_relaxd' - at `\$.rollback.checks"),
        ("rollback: {checks: [route_down]}", r"'route_down' - at `\$.rollback.checks"),
        ("alerts: {hold_s: {routedown: 3}}", r"'routedown' - at `key` in `\$.alerts.hold_s`"),
        ("rollback: {told_s: .inf}", r"Expected `float` <= .*told_s"),
        ("rollback: {delay_s: .nan}", r"delay_s"),
        ("alerts: {repeat_s: .inf}", r"Expected `float` <= .*repeat_s"),
        ("checks: {limit_factor: .inf}", r"Expected `float` <= .*limit_factor"),
        (
            "checks: {limits: {x: {/spec/a: {least: 5, most: 1}}}}",
            r"least is 5: expected at most `most` \(1\)",
        ),
        ("checks: {limits: {x: {/spec/a: {most: .inf}}}}", "most is inf: expected a finite number"),
        ("checks: {limits: {x: {/spec/a: {}}}}", "give `least`, `most` or both"),
        ("checks: {limits: {x: {/spec/a/: {most: 1}}}}", "'/spec/a/' is no JSON pointer"),
        (
            "checks: {limits: {x: {/metadata/annotations/a: {most: 1}}}}",
            "/metadata/annotations/a: expected a field",
        ),
        ("checks: {rules: {x: [{path: spec/a, sort: limit}]}}", "'spec/a' is no JSON pointer"),
        ("checks: {rules: {x: [{path: /spec/a~2, sort: limit}]}}", "'/spec/a~2' is no JSON pointer"),
        ("checks: {rules: {x: [{path: /status/a, sort: limit}]}}", "/status/a: expected a field"),
        ("checks: {compared: [/metadata/annotations]}", "/metadata/annotations: expected a field"),
        ("rollback: {restore: {x: {fields: [/spec//a]}}}", "'/spec//a' is no JSON pointer"),
        (
            "alerts: {alertmanagers: [{url: alertmanager:9093}]}",
            "expected a URL that begins with http:// or https://",
        ),
        (
            "alerts: {webhooks: [{url: hooks.example.com/x}]}",
            "expected a URL that begins with http:// or https://",
        ),
        ("alerts: {webhooks: [{url: 'ftp://hooks.example.com/x'}]}", "expected a URL that begins with http"),
        ("alerts: {webhooks: [{url: 'https:///x'}]}", "expected a URL that begins with http"),
        ("alerts: {generator_url: api.example.com}", "expected a URL that begins with http"),
        ("a: [", "while parsing"),
        ("[]", "Expected `object`, got `array`"),
    ],
)
def test_bad_settings_are_named(tmp_path, content, why):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(SettingsInvalid, match=f"bad.yaml: [\\s\\S]*{why}"):
        read_settings(tmp_path / "bad.yaml")


def test_an_error_about_a_webhook_does_not_show_it(tmp_path):
    (tmp_path / "bad.yaml").write_text("alerts: {webhooks: [{url: hooks.example.com/T0/secret}]}")
    with pytest.raises(SettingsInvalid) as invalid:
        read_settings(tmp_path / "bad.yaml")
    assert "T0" not in str(invalid.value)


def test_an_order_of_a_rule_is_compared_without_regard_to_case():
    rule = Rule(path="/spec/mode", sort="ordered", order=("Off", "Detect", "Block"))
    [found] = relaxed([rule], {"spec": {"mode": "Block"}}, {"spec": {"mode": "Off"}}, 2.0)
    assert found.why.endswith("went from block down to off")


def test_a_settings_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsInvalid, match="none.yaml: .*No such file"):
        read_settings(tmp_path / "none.yaml")
