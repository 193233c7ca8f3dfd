"""The page's data: whom, what and which pictures it offers, and nothing else of the machine."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from recbole_mars.serving import RequestSettings, UserRecord
from recbole_mars.serving.service import Engine, create_app
from recbole_mars.serving.showcase import Card, Directory, Showcase, read_cards, read_page
from recbole_mars.serving.users import user_key

HOSTILE = '<script>document.title = "owned"</script>'


@pytest.fixture
def cards(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (4, 6), "red").save(folder / "item1.png")
    Image.new("RGB", (4, 6), "blue").save(folder / "item2.jpg")
    (folder / "item3.svg").write_text("<svg/>")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return {
        "item1": Card("One (1991)", folder / "item1.png"),
        "item2": Card("Zwei Straßen", folder / "item2.jpg"),
        "item3": Card("Three", folder / "item3.svg"),
        "item4": Card(HOSTILE, None),
        "item5": Card("Gone", folder / "item5.png"),
    }


@pytest.fixture
def directory(store, models):
    return Directory(models(1), store)


@pytest.fixture
def client(publish, snapshots, store, directory, cards):
    publish(1)
    engine = Engine(snapshots, store)
    assert engine.reload_if_new() == "loaded"
    app = create_app(engine)
    app.include_router(Showcase(engine, directory, cards).router)
    with TestClient(app) as client:
        yield client


def users(client, **parameters):
    told = client.get("/demo/users", params=parameters).json()
    return [each["user"] for each in told["users"]], told["count"]


def test_users_are_listed_by_activity_and_found_by_name(client):
    everyone, count = users(client)
    assert count == 9
    assert everyone == [f"person{n}" for n in (6, 7, 8, 1, 2, 3, 4, 5, 9)]  # low, high, new
    assert users(client, group="low") == (["person6", "person7", "person8"], 3)
    assert users(client, group="new") == (["person9"], 1)
    assert users(client, search="person7") == (["person7"], 1)
    assert users(client, search="person7", group="high") == ([], 0)
    assert users(client, group="unheard-of") == ([], 0)
    (row,) = client.get("/demo/users", params={"search": "person6"}).json()["users"]
    assert row == {"user": "person6", "group": "low", "seen": 3}


def test_a_long_list_is_cut_and_counted(store, models):
    store.put_many({user_key(f"x{n}"): UserRecord().to_bytes() for n in range(300)})
    found, count = Directory(models(1), store).find("x", "", 200)
    assert (len(found), count) == (200, 300)


def test_a_history_is_the_records(client, records):
    told = client.get("/demo/history", params={"user": "person6"}).json()
    record = records["person6"]
    assert told["known"] is True
    assert (told["group"], told["seen"], told["may_borrow"]) == ("low", 3, True)
    assert told["last_time"] == record.times[-1]
    assert [each["item"] for each in told["behaviours"]] == [f"item{n}" for n in record.items]
    assert [each["liked"] for each in told["behaviours"]] == record.liked.tolist()
    # Opinions are the ratings 1 to 5, a like is 4: a clear like and a clear dislike.
    assert (told["like"], told["dislike"]) == (5.0, 1.0)


def test_candidates_are_what_most_have_met_and_the_user_has_not(client, records):
    told = client.get("/demo/history", params={"user": "person6"}).json()
    counts = np.bincount(np.concatenate([r.items for r in records.values()]), minlength=21)
    offered = [int(each["item"][4:]) for each in told["candidates"]]
    assert set(offered) == set(range(1, 21)) - set(records["person6"].items.tolist())
    assert all(a >= b for a, b in zip(counts[offered], counts[offered[1:]]))


def test_who_has_met_everything_is_offered_what_is_popular(client, store):
    items = np.arange(1, 21, dtype=np.int32)
    columns = {"liked": items > 0, "opinions": items * 1.0, "times": items * 1.0}
    record = UserRecord(items, **columns, trained=items > 0, seen=20)
    store.put_many({user_key("person6"): record.to_bytes()})
    told = client.get("/demo/history", params={"user": "person6"}).json()
    assert len(told["candidates"]) == 20


def test_a_stranger_has_no_history(client):
    told = client.get("/demo/history", params={"user": "nobody"}).json()
    assert told["known"] is False
    assert (told["behaviours"], told["seen"], told["group"]) == ([], 0, "new")
    assert len(told["candidates"]) == 20


@pytest.mark.parametrize("user", ["", "x" * 510])
def test_a_name_that_no_store_takes_is_refused(client, user):
    response = client.get("/demo/history", params={"user": user})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "no_user")


def test_a_store_that_fails_is_told(client, store):
    store.fails = True
    response = client.get("/demo/history", params={"user": "person6"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "store")
    store.fails = False
    store.put_many({user_key("person6"): b"damaged"})
    assert client.get("/demo/history", params={"user": "person6"}).status_code == 503


def test_nothing_is_told_before_a_snapshot_is_loaded(snapshots, store, directory):
    engine = Engine(snapshots, store)
    app = create_app(engine)
    app.include_router(Showcase(engine, directory, {}).router)
    response = TestClient(app).get("/demo/history", params={"user": "person6"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")


def test_items_are_found_by_name_and_by_title(client):
    told = client.get("/demo/items", params={"id": ["item2", "item9", "strange"]}).json()["items"]
    assert told == [
        {"item": "item2", "title": "Zwei Straßen", "pictured": True},
        {"item": "item9", "title": "item9", "pictured": False},
        {"item": "strange", "title": "strange", "pictured": False},
    ]
    for text in ("STRASSEN", "straß", "zwei s"):
        found = client.get("/demo/items", params={"search": text}).json()["items"]
        assert [each["item"] for each in found] == ["item2"]
    found = client.get("/demo/items", params={"search": "item"}).json()["items"]
    assert {each["item"] for each in found} == {f"item{n}" for n in range(6, 21)}
    assert client.get("/demo/items", params={"search": "none such"}).json()["items"] == []


def test_a_cover_is_the_items_picture(client, cards):
    for item, kind in (("item1", "image/png"), ("item2", "image/jpeg")):
        response = client.get("/demo/cover", params={"item": item})
        assert response.headers["content-type"] == kind
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.content == cards[item].picture.read_bytes()


@pytest.mark.parametrize(
    "item",
    [
        *("item3", "item4", "item5", "item9", "", "../secret", "../secret.png", "item1.png"),
        *("/etc/passwd", "..%2fsecret.png", "pictures/item1.png", "item1\0", "~/.profile"),
    ],
)
def test_only_pictures_of_known_items_are_sent(client, item):
    response = client.get("/demo/cover", params={"item": item})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "no_cover")


def test_only_the_demo_has_the_page(client, serve):
    assert client.get("/").text == read_page().html
    document = json.dumps(client.get("/openapi.json").json())
    assert "/v1/ctr" in document
    assert "/demo" not in document
    plain = serve()
    for path in ("/", "/demo/users", "/demo/cover?item=item1"):
        assert plain.get(path).status_code == 404
        assert client.post(path).status_code == 405  # it only reads


def test_the_page_needs_nothing_else_and_runs_no_other_script(client):
    response = client.get("/")
    html = response.text
    assert not re.search(r"https?:|@import|url\(|src=\"|innerHTML|insertAdjacentHTML", html)
    assert "/* page." not in html
    policy = dict(
        part.split(" ", 1) for part in response.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


def test_every_field_of_the_page_has_a_label(client):
    html = client.get("/").text
    fields = re.findall(r"<(?:input|select) id=\"(\w+)\"", html)
    assert len(fields) == 5
    assert sorted(re.findall(r"<label for=\"(\w+)\"", html)) == sorted(fields)


def test_likes_of_labels_are_ones_and_zeros(store, models):
    model = models(1)
    settings = replace(model.settings, requests=RequestSettings(max_length=6, opinions="label"))
    directory = Directory(replace(model, settings=settings), store)
    assert (directory.like, directory.dislike) == (1.0, 0.0)


def test_cards_are_read_and_lost_pictures_left_out(tmp_path):
    (tmp_path / "covers").mkdir()
    (tmp_path / "covers" / "1.png").touch()
    told = {
        "a": {"title": "A", "picture": "covers/1.png"},
        "b": {"title": "B", "picture": "covers/2.png"},
        "c": {"title": "C", "picture": None},
    }
    file = tmp_path / "items.json"
    file.write_text(json.dumps(told))
    picture = tmp_path / "covers" / "1.png"
    assert read_cards(file) == {"a": Card("A", picture), "b": Card("B", None), "c": Card("C", None)}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"a": 1}', '{"a": {"title": "A"}}', '{"a": {"title": 1, "picture": null}}'],
)
def test_damaged_cards_are_refused(tmp_path, text):
    file = tmp_path / "items.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"items\.json is damaged"):
        read_cards(file)
