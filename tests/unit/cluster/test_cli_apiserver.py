"""The embedded server from the command line: who may do what there, and options that contradict each other."""

import pytest
import yaml
from click.testing import CliRunner

from shoal.cluster.cli.apiserver import _administrator, _tls, _users
from shoal.cluster.cli.main import root
from shoal.cluster.serving.identity import MASTERS
from shoal.shards.model.errors import SettingsError

RULED = [
    {"name": "alice", "token": "a"},
    {"name": "bob", "token": "b", "rules": [{"verbs": ["get"]}]},
]


@pytest.fixture
def users(tmp_path):
    def write(document):
        file = tmp_path / "users.yaml"
        file.write_text(yaml.safe_dump(document))
        return str(file)

    return write


def test_users_with_rules_are_not_mistaken_for_users_under_rbac(users):
    file = users(RULED)
    assert [user.name for user in _users(file, rbac=False)] == ["alice", "bob"]
    with pytest.raises(SettingsError, match="the rules of bob do not count with --rbac"):
        _users(file, rbac=True)
    assert [user.token for user in _users(users(RULED[:1]), rbac=True)] == ["a"]


@pytest.mark.parametrize("document", [None, "text", [1], [{"name": "x"}], [{"name": "x", "token": 1}]])
def test_a_users_file_that_is_none(users, document):
    with pytest.raises(SettingsError, match="users file .*users.yaml: "):
        _users(users(document), rbac=True)


def test_whoever_has_the_token_may_do_everything():
    (administrator,) = _administrator("t")
    assert (administrator.token, administrator.groups) == ("t", (MASTERS,))


def test_rbac_that_lets_nobody_do_anything_is_refused():
    outcome = CliRunner().invoke(root, ["apiserver", "--rbac"])
    assert outcome.exit_code == 1
    assert outcome.output.startswith("error: --rbac without --token, --users or --client-ca-file")


@pytest.mark.parametrize("optional", [True, False])
def test_under_rbac_a_client_certificate_is_one_way_to_be_known(tmp_path, optional):
    files = [tmp_path / name for name in ("crt", "key", "ca")]
    for file in files:
        file.touch()
    tls = _tls(*files, optional=optional)
    assert tls is not None
    assert tls.optional is optional
