"""Redaction with planted values: whatever a Secret looks like, nothing of a value comes out of the decoder."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.observed import compact

from shoal.coordinator.settings import FollowSettings
from shoal.shards.api.decode import Decoder
from shoal.shards.model.errors import Garbage
from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import Epoch, Partition
from shoal.shards.model.queries import ChangesQuery
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.changes import feed_event
from shoal.shards.store.objects import PartitionStore

SECRETS = ResourceType(
    resource=Resource("", "v1", "secrets"),
    kind="Secret",
    namespaced=True,
    selectable_fields=("type", "data.password"),
    indexed_fields=("data.password",),
)
PLAIN = "pl4nted-v4lue"
CODED = base64.b64encode(PLAIN.encode()).decode()
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
VALUES = st.sampled_from([PLAIN, CODED, f'"{PLAIN}"', f"{CODED}{CODED}", PLAIN + "ä"])
KEYS = st.sampled_from(["password", "token", 'k"ey', "data", "managedFields", "ä"])
MAPS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=3)
ODD = st.sampled_from([None, [PLAIN], PLAIN, 7, {"a": {"b": PLAIN}}, {"a": None}])
COPIES = st.sampled_from([LAST_APPLIED, "kapp.k14s.io/original", "example.com/copy"])


@st.composite
def secrets(draw: st.DrawFn) -> dict[str, Any]:
    data = draw(MAPS | ODD)
    metadata: dict[str, Any] = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7"}
    if draw(st.booleans()):
        copy = json.dumps({"kind": "Secret", "data": data, "stringData": {"a": PLAIN}})
        metadata["annotations"] = {draw(COPIES): copy, "example.com/plain": "kept"}
    if draw(st.booleans()):
        metadata["managedFields"] = [{"manager": "m", "fieldsV1": {f'v:"{PLAIN}"': {}}}]
    members: dict[str, Any] = {"metadata": metadata, "data": data, "type": "Opaque"}
    if draw(st.booleans()):
        members["stringData"] = draw(MAPS | ODD)
    if draw(st.booleans()):
        members["unheardOf"] = {"value": PLAIN}
    order = draw(st.permutations(list(members)))
    return {"kind": "Secret", "apiVersion": "v1"} | {name: members[name] for name in order}


def clean(what: object) -> None:
    text = what.decode() if isinstance(what, bytes) else repr(what)
    assert PLAIN not in text
    assert CODED not in text


@given(document=secrets(), keep=st.booleans(), escaped=st.booleans(), listed=st.booleans())
def test_no_value_comes_out(document: dict[str, Any], *, keep: bool, escaped: bool, listed: bool) -> None:
    decoder = Decoder(SECRETS, redact=True, keep_managed_fields=keep)
    text = compact(document)
    if escaped:
        text = text.replace(b'"data"', b'"d\\u0061ta"')
    if listed:
        (found,) = decoder.page(b'{"metadata":{"resourceVersion":"9"},"items":[%b]}' % text).observations
    else:
        (item,) = decoder.lines(b'{"type":"ADDED","object":%b}\n' % text)
        assert isinstance(item, Observation)
        found = item
    clean(found)
    clean(found.body)
    redacted = json.loads(found.body)
    assert redacted["metadata"]["name"] == "a"
    assert "annotations" not in redacted["metadata"]
    assert found.fields == ("Opaque", "")
    if isinstance(document["data"], dict):
        assert redacted["data"] == dict.fromkeys(document["data"], "")


ENCODINGS = st.sampled_from(
    [
        lambda value: value,
        lambda value: json.dumps(value.decode(errors="replace")).encode(),
        lambda value: json.dumps(json.dumps({"p": value.decode(errors="replace")})).encode(),
        base64.b64encode,
        lambda value: base64.b64encode(value).rstrip(b"="),
        base64.urlsafe_b64encode,
        lambda value: base64.b64encode(value + b"\n"),
        lambda value: value.hex().encode(),
        lambda value: quote(value).encode(),
        lambda value: value.splitlines()[0],
        lambda value: b"data:\n  k: " + value,
        lambda value: value[::-1],
    ]
)


@given(
    value=st.binary(min_size=1, max_size=40).filter(lambda value: bool(value.strip())),
    name=st.sampled_from(["a", "example.com/copy", LAST_APPLIED, "k8s.io/x"]),
    encoding=ENCODINGS,
)
def test_no_annotation_repeats_a_value_in_any_encoding(value: bytes, name: str, encoding: Any) -> None:
    copy = encoding(value).decode(errors="replace")
    document = {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {
            "name": "a",
            "namespace": "n",
            "uid": "u",
            "resourceVersion": "7",
            "annotations": {name: copy, **STRUCTURE},
        },
        "data": {"k": base64.b64encode(value).decode()},
    }
    (found,) = Decoder(SECRETS, redact=True).lines(b'{"type":"ADDED","object":%b}\n' % compact(document))
    assert isinstance(found, Observation)
    assert json.loads(found.body)["metadata"]["annotations"] == STRUCTURE


STRUCTURE = {"kubernetes.io/service-account.name": "default", "meta.helm.sh/release-name": "web"}


LABEL_FORMS = st.sampled_from(
    [
        lambda value: value,
        lambda value: value.upper(),
        lambda value: f"x-{value}.y",
        lambda value: base64.b64encode(value.encode()).decode().rstrip("="),
        lambda value: base64.b64encode(f"{value}\n".encode()).decode().rstrip("="),
        lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
        lambda value: value.encode().hex(),
    ]
)


@given(
    value=st.text("abcXYZ019-_.", min_size=4, max_size=30).map(lambda text: f"a{text}z"),
    form=LABEL_FORMS,
    ending=st.sampled_from(["", "\n", "\nsecond line"]),
    plain=st.booleans(),
)
def test_a_label_that_repeats_a_value_loses_its_own(
    value: str, form: Any, ending: str, *, plain: bool
) -> None:
    whole = f"{value}{ending}"
    document: dict[str, Any] = {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {
            "name": "a",
            "namespace": "n",
            "uid": "u",
            "resourceVersion": "7",
            "labels": {"copy": form(value), "app": "//"},
        },
    }
    if plain:
        document["stringData"] = {"k": whole}
    else:
        document["data"] = {"k": base64.b64encode(whole.encode()).decode()}
    (found,) = Decoder(SECRETS, redact=True).lines(b'{"type":"ADDED","object":%b}\n' % compact(document))
    assert isinstance(found, Observation)
    assert json.loads(found.body)["metadata"]["labels"] == {"copy": "", "app": "//"}
    assert json.loads(found.labels) == {"copy": "", "app": "//"}


def test_annotations_and_values_of_what_is_redacted_are_no_fields() -> None:
    for path in ("metadata.annotations.plain", "data.password", "stringData.password"):
        for text in ("v1/secrets", "secrets"):
            with pytest.raises(ValueError, match=f"{path} has no value to be selected by"):
                FollowSettings(secrets="redact", indexed_fields={text: (path,)})
            FollowSettings(secrets="include", indexed_fields={text: (path,)})
    FollowSettings(secrets="redact", indexed_fields={"v1/secrets": ("type",), "v1/pods": ("data.a",)})


@given(
    document=secrets(), cut=st.integers(0, 2000), kind=st.sampled_from(["ADDED", "ERROR", "BOOKMARK", PLAIN])
)
def test_what_cannot_be_read_is_not_repeated(document: dict[str, Any], cut: int, kind: str) -> None:
    text = b'{"type":"%b","object":%b}' % (kind.encode(), compact(document))
    for broken in (text[:cut], text[cut:], text.replace(b'"uid":"u"', b'"uid":""'), text):
        for item in Decoder(SECRETS, redact=True, line_bytes_max=1 << 20).lines(broken + b"\n"):
            clean(item)
        for item in Decoder(SECRETS, redact=True, line_bytes_max=50).lines(broken + b"\n"):
            clean(item)


@given(document=secrets(), cut=st.integers(1, 60))
def test_a_list_that_cannot_be_read_is_not_repeated(document: dict[str, Any], cut: int) -> None:
    text = b'{"metadata":{"resourceVersion":"9"},"items":[%b]}' % compact(document)
    broken = text.replace(b'"resourceVersion":"7"', b'"resourceVersion":"%b"' % PLAIN.encode())
    for body in (text[:-cut], broken):
        with pytest.raises(Garbage) as caught:
            list(Decoder(SECRETS, redact=True).page(body).observations)
        clean(caught.value.message)


def test_an_error_line_says_what_to_do_and_nothing_else() -> None:
    status = {
        "kind": "Status",
        "code": 429,
        "reason": "TooManyRequests",
        "message": PLAIN,
        "details": {"retryAfterSeconds": 3, "name": PLAIN},
    }
    (found,) = Decoder(SECRETS, redact=True).lines(b'{"type":"ERROR","object":%b}\n' % compact(status))
    clean(found)
    assert "TooManyRequests" in repr(found)
    assert "retryAfterSeconds" in repr(found)


@given(documents=st.lists(secrets(), min_size=2, max_size=4))
def test_no_value_is_held_in_history_or_feeds(documents: list[dict[str, Any]]) -> None:
    store = PartitionStore(
        Partition(SECRETS.resource), SECRETS, settings=StoreSettings(settling_s=0), clock=lambda: 0.0
    )
    store.begin()
    store.finish(Version(1))
    decoder = Decoder(SECRETS, redact=True)
    for number, document in enumerate(documents):
        document["metadata"]["resourceVersion"] = str(10 + number)
        kind = b"DELETED" if document is documents[-1] else b"MODIFIED"
        for item in decoder.lines(b'{"type":"%b","object":%b}\n' % (kind, compact(document))):
            assert isinstance(item, Observation)
            store.apply(item)
    for event in store.events_after(Version(1)):
        told = feed_event(event)
        clean(told)
        clean(told.body)
    for exact in (True, False):
        query = ChangesQuery(partition=store.partition.id, epoch=Epoch(1), since=Version(1), exact=exact)
        for page in store.changes(query):
            for change in page.changes:
                clean(change.body)
