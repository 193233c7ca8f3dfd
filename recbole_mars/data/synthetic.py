"""A small world with planted truth, for tests and demonstrations.

Every user has one taste and every item one taste. A user meets items of the own taste and of
others, and likes the former. Words and pictures tell an item's taste to whoever can read them;
its id tells nothing but who met it. A short history is a mixture of few items that leaves the
user's taste open, a long one gives it away. More items for the same behaviours leave less to
learn about each id, and so more to gain from contents and from the long histories of others.
"""

from __future__ import annotations

import colorsys
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from recbole_mars.data.schema import TEST, TRAIN, VALID, InteractionLog

__all__ = ["SyntheticData", "SyntheticSettings", "generate", "to_log", "write_atomic"]

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
_WORDS = 12  # that belong to one taste; twice as many belong to none
_FIRST_SECOND, _DAY = 1_600_000_000, 86_400


@dataclass(frozen=True)
class SyntheticSettings:
    """What the world is like.

    n_users, n_items, n_tastes: tastes are spread evenly over users and over items.
    low_share: share of low-active users.
    low_length, high_length: fewest and most behaviours of a low- and of any other user.
    own_share: chance that a behaviour is with an item of the user's taste.
    taste_strength: P(like | own taste) - P(like | other taste); the mean of both is 1/2.
    popularity: exponent s of Zipf's law, the k-th item being met in proportion to k^-s.
    noise: how little contents tell, 0..1: the share of a text's words that may be of any taste,
        and the spread of a picture's colours.
    missing_text, missing_image: share of items without; where both occur, some items miss both.
    image_size: side of the square pictures in pixels.

    Raises ValueError for values that describe no world.
    """

    n_users: int = 400
    n_items: int = 300
    n_tastes: int = 6
    low_share: float = 0.4
    low_length: tuple[int, int] = (3, 6)
    high_length: tuple[int, int] = (30, 60)
    own_share: float = 0.5
    taste_strength: float = 0.8
    popularity: float = 1.0
    noise: float = 0.5
    missing_text: float = 0.05
    missing_image: float = 0.1
    image_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_users", "n_items", "n_tastes", "image_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.n_tastes > self.n_items:
            raise ValueError(f"n_tastes must be <= n_items, got {self.n_tastes} > {self.n_items}")
        shares = ("low_share", "own_share", "taste_strength", "noise")
        for name in (*shares, "missing_text", "missing_image"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        if self.popularity < 0:
            raise ValueError(f"popularity must be >= 0, got {self.popularity}")
        others = self.n_items - -(-self.n_items // self.n_tastes)  # outside the largest taste
        for name in ("low_length", "high_length"):
            fewest, most = getattr(self, name)
            if not 1 <= fewest <= most <= others:
                raise ValueError(
                    f"{name} must be (fewest, most) within 1..{others}, the number of items "
                    f"outside a taste, got {(fewest, most)}; raise n_items or n_tastes"
                )


@dataclass(frozen=True)
class SyntheticData:
    """The behaviours, sorted by user and time, the contents, and the truth behind them.

    users, items: (N,) int64 numbers from 0. ratings: (N,) int64 in 1..5, liked from 4 on.
    timestamps: (N,) int64 seconds, increasing within a user.
    texts, images: one an item, None where missing. categories: (n_items,) int64, related to the
    taste only weakly.
    user_tastes: (n_users,) int64. item_tastes: (n_items,) int64. low_active: (n_users,) bool.
    """

    settings: SyntheticSettings
    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray
    texts: list[str | None]
    images: list[Image.Image | None]
    categories: np.ndarray
    user_tastes: np.ndarray
    item_tastes: np.ndarray
    low_active: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(N,) float32, 1 where the item was liked."""
        return (self.ratings >= 4).astype(np.float32)

    @property
    def user_tokens(self) -> list[str]:
        """Names of the users, as in the files."""
        return [f"u{user}" for user in range(self.settings.n_users)]

    @property
    def item_tokens(self) -> list[str]:
        """Names of the items, as in the files."""
        return [f"i{item}" for item in range(self.settings.n_items)]


def generate(settings: SyntheticSettings) -> SyntheticData:
    """The world that the settings, seed included, describe.

    Tastes, behaviours, texts and pictures draw from streams of their own: other contents leave
    the behaviours as they are.
    """
    s = settings
    streams = np.random.SeedSequence(s.seed).spawn(4)
    world, rng, text_rng, image_rng = (np.random.default_rng(stream) for stream in streams)
    user_tastes = world.permutation(s.n_users) % s.n_tastes
    item_tastes = world.permutation(s.n_items) % s.n_tastes
    low_active = world.permutation(s.n_users) < round(s.low_share * s.n_users)
    related = world.random(s.n_items) < 0.3
    categories = np.where(related, item_tastes, world.integers(s.n_tastes, size=s.n_items))
    popularity = (1.0 + world.permutation(s.n_items)) ** -s.popularity
    no_text, no_image = _missing_contents(s, world)

    fewest, most = np.where(low_active[:, None], s.low_length, s.high_length).T
    lengths = rng.integers(fewest, most, endpoint=True)
    users = np.repeat(np.arange(s.n_users), lengths)
    items = np.concatenate(
        [
            _met_items(item_tastes == taste, popularity, s.own_share, length, rng)
            for taste, length in zip(user_tastes, lengths)
        ]
    )
    timestamps = np.concatenate([_times(length, rng) for length in lengths])
    own = item_tastes[items] == user_tastes[users]
    liked = rng.random(len(users)) < 0.5 + np.where(own, 0.5, -0.5) * s.taste_strength
    ratings = np.where(liked, rng.integers(4, 6, len(users)), rng.integers(1, 4, len(users)))

    vocabulary = _vocabulary(_WORDS * (s.n_tastes + 2), text_rng)
    texts = [_text(taste, vocabulary, s.noise, text_rng) for taste in item_tastes]
    images = [_picture(taste, s, image_rng) for taste in item_tastes]
    return SyntheticData(
        settings=s,
        users=users,
        items=items,
        ratings=ratings,
        timestamps=timestamps,
        texts=[None if gone else text for gone, text in zip(no_text, texts)],
        images=[None if gone else image for gone, image in zip(no_image, images)],
        categories=categories,
        user_tastes=user_tastes,
        item_tastes=item_tastes,
        low_active=low_active,
    )


def to_log(data: SyntheticData) -> InteractionLog:
    """The behaviours split by leave-one-out, internal ids being the numbers from 1.

    The last behaviour of a user is TEST, the one before VALID, all others TRAIN; so are all of a
    user with fewer than three.
    """
    counts = np.bincount(data.users, minlength=data.settings.n_users)
    ends = np.cumsum(counts)
    divided = counts >= 3
    phases = np.full(len(data.users), TRAIN, dtype=np.int8)
    phases[ends[divided] - 1] = TEST
    phases[ends[divided] - 2] = VALID
    return InteractionLog(
        users=data.users + 1,
        items=data.items + 1,
        labels=data.labels,
        times=data.timestamps.astype(np.float64),
        phases=phases,
        n_users=data.settings.n_users + 1,
        n_items=data.settings.n_items + 1,
    )


def write_atomic(data: SyntheticData, folder: str | Path, name: str) -> Path:
    """Write RecBole's atomic files, pictures and the truth to folder/name, and return that path.

    <name>.inter in the order of time, <name>.item, <name>.user, images/<item>.png and truth.json.
    The folder appears whole or not at all; one that holds this very data set is left as it is.
    Raises ValueError if folder/name holds anything else, or name is not a plain folder name.
    """
    if not name or name == ".." or Path(name).name != name:
        raise ValueError(f"name must be a plain folder name, got {name!r}")
    target = Path(folder) / name
    tables = _tables(data, name)
    if target.exists():
        differing = [file for file, text in tables.items() if _text_of(target / file) != text]
        if differing:
            raise ValueError(
                f"{target} must be absent or hold this data set, but {differing[0]} differs; "
                "choose another name or remove the folder"
            )
        return target
    draft = Path(folder) / f".{name}.{os.getpid()}.tmp"
    try:
        (draft / "images").mkdir(parents=True)
        for file, text in tables.items():
            (draft / file).write_text(text, encoding="utf-8")
        for token, image in zip(data.item_tokens, data.images):
            if image is not None:
                image.save(draft / "images" / f"{token}.png")
        os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _missing_contents(
    settings: SyntheticSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which items lack text and which lack a picture, (n_items,) bool each, with some in both."""
    n_text = round(settings.missing_text * settings.n_items)
    n_image = round(settings.missing_image * settings.n_items)
    both = max(min(n_text, n_image, 1), round(n_text * n_image / settings.n_items))
    place = rng.permutation(settings.n_items)
    return place < n_text, (place >= n_text - both) & (place < n_text - both + n_image)


def _met_items(
    own: np.ndarray, popularity: np.ndarray, own_share: float, length: int, rng: np.random.Generator
) -> np.ndarray:
    """Items that a user meets, (length,), none twice. own, popularity: (n_items,)."""
    # Ordering by exponential / weight is drawing by weight without putting back.
    order = np.argsort(rng.exponential(size=len(own)) / popularity)
    own_items, other_items = order[own[order]], order[~own[order]]
    from_own = rng.random(length) < own_share
    from_own &= np.cumsum(from_own) <= len(own_items)
    met = np.empty(length, dtype=np.int64)
    met[from_own] = own_items[: from_own.sum()]
    met[~from_own] = other_items[: length - from_own.sum()]
    return met


def _times(length: int, rng: np.random.Generator) -> np.ndarray:
    """Increasing seconds (length,), a day apart on average, from anywhere within a year."""
    gaps = 1 + rng.exponential(_DAY, size=length).astype(np.int64)
    return _FIRST_SECOND + rng.integers(365 * _DAY) + np.cumsum(gaps)


def _vocabulary(n_words: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct invented words, (n_words,)."""
    numbers = rng.choice(len(_SYLLABLES) ** 3, size=n_words, replace=False)
    base = len(_SYLLABLES)
    digits = (numbers // base**2, numbers // base % base, numbers % base)
    return np.array([_SYLLABLES[a] + _SYLLABLES[b] + _SYLLABLES[c] for a, b, c in zip(*digits)])


def _text(taste: int, vocabulary: np.ndarray, noise: float, rng: np.random.Generator) -> str:
    """Six to ten words, most of the taste's part of the vocabulary, the others of any part."""
    length = rng.integers(6, 11)
    words = taste * _WORDS + rng.integers(_WORDS, size=length)
    anywhere = rng.integers(len(vocabulary), size=length)
    return " ".join(vocabulary[np.where(rng.random(length) < noise, anywhere, words)])


def _picture(taste: int, settings: SyntheticSettings, rng: np.random.Generator) -> Image.Image:
    """Stripes whose colour and direction tell the taste, under noise."""
    size, noise = settings.image_size, settings.noise
    hue = (taste + noise * rng.normal() / 2) / settings.n_tastes
    angle = np.pi * taste / settings.n_tastes
    y, x = np.mgrid[:size, :size] * (6 * np.pi / size)  # three stripes
    stripes = np.sin(x * np.cos(angle) + y * np.sin(angle) + rng.uniform(0, 2 * np.pi))
    colour = np.array(colorsys.hsv_to_rgb(hue % 1, 0.7, 0.8))
    pixels = 255 * colour * (0.75 + 0.25 * stripes[..., None])
    pixels += 60 * noise * rng.normal(size=pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _tables(data: SyntheticData, name: str) -> dict[str, str]:
    """The text files of the data set by file name."""
    users, items = data.user_tokens, data.item_tokens
    by_time = np.argsort(data.timestamps, kind="stable")
    behaviours = (
        (users[data.users[k]], items[data.items[k]], data.ratings[k], data.timestamps[k])
        for k in by_time
    )
    contents = zip(items, (text or "" for text in data.texts), (f"c{c}" for c in data.categories))
    truth = {
        "settings": asdict(data.settings),
        "user_tastes": dict(zip(users, data.user_tastes.tolist())),
        "item_tastes": dict(zip(items, data.item_tastes.tolist())),
        "low_active": [user for user, low in zip(users, data.low_active) if low],
    }
    inter = "user_id:token item_id:token rating:float timestamp:float"
    return {
        f"{name}.inter": _table(inter, behaviours),
        f"{name}.item": _table("item_id:token title:token_seq category:token", contents),
        f"{name}.user": _table("user_id:token", ((user,) for user in users)),
        "truth.json": json.dumps(truth, indent=1) + "\n",
    }


def _table(header: str, rows: Iterable[tuple[object, ...]]) -> str:
    """A tab-separated atomic file. header: the typed columns, separated by blanks."""
    lines = ["\t".join(map(str, row)) for row in rows]
    return "\n".join([header.replace(" ", "\t"), *lines]) + "\n"


def _text_of(file: Path) -> str | None:
    """What the file holds; None if there is none."""
    return file.read_text(encoding="utf-8") if file.is_file() else None
