"""Secrets in the fields of objects do not reach alerts, logs or the audit."""

import pytest
from gateway_monitor.diff import Change, diff, shown
from gateway_monitor.documents import ABSENT
from gateway_monitor.relaxation import relaxed
from gateway_monitor.secrets import redacted
from gateway_monitor.settings import Rule

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "name",
    ["accessKey", "sharedKey", "hmacKey", "sessionKey", "clientKey", "pwd", "pass", "bearer", "basicAuth", "x-auth",
     "salt", "key", "dbPass", "ACCESS_KEY", "accesskey", "DB_PWD", "X-Api-Key", "keys", "passcode", "signature"],
)  # fmt: skip
def test_fields_by_their_names(name):
    assert SECRET not in str(shown(Change(("spec", name), ABSENT, SECRET)))
    assert SECRET not in str(redacted({name: {"a": [SECRET]}}))


@pytest.mark.parametrize(
    "name",
    ["publicKey", "monkeyCount", "passThrough", "keyName", "author", "salty", "compass", "requestsPerSecond"],
)
def test_fields_that_only_look_similar(name):
    assert SECRET in str(shown(Change(("spec", name), ABSENT, SECRET)))


@pytest.mark.parametrize("name", ["name", "key", "header"])
@pytest.mark.parametrize("value", ["value", "values"])
def test_a_value_is_judged_by_the_name_beside_it(name, value):
    pair = {name: "Authorization", value: [SECRET] if value == "values" else SECRET}
    assert SECRET not in str(redacted([pair]))
    old = {"spec": {"headers": [{**pair, value: "other-secret"}, {name: "Accept", value: "text"}]}}
    new = {"spec": {"headers": [pair, {name: "Accept", value: "json"}]}}
    told = str([shown(one) for one in diff(old, new)])
    assert SECRET not in told
    assert "other-secret" not in told
    assert "json" in told


def test_a_value_whose_name_has_changed_as_well():
    old, new = [{"name": "Authorization", "value": SECRET}], [{"name": "Accept", "value": "x"}]
    assert SECRET not in str([shown(one) for one in diff(old, new)])


@pytest.mark.parametrize(
    "text",
    [
        f"API_TOKEN={SECRET}",
        f"--password={SECRET}",
        f"--password {SECRET}",
        f"Authorization: {SECRET}",
        f"https://id.example.com/token?client_secret={SECRET}&x=1",
        f"https://id.example.com/?client%5Fsecret={SECRET}",
        f'{{"password": "{SECRET}"}}',
        f"https://{SECRET}@example.com/",
        f"a=1;pwd={SECRET}",
    ],
)
def test_names_and_values_in_one_text(text):
    assert SECRET not in str(redacted({"args": ["a", text], "one": text}))
    assert SECRET not in str(shown(Change(("spec", "args"), [], [text])))


def test_an_option_and_its_value_beside_one_another():
    assert redacted(["--token", SECRET, "--name", "x"]) == [
        "--token", "(redacted, 15 characters)", "--name", "x",
    ]  # fmt: skip


def test_urls_without_secrets_are_shown():
    url = "https://id.example.com:8443/token?page=2&x=y"
    assert redacted({"url": url, "when": "10:30", "cidr": "fe80::/10"}) == {
        "url": url, "when": "10:30", "cidr": "fe80::/10",
    }  # fmt: skip


@pytest.mark.parametrize("sort", ["accept", "allow", "deny"])
def test_elements_of_a_list_that_relaxes_a_policy(sort):
    before = ["a", f"https://example.com/?token={SECRET}-1"]
    after = ["a", f"https://example.com/?token={SECRET}-2"]
    [found] = relaxed(
        [Rule(path="/spec/list", sort=sort)], {"spec": {"list": before}}, {"spec": {"list": after}}, 2.0
    )
    assert SECRET not in found.why
    assert "redacted" in found.why


def test_elements_that_differ_in_a_secret_alone_differ():
    before, after = [{"token": "one"}], [{"token": "two"}]
    [found] = relaxed(
        [Rule(path="/spec/list", sort="accept")], {"spec": {"list": before}}, {"spec": {"list": after}}, 2.0
    )
    assert "two" not in found.why
