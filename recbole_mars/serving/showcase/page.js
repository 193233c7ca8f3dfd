"use strict";

const at = (id) => document.getElementById(id);
const SHOWN = 12; // scores at first
const CARDS = 10; // of a long list of items

// What is on the page: the user as the store has them, what was clicked here, the last answers.
const state = { user: "", told: null, clicks: [], items: [], answer: null, before: new Map(), shown: SHOWN, whole: new Set() };
let turn = 0; // of the question asked last: older answers are dropped

function element(tag, className = "", text = "", ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text; // never HTML: titles are data
  made.append(...children);
  return made;
}

function cover(item) {
  const initial = element("span", "cover", [...item.title][0] || "?");
  initial.setAttribute("aria-hidden", "true");
  if (!item.pictured) return initial;
  const image = element("img", "cover");
  image.alt = ""; // the title stands beside it
  image.loading = "lazy";
  image.addEventListener("error", () => image.replaceWith(initial));
  image.src = `/demo/cover?item=${encodeURIComponent(item.item)}`;
  return image;
}

function track(value) {
  const fill = element("span", "fill");
  fill.style.width = `${100 * Math.min(1, Math.max(0, value))}%`;
  const made = element("span", "track", "", fill);
  made.setAttribute("aria-hidden", "true");
  return made;
}

const percent = (value) => `${(100 * value).toFixed(1)}%`;
const points = (value) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(1)}`;
const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

async function fetched(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service cannot be reached; is it still running?");
  }
  const told = await response.json().catch(() => null);
  if (response.ok && told !== null) return told;
  const reason = told?.error?.message ?? response.statusText;
  throw new Error(`The service answers ${response.status}: ${reason || "no reason given"}.`);
}

const asked = (path, parameters) => fetched(`${path}?${new URLSearchParams(parameters)}`);

const titles = new Map();
const known = (items) => items.forEach((item) => titles.set(item.item, item));
const card = (name) => titles.get(name) ?? { item: name, title: name, pictured: false };

async function look_up(names) {
  const missing = [...new Set(names)].filter((name) => !titles.has(name));
  for (let place = 0; place < missing.length; place += 100) {
    const wanted = missing.slice(place, place + 100).map((name) => ["id", name]);
    known((await asked("/demo/items", wanted)).items);
  }
}

// Does something that may fail, and says on the page if it did.
async function attempt(work) {
  at("main").setAttribute("aria-busy", "true");
  try {
    await work();
    at("error").hidden = true;
  } catch (error) {
    at("error-text").textContent = error.message;
    at("error").hidden = false;
    at("retry").onclick = () => attempt(work);
  }
  at("main").setAttribute("aria-busy", "false");
}

async function list_users() {
  const typed = at("search").value.trim();
  const { users, count: all } = await asked("/demo/users", { search: typed, group: at("group").value });
  if (typed !== at("search").value.trim()) return;
  const options = users.map(({ user, group, seen }) =>
    new Option(`${user} · ${group} · ${count(seen, "behaviour")}`, user));
  if (typed && !users.some(({ user }) => user === typed)) {
    options.push(new Option(`Ask as “${typed}”`, typed));
  }
  at("users").replaceChildren(...options);
  at("users").value = state.user;
  at("counted").textContent = users.length < all
    ? `${users.length} of ${count(all, "user")}; type to find others` : count(all, "user");
}

// clicks: made already, as a link to this page tells them.
async function choose(user, clicks = []) {
  const mine = ++turn;
  const told = await asked("/demo/history", { user });
  if (mine !== turn) return;
  Object.assign(state, { user, told, clicks: [], items: told.candidates, before: new Map(), shown: SHOWN });
  state.whole.clear();
  known([...told.behaviours, ...told.candidates]);
  at("items").value = "";
  at("users").value = user;
  if (at("order").value === "clicks") at("order").value = "score";
  await score(); // what the clicks change is told against this
  if (!clicks.length || state.user !== user) return;
  await look_up(clicks.map(({ item }) => item));
  state.clicks = clicks;
  await score();
}

const place_of = ({ user, clicks }) =>
  `#${new URLSearchParams([["user", user], ...clicks.map(({ item, liked }) => [liked ? "like" : "dislike", item])])}`;

function go_to_place() {
  const named = [...new URLSearchParams(location.hash.slice(1))];
  const user = named.find(([name]) => name === "user")?.[1] || at("users").options[0]?.value;
  if (!user) throw new Error("The store has no users; run the offline runner.");
  const clicks = named.filter(([name]) => name === "like" || name === "dislike");
  return choose(user, clicks.map(([name, item]) => ({ item, liked: name === "like" })));
}

