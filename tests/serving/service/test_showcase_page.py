"""The page in a real browser: history, neighbours, loans and scores, and titles that stay text."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient
from PIL import Image

from recbole_mars.serving.service import Engine, ServiceSettings, create_app
from recbole_mars.serving.showcase import Card, Directory, Showcase
from recbole_mars.serving.showcase.serving import listening, running

NAMES = ("scores", "history", "status", "error")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOSTILE = (
    "<script>document.body.dataset.owned = 1</script>",
    '<img src=x onerror="document.body.dataset.owned = 1">',
)


@pytest.fixture
def look(tmp_path):
    """The page as a browser has it after its script ran, for an address."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")

    def look(address, *options):
        command = [program, "--headless", "--no-sandbox", "--disable-gpu"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000"]
        done = subprocess.run(
            [*command, *options, address], capture_output=True, timeout=120, check=True
        )
        return done.stdout.decode()

    return look


@pytest.fixture
def app(publish, snapshots, store, models, tmp_path):
    publish(1)
    Image.new("RGB", (4, 6), "red").save(tmp_path / "cover.png")
    cards = {f"item{n}": Card(f"Film number {n}", tmp_path / "cover.png") for n in range(1, 21)}
    cards["item3"] = Card(HOSTILE[0], None)
    cards["item5"] = Card(HOSTILE[1], None)
    engine = Engine(snapshots, store)
    assert engine.reload_if_new() == "loaded"
    app = create_app(engine, ServiceSettings(seconds=20.0))
    app.include_router(Showcase(engine, Directory(models(1), store), cards).router)
    return app


@pytest.fixture
def page(app):
    with listening(0) as sock, running(app, sock) as address:
        yield f"{address}/"


def words(text):
    """What is to be read of a piece of HTML."""
    return html.unescape(re.sub(r"<[^>]*>", " ", text))


def part(dom, name):
    """The list of that id."""
    (found,) = re.findall(rf'<(?:ul|ol) id="{name}"[^>]*>(.*?)</(?:ul|ol)>', dom, re.DOTALL)
    return found


def ask(app, **body):
    response = TestClient(app).post("/v1/ctr", json={"explain": True, **body})
    assert response.status_code == 200, response.text
    return response.json()["explanation"]


def candidates(app, user):
    told = TestClient(app).get("/demo/history", params={"user": user}).json()
    return told, [each["item"] for each in told["candidates"]]


def test_a_low_active_user_is_shown_whole(look, page, app):
    told, offered = candidates(app, "person6")
    explanation = ask(app, user="person6", candidates=offered)
    assert explanation["added"]
    assert explanation["neighbours"]
    dom = look(f"{page}#user=person6", "--dump-dom")
    assert "User person6" in words(dom)
    assert re.search(r'id="error"[^>]*hidden', dom)

    history = words(part(dom, "history"))
    places = [history.index(each["title"]) for each in told["behaviours"]]
    assert places == sorted(places, reverse=True)
    likes = sum(each["liked"] for each in told["behaviours"])
    assert history.count("▲ liked") == likes
    assert history.count("▼ disliked") == len(told["behaviours"]) - likes

    neighbours = words(part(dom, "neighbours"))
    for near in explanation["neighbours"]:
        lent = sum(each["donor"] == near["user"] for each in explanation["added"])
        line = rf"User {near['user']}\s+similarity {near['similarity']:.2f}, lends {lent}"
        assert re.search(line, neighbours)
    added = words(part(dom, "added"))
    for each in explanation["added"]:
        assert f"{each['similarity']:.2f} · user {each['donor']}" in added
    assert "/demo/cover?item=item" in part(dom, "history") + part(dom, "added")

    shown = re.findall(r"<li.*?</li>", part(dom, "scores"), re.DOTALL)
    best = sorted(explanation["probabilities"], key=lambda each: -each["with_augmentation"])
    assert len(shown) == min(12, len(best))
    for row, each in zip(shown, best):
        for label, key in (
            ("with borrowed behaviours", "with_augmentation"),
            ("own history alone", "without_augmentation"),
        ):
            assert re.search(rf"{label}\s+{100 * each[key]:.1f}%", words(row))


class Tags(HTMLParser):
    """All elements of a page, as name and attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_titles_stay_text(look, page, records):
    met = {f"item{n}" for n in records["person6"].items}
    assert not met & {"item3", "item5"}
    dom = look(f"{page}#user=person6&like=item3&dislike=item5", "--dump-dom")
    for title in HOSTILE:
        assert f">{html.escape(title, quote=False)}</p>" in part(dom, "history")
    tags = Tags(dom).found
    assert [tag for tag, _ in tags].count("script") == 1
    assert not [attributes for _, attributes in tags if "onerror" in attributes]
    assert "data-owned" not in dict(tags)["body"]


def test_a_behaviour_that_is_added_changes_the_scores(look, page, app):
    told, offered = candidates(app, "person7")
    recent = [{"item": offered[0], "value": told["dislike"], "time": told["last_time"] + 1}]
    before = ask(app, user="person7", candidates=offered)["probabilities"]
    after = ask(app, user="person7", candidates=offered, recent=recent)["probabilities"]
    best, place = max((each["with_augmentation"], n) for n, each in enumerate(after))
    clicks = 100 * (best - before[place]["with_augmentation"])
    dom = look(f"{page}#user=person7&dislike={offered[0]}", "--dump-dom")
    top = words(re.findall(r"<li.*?</li>", part(dom, "scores"), re.DOTALL)[0])
    assert f"{100 * best:.1f}%" in top
    assert f"your clicks {clicks:+.1f}".replace("-", "\N{MINUS SIGN}") in top
    assert abs(clicks) > 0.1
    assert "Undo" in words(part(dom, "history"))


STEPS = """
  const seen = [];
  const step = (act) => new Promise((done) => {
    act();
    setTimeout(() => {
      const text = (id) => document.getElementById(id).textContent;
      const error = document.getElementById("error");
      const failed = error.hidden ? "" : text("error-text");
      seen.push([...["scores", "history", "status"].map(text), failed]);
      done();
    }, 1000);
  });
  const search = (text) => step(() => {
    const items = document.getElementById("items");
    items.value = text;
    items.dispatchEvent(new Event("input"));
  });
  const press = (selector) => step(() => document.querySelector(selector).click());
  addEventListener("load", async () => {
    await step(() => {});
    for (const [act, what] of %s) await {search, press}[act](what);
    const told = document.createElement("pre");
    told.id = "seen";
    told.textContent = JSON.stringify(seen);
    document.body.append(told);
  });
"""


@pytest.fixture
def use(look, page, app):
    """What the page says after it is loaded for a place, and after each step of its user."""

    def use(place, *steps):
        script = f"<script>{STEPS % json.dumps(steps)}</script></body>"
        used = TestClient(app).get("/").text.replace("</body>", script)
        app.add_api_route("/used", lambda: HTMLResponse(used))  # without the page's policy
        dom = look(f"{page}used#{place}", "--dump-dom")
        (found,) = re.findall(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
        return [dict(zip(NAMES, each)) for each in json.loads(html.unescape(found))]

    return use


def test_a_search_without_hits_is_no_error(use):
    """Clicks can be taken back while it shows nothing, and the next search scores again."""
    nothing = "No title has this in it."
    clicked, none, one_left, own, found = use(
        "user=person7&like=item3&like=item7",
        ("search", "no such film"),
        ("press", "#history .fresh button"),
        ("press", "#forget"),
        ("search", "number 12"),
    )
    assert [each["error"] for each in (clicked, none, one_left, own, found)] == [""] * 5
    assert clicked["history"].count("Undo") == none["history"].count("Undo") == 2
    assert one_left["history"].count("Undo") == 1
    assert "Film number 7" not in one_left["history"]  # the newest stands first
    assert "Undo" not in own["history"]
    assert [each["scores"] for each in (none, one_left, own)] == [nothing] * 3
    assert none["status"] == own["status"] == ""
    assert "Film number 12" in found["scores"]
    assert found["status"].startswith("1 item scored in")


def test_a_stranger_can_begin(look, page):
    dom = look(f"{page}#user=somebody", "--dump-dom")
    assert "Unknown, without behaviours" in words(dom)
    assert "Nothing yet." in words(part(dom, "history"))
    assert "Nobody was asked." in words(part(dom, "neighbours"))
    dom = look(f"{page}#user=somebody&like=item7", "--dump-dom")
    assert "1 own behaviour" in words(dom)
    assert "similarity" in words(part(dom, "neighbours"))


def test_what_the_service_refuses_is_told(look, page, store):
    dom = look(f"{page}#user={'x' * 600}", "--dump-dom")
    assert "The service answers 404: the user's name is empty or too long." in words(dom)
    store.fails = True
    dom = look(f"{page}#user=person6", "--dump-dom")
    assert "The service answers 503: the store does not answer." in words(dom)
    assert not re.search(r'id="error"[^>]*hidden', dom)


@pytest.mark.parametrize("size", [(1280, 900), (375, 900)])
def test_the_page_is_drawn(look, page, tmp_path, size):
    file = tmp_path / "page.png"
    width, height = size
    look(f"{page}#user=person6", f"--window-size={width},{height}", f"--screenshot={file}")
    with Image.open(file) as drawn:
        assert drawn.size == size
        colours = drawn.convert("RGB").getcolors(1 << 24)
    # The red covers, and the bars in the colour of the style.
    assert {(255, 0, 0), (0xB4, 0x42, 0x1A)} <= {colour for _, colour in colours}
