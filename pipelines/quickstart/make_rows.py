#!/usr/bin/env python3
"""Write the rows of the quickstart: small tasks on lists of words, each with its one correct answer.

    python3 pipelines/quickstart/make_rows.py

    base/train-*.jsonl   ten skills, for the base model
    base/test.jsonl      the same skills, on lists held out
    rotate/train.jsonl   a skill that the base model never saw, and some rows of base/train again
    rotate/test.jsonl    the new skill, on lists held out

A row is `{"prompt": "reverse: plum fig owl ->", "completion": " owl fig plum"}`. Held out means: no test row asks a skill
about a list of words that any training row asks the same skill about.

Python's standard library only; the same bytes on every machine (a generator of our own, integers only). The vocabulary is
closed: 24 words, so that a model of 0.4 million parameters sees each of them often.
"""

import json
from pathlib import Path

SEED = 20261124
N_TEST = 24
N_NEW_TRAIN = 1500  # rows of the new skill
N_REPLAYED = 120  # rows of each skill of the base that are shown again beside it
N_NEW_TEST = 200
ROWS_PER_FILE = 2500

WORDS = {
    "animals": ["ant", "bear", "cat", "fox", "hen", "owl"],
    "colours": ["amber", "blue", "green", "olive", "pink", "red"],
    "fruits": ["apple", "fig", "grape", "lemon", "mango", "plum"],
    "tools": ["axe", "drill", "file", "hammer", "rope", "saw"],
}
ALL_WORDS = sorted(word for words in WORDS.values() for word in words)


class Random:
    """SplitMix64: Python's own generator promises its sequence only for `random()`, not for `sample` or `choice`."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        """A whole number in 0..n. The bias of the remainder is below 1e-14 for the n used here."""
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        x = self.state
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return (x ^ (x >> 31)) % n

    def pick(self, items):
        return items[self.below(len(items))]

    def sample(self, items, n):
        """`n` different items, in random order."""
        items = list(items)
        for i in range(n):
            j = i + self.below(len(items) - i)
            items[i], items[j] = items[j], items[i]
        return items[:n]


def draw(random, low=3, high=4):
    """A list of `low` to `high` different words."""
    return random.sample(ALL_WORDS, low + random.below(high - low + 1))


# One function per skill: draws a list, and says what is asked about it and what is answered.


def reverse(random):
    words = draw(random)
    return "reverse", words, words[::-1]


def sort(random):
    words = draw(random)
    return "sort", words, sorted(words)


def first(random):
    words = draw(random)
    return "first", words, words[:1]


def last(random):
    words = draw(random)
    return "last", words, words[-1:]


def double(random):
    words = draw(random, 2, 3)
    return "double", words, [word for word in words for _ in range(2)]


def count(random):
    words = draw(random, 2, 6)
    return "count", words, [str(len(words))]


def upper(random):
    words = draw(random, 2, 3)
    return "upper", words, [word.upper() for word in words]


def spell(random):
    words = draw(random, 2, 2)
    return "spell", words, list("".join(words))


def remove(random):
    words = draw(random)
    gone = random.pick(words)
    return f"remove {gone}", words, [word for word in words if word != gone]


def only(random):
    """The words of one kind; there is at least one."""
    words, kind = draw(random), random.pick(sorted(WORDS))
    kept = [word for word in words if word in WORDS[kind]]
    return (f"only {kind}", words, kept) if kept else only(random)


def rotate(random):
    words = draw(random)
    return "rotate", words, words[1:] + words[:1]


# The skills of the base, and how many rows each needs: those that compare words with each other need most.
BASE_SKILLS = {
    first: 300,
    last: 300,
    count: 300,
    double: 500,
    upper: 500,
    spell: 400,
    reverse: 1700,
    only: 1500,
    sort: 1600,
    remove: 2200,
}


def make(random, skill, n):
    """`n` rows of a skill, no two of them on the same list."""
    rows, lists = [], set()
    while len(rows) < n:
        asked, words, answer = skill(random)
        if tuple(words) not in lists:
            lists.add(tuple(words))
            rows.append({"prompt": f"{asked}: {' '.join(words)} ->", "completion": " " + " ".join(answer)})
    return rows


def make_files():
    """Name of each file -> its rows."""
    random = Random(SEED)
    train, replayed, test = [], [], []
    for skill, n in BASE_SKILLS.items():
        rows = make(random, skill, n + N_TEST)
        train += rows[N_TEST:]
        replayed += rows[N_TEST : N_TEST + N_REPLAYED]
        test += rows[:N_TEST]
    train, test = random.sample(train, len(train)), random.sample(test, len(test))
    new = make(random, rotate, N_NEW_TRAIN + N_NEW_TEST)
    new_train = new[N_NEW_TEST:] + replayed
    files = {
        "base/test.jsonl": test,
        "rotate/train.jsonl": random.sample(new_train, len(new_train)),
        "rotate/test.jsonl": new[:N_NEW_TEST],
    }
    for i in range(0, len(train), ROWS_PER_FILE):
        files[f"base/train-{i // ROWS_PER_FILE + 1}.jsonl"] = train[i : i + ROWS_PER_FILE]
    return dict(sorted(files.items()))


def to_text(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def main():
    folder = Path(__file__).resolve().parent
    for name, rows in make_files().items():
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(to_text(rows).encode("ascii"))
        print(f"{name}: {len(rows)} rows, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