async function score() {
  const mine = ++turn;
  const begun = performance.now();
  const recent = state.clicks.map(({ item, liked }, place) => ({
    item,
    value: liked ? state.told.like : state.told.dislike,
    time: state.told.last_time + place + 1,
  }));
  // Where a search found nothing the history is asked about all the same, for what it is.
  const asked_for = state.items.length ? state.items : state.told.candidates;
  const body = { user: state.user, candidates: asked_for.map(({ item }) => item), recent, explain: true };
  const answer = await fetched("/v1/ctr", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const took = performance.now() - begun;
  await look_up(answer.explanation.added.map(({ item }) => item));
  if (mine !== turn) return;
  state.answer = answer;
  if (!recent.length) {
    answer.predictions.forEach(({ item, probability }) => state.before.set(item, probability));
  }
  const scored = `${count(state.items.length, "item")} scored in ${Math.round(took)} ms`;
  at("status").textContent = state.items.length ? scored : "";
  show();
}

async function click(item, liked, row) {
  const place = [...at("scores").children].indexOf(row);
  state.clicks.push({ item: item.item, liked });
  await attempt(score);
  // The rows are new, and this one is done: whoever works by keyboard goes on at the next.
  at("scores").querySelector(`li:nth-child(n + ${place + 1}) button:enabled`)?.focus();
}

function forget(place) {
  state.clicks.splice(place, place === undefined ? Infinity : 1);
  attempt(score);
}

function show() {
  const { told, answer, user, clicks } = state;
  const { neighbours, added, history_length } = answer.explanation;
  history.replaceState(null, "", place_of(state));
  document.title = `User ${user} · MARS, live`;
  at("user").textContent = `User ${user}`;
  at("snapshot").textContent = `by snapshot ${answer.snapshot}`;
  at("summary").textContent = summary(told, neighbours, added, history_length);
  const notes = [];
  if (answer.user_known === null) notes.push("The store does not answer: the history is not known.");
  answer.degraded.forEach((part) => notes.push(`Answered without the ${part}, which fails.`));
  if (answer.recent_ignored) notes.push("Some of the items clicked are left out: the model does not know them.");
  at("notes").textContent = notes.join(" ");
  at("notes").hidden = !notes.length;
  at("forget").hidden = !clicks.length;
  at("order").querySelector("[value=clicks]").hidden = !clicks.length;
  document.querySelector(".legend .before").hidden = !clicks.length;
  show_neighbours(neighbours, added);
  show_added(added);
  show_history();
  show_scores();
}

function summary(told, neighbours, added, read) {
  const group = { low: "low-active", mid: "mid-active", high: "high-active", new: "new since training" };
  const who = told.known
    ? `${group[told.group]}, ${count(told.seen, "behaviour")}` : "unknown, without behaviours";
  const begin = `${who[0].toUpperCase()}${who.slice(1)}. The model reads ${count(read, "own behaviour")}`;
  if (added.length) {
    return `${begin}, and before them ${added.length} borrowed from ${count(donors(added).size, "similar active user")}.`;
  }
  if (neighbours.length) return `${begin}; nothing of the similar users was near enough to borrow.`;
  if (!read) return `${begin}: tell it a like or a dislike, and it can look for similar users.`;
  return told.may_borrow ? `${begin}.` : `${begin}; only low-active users borrow.`;
}

function donors(added) {
  const lent = new Map();
  added.forEach(({ donor }) => lent.set(donor, (lent.get(donor) ?? 0) + 1));
  return lent;
}

function show_neighbours(neighbours, added) {
  const lent = donors(added);
  const rows = neighbours.map(({ user, similarity }) => {
    const visit = element("button", "", `User ${user}`);
    visit.type = "button";
    visit.title = `Look at user ${user}`;
    visit.addEventListener("click", () => attempt(() => choose(user)));
    const told = element("span", "number", `similarity ${similarity.toFixed(2)}, lends ${lent.get(user) ?? 0}`);
    return element("li", "", "", visit, track(similarity), told);
  });
  at("neighbours").replaceChildren(...(rows.length ? rows : [element("li", "none", "Nobody was asked.")]));
}

function opinion(liked) {
  return element("p", liked ? "like" : "dislike", liked ? "▲ liked" : "▼ disliked");
}

function tile(item, liked, ...more) {
  const name = element("p", "name", item.title);
  name.title = item.title;
  return element("li", "", "", cover(item), name, opinion(liked), ...more);
}

// The first of many, and a way to see all.
function show_cards(list, rows, nothing, older = 0) {
  const all = rows.length <= CARDS + 2 || state.whole.has(list);
  const shown = all ? rows : rows.slice(0, CARDS);
  if (!all) {
    const more = element("button", "", `Show all ${rows.length}`);
    more.type = "button";
    more.addEventListener("click", () => {
      state.whole.add(list);
      show_cards(list, rows, nothing, older);
      at(list).children[CARDS].scrollIntoView({ block: "nearest", inline: "nearest" });
      at(list).focus();
    });
    shown.push(element("li", "none", "", more));
  } else if (older > 0) {
    shown.push(element("li", "none", `and ${older} older`));
  }
  at(list).replaceChildren(...(shown.length ? shown : [element("li", "none", nothing)]));
}

function show_added(added) {
  const rows = [...added].reverse().map(({ item, liked, similarity, donor }) =>
    tile(card(item), liked, track(similarity),
      element("p", "", `${similarity.toFixed(2)} · user ${donor}`)));
  show_cards("added", rows, "Nothing.");
}

function show_history() {
  const fresh = state.clicks.map(({ item, liked }, place) => {
    const undo = element("button", "", "Undo");
    undo.type = "button";
    undo.setAttribute("aria-label", `Undo: ${card(item).title}`);
    undo.addEventListener("click", () => forget(place));
    const made = tile(card(item), liked, undo);
    made.classList.add("fresh");
    return made;
  });
  const kept = state.told.behaviours.map((item) => tile(item, item.liked));
  const rows = [...kept, ...fresh].reverse();
  const older = state.told.seen - state.told.behaviours.length;
  show_cards("history", rows, "Nothing yet.", older);
}

function bar(kind, value, label, before) {
  const made = track(value);
  if (before !== undefined) {
    const mark = element("span", "before");
    mark.style.left = `${100 * before}%`;
    made.append(mark);
  }
  const number = element("span", "number", percent(value));
  number.prepend(element("span", "sr", `${label} `));
  return element("div", `bar ${kind}`, "", made, number);
}

function show_scores() {
  const probabilities = state.items.length ? state.answer.explanation.probabilities : [];
  const unknown = new Set(
    state.answer.predictions.filter((each) => !each.known).map(({ item }) => item));
  const clicked = new Set(state.clicks.map(({ item }) => item));
  const rows = probabilities.map(({ item, with_augmentation, without_augmentation }) => {
    const before = state.clicks.length ? state.before.get(item) : undefined;
    return {
      item: card(item), with_augmentation, without_augmentation, before,
      change: with_augmentation - without_augmentation,
      clicks: before === undefined ? 0 : with_augmentation - before,
    };
  });
  const order = at("order").value;
  if (order === "score") rows.sort((a, b) => b.with_augmentation - a.with_augmentation);
  else if (order !== "given") rows.sort((a, b) => Math.abs(b[order]) - Math.abs(a[order]));
  at("scores").replaceChildren(...rows.slice(0, state.shown).map((row) => score_row(row, clicked, unknown)));
  if (!rows.length) at("scores").append(element("li", "none", "No title has this in it."));
  at("more").hidden = rows.length <= state.shown;
}

function score_row(row, clicked, unknown) {
  const { item, with_augmentation, without_augmentation, before, change, clicks } = row;
  const borrowed = state.answer.explanation.added.length;
  const told = [borrowed ? `borrowing ${points(change)} points` : "nothing borrowed"];
  if (before !== undefined) told.push(`your clicks ${points(clicks)}`);
  if (unknown.has(item.item)) told.push("unknown to the model");
  const say = element("div", "say");
  [true, false].forEach((liked) => {
    const button = element("button", liked ? "like" : "dislike", liked ? "▲ Like" : "▼ Dislike");
    button.type = "button";
    button.disabled = clicked.has(item.item);
    button.setAttribute("aria-label", `${liked ? "Like" : "Dislike"} ${item.title}`);
    button.addEventListener("click", () => click(item, liked, button.closest("li")));
    say.append(button);
  });
  return element("li", "", "", cover(item), element("div", "told", "",
    element("p", "line", "", element("strong", "", item.title)),
    bar("with", with_augmentation, "with borrowed behaviours", before),
    bar("without", without_augmentation, "own history alone"),
    element("p", "change", told.join(" · "))), say);
}

function delayed(work) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(() => attempt(work), 200);
  };
}

