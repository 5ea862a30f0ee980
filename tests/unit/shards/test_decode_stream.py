"""The stream of lines: garbage, chunks cut anywhere, long lines, and redaction."""

from __future__ import annotations

import json

import pytest
from support.observed import NODES, POD, PODS, changed, compact, line, only, without_managed_fields

from shoal.shards.api.decode import Decoder
from shoal.shards.model.errors import Garbage
from shoal.shards.model.observations import GarbageLine, Observation
from shoal.shards.model.resources import Resource, ResourceType

# -- garbage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"garbage",
        b"\xff\xfe\x00",
        b"{}",
        b"[]",
        b"null",
        b'{"type":"MODIFIED","object":{}}',
        b'{"type":"MODIFIED","object":null}',
        b'{"type":"BOOKMARK","object":{"metadata":{}}}',
        b'{"type":"SOMETHING","object":{}}',
        line(POD)[:-40].strip(),
        line(POD)[200:].strip(),
        line(changed(POD, name="")).strip(),
        line(changed(POD, name=5)).strip(),
        line(changed(POD, uid="")).strip(),
        line(changed(POD, resourceVersion="")).strip(),
        line(changed(POD, resourceVersion="7a")).strip(),
        line(changed(POD, resourceVersion="-7")).strip(),
        line(changed(POD, resourceVersion=7)).strip(),
        line(changed(POD, namespace=["n"])).strip(),
        line(POD).strip().replace(b"Running", b"\xff"),
        line(changed(POD, annotations={"a": "here"})).strip().replace(b"here", b"\xff"),
        b'{"type":"MODIFIED","object":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"[" * 100_000,
        line(POD).strip() + line(POD).strip(),
    ],
)
def test_a_garbage_line_is_an_item_and_the_next_line_is_read(text: bytes) -> None:
    decoder = Decoder(PODS)
    bad, good = decoder.lines(text + b"\n" + line(POD))
    assert isinstance(bad, GarbageLine)
    assert bad.problem
    assert len(bad.excerpt) <= 200
    assert isinstance(good, Observation)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"metadata":{"resourceVersion":"x"},"items":[]}',
        b'{"metadata":{"resourceVersion":"5"}}',
        b'{"metadata":{"resourceVersion":"5"},"items":{}}',
        b'{"metadata":{"resourceVersion":"5"},"items":[{}]}',
        b'{"metadata":{"resourceVersion":"5"},"items":[5]}',
        b'{"kind":"Status","metadata":{},"code":410}',
        b'{"metadata":{"resourceVersion":"5"},"items":[' + b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_list_is_garbage(body: bytes) -> None:
    with pytest.raises(Garbage, match="not a list of objects"):
        list(Decoder(PODS).page(body).observations)


def test_a_list_without_items() -> None:
    assert list(Decoder(PODS).page(b'{"metadata":{"resourceVersion":"5"},"items":null}').observations) == []


# -- the stream ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100, 4096, 1 << 20])
def test_chunks_may_be_cut_anywhere(size: int) -> None:
    decoder = Decoder(PODS)
    stream = b"".join(line(changed(POD, resourceVersion=str(version))) for version in range(1, 60))
    found = [item for at in range(0, len(stream), size) for item in decoder.lines(stream[at : at + size])]
    assert [item.version for item in found if isinstance(item, Observation)] == list(range(1, 60))
    assert decoder.pending == 0


def test_the_unfinished_line_is_held_and_can_be_forgotten() -> None:
    decoder = Decoder(PODS)
    assert decoder.lines(b'{"type":') == []
    assert decoder.lines(b'"x"') == []
    assert decoder.pending == 11
    decoder.reset()
    assert decoder.pending == 0
    assert only(decoder, line(POD)).version == 7


def test_blank_lines_are_no_items() -> None:
    assert len(Decoder(PODS).lines(b"\n\n" + line(POD) + b"\n \n")) == 1


def test_an_object_of_ten_megabytes_in_small_chunks() -> None:
    decoder = Decoder(PODS)
    document = changed(POD, annotations={"big": "x" * (10 << 20)})
    stream = line(document)
    found = [item for at in range(0, len(stream), 65536) for item in decoder.lines(stream[at : at + 65536])]
    assert len(found) == 1
    assert isinstance(found[0], Observation)
    assert json.loads(found[0].body) == without_managed_fields(document)


def test_a_line_that_is_too_long_is_skipped_without_being_held() -> None:
    decoder = Decoder(PODS, line_bytes_max=1000)
    found = []
    for _ in range(50):
        found += decoder.lines(b"x" * 100)
        assert decoder.pending <= 1000
    assert [type(item) for item in found] == [GarbageLine]
    assert only(decoder, b"xxx\n" + line(POD)).version == 7
    whole = decoder.lines(b"y" * 2000 + b"\n" + line(POD))
    assert [type(item) for item in whole] == [GarbageLine, Observation]


# -- redaction -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["watch", "list"])
def test_redaction_keeps_keys_and_drops_values(form: str) -> None:
    secrets = ResourceType(
        resource=Resource("", "v1", "secrets"), kind="Secret", namespaced=True, selectable_fields=("type",)
    )
    secret = {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": POD["metadata"]
        | {
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": '{"data":{"a":"hidden"}}',
                "b": "c",
                "kubernetes.io/service-account.name": "robot",
            }
        },
        "data": {"password": "hidden", "b": "aGlkZGVu"},
        "stringData": {"c": "hidden"},
        "type": "Opaque",
    }
    decoder = Decoder(secrets, redact=True)
    if form == "watch":
        found = only(decoder, line(secret))
    else:
        (found,) = decoder.page(
            compact({"metadata": {"resourceVersion": "9"}, "items": [secret]})
        ).observations
    assert b"hidden" not in found.body
    assert b"aGlkZGVu" not in found.body
    document = json.loads(found.body)
    assert document["data"] == {"password": "", "b": ""}
    assert document["stringData"] == {"c": ""}
    assert document["metadata"]["annotations"] == {"kubernetes.io/service-account.name": "robot"}
    assert found.fields == ("Opaque",)
    assert "managedFields" not in document["metadata"]


def test_redaction_of_a_secret_without_data() -> None:
    document = {"kind": "Node", "apiVersion": "v1", "metadata": POD["metadata"], "data": None}
    assert json.loads(only(Decoder(NODES, redact=True), line(document)).body)["data"] is None


def test_redaction_leaves_nothing_of_data_that_is_no_map() -> None:
    document = {"kind": "Node", "apiVersion": "v1", "metadata": POD["metadata"], "data": "hidden"}
    found = only(Decoder(NODES, redact=True), line(document))
    assert b"hidden" not in found.body
    assert "data" not in json.loads(found.body)


def test_the_excerpt_of_a_line_to_be_redacted_is_withheld() -> None:
    document = {"metadata": {}, "data": {"p": "hidden"}, "kind": "Node", "apiVersion": "v1"}
    (found,) = Decoder(NODES, redact=True).lines(line(document))
    assert isinstance(found, GarbageLine)
    assert "hidden" not in f"{found}"