async function search_items() {
  const text = at("items").value.trim();
  const found = text ? (await asked("/demo/items", { search: text })).items : state.told.candidates;
  if (text !== at("items").value.trim()) return;
  known(found);
  state.items = found;
  state.shown = SHOWN;
  if (state.clicks.length) await remember(found);
  await score();
}

// What the items of a new search had before the clicks.
async function remember(found) {
  const candidates = found.map(({ item }) => item).filter((item) => !state.before.has(item));
  if (!candidates.length) return;
  const answer = await fetched("/v1/ctr", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user: state.user, candidates }),
  });
  answer.predictions.forEach(({ item, probability }) => state.before.set(item, probability));
}

const phone = matchMedia("(max-width: 46rem)");
const fit = () => { at("users").size = phone.matches ? 1 : 14; };
phone.addEventListener("change", fit);
fit();

at("group").addEventListener("change", () => attempt(list_users));
at("search").addEventListener("input", delayed(list_users));
at("search").addEventListener("keydown", (event) => {
  const typed = at("search").value.trim();
  if (event.key === "Enter" && typed) attempt(() => choose(typed));
});
at("users").addEventListener("change", () => attempt(() => choose(at("users").value)));
at("items").addEventListener("input", delayed(search_items));
at("order").addEventListener("change", show_scores);
at("more").addEventListener("click", () => { state.shown += 24; show_scores(); });
at("forget").addEventListener("click", () => forget());

addEventListener("hashchange", () => attempt(go_to_place));

attempt(async () => {
  await list_users();
  await go_to_place();
});
