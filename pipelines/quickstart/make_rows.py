#!/usr/bin/env python3
"""Write rows.jsonl beside this script: 600 small tasks on lists and words, each with its correct output.

    python3 pipelines/quickstart/make_rows.py

Python's standard library only; the same bytes on every machine (a generator of our own, integers only). Every row has
`instruction`, `input` (empty where the instruction says it all) and `output`; no two rows are equal. Twelve skills, fifty
rows each, over a closed vocabulary, so that a model of 0.2 million parameters sees every word often.
"""

import json
from pathlib import Path

N_PER_SKILL = 50
SEED = 20260101

WORDS = {
    "fruit": ["apple", "cherry", "fig", "grape", "lemon", "mango", "peach", "plum"],
    "animal": ["ant", "bear", "cat", "dog", "fox", "hen", "owl", "wolf"],
    "tool": ["axe", "drill", "file", "hammer", "nail", "rope", "saw", "wrench"],
    "colour": ["amber", "blue", "green", "ivory", "olive", "pink", "red", "teal"],
}
ALL_WORDS = sorted(word for words in WORDS.values() for word in words)
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven"]


class Random:
    """SplitMix64: Python's own generator promises its sequence only for `random()`, not for `sample` or `choice`."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        """A whole number in 0..n. The bias of the remainder is below 1e-17 for the n used here."""
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


def row(instruction, given, output):
    return {"instruction": instruction, "input": given, "output": output}


def items(random, low=3, high=5):
    """A list of `low` to `high` different words."""
    return random.sample(ALL_WORDS, low + random.below(high - low + 1))


def listed(words):
    return ", ".join(words)


# One function per skill: what it draws, and the row it makes of it.


def reverse(random):
    words = items(random)
    return row("Reverse the list.", listed(words), listed(reversed(words)))


def sort(random):
    words = items(random)
    return row("Sort the words from a to z.", listed(words), listed(sorted(words)))


def count(random):
    words = items(random, 2, 7)
    return row("Count the items in the list.", listed(words), NUMBERS[len(words)])


def first(random):
    words = items(random)
    return row("Give the first item of the list.", listed(words), words[0])


def last(random):
    words = items(random)
    return row("Give the last item of the list.", listed(words), words[-1])


def uppercase(random):
    words = items(random, 1, 3)
    return row("Write the words in upper case.", listed(words), listed(words).upper())


def longest(random):
    """The longest word, unique by its length."""
    words = items(random)
    lengths = sorted(map(len, words))
    return longest(random) if lengths[-1] == lengths[-2] else row("Give the longest word.", listed(words), max(words, key=len))


def remove(random):
    words = items(random)
    gone = random.pick(words)
    return row(f"Remove {gone} from the list.", listed(words), listed(word for word in words if word != gone))


def contains(random):
    words = items(random)
    asked = random.pick(words) if random.below(2) else random.pick(ALL_WORDS)
    return row(f"Does the list contain {asked}?", listed(words), "yes" if asked in words else "no")


def spell(random):
    """Two words, spelled: one alone would give too few different rows."""
    words = random.sample(ALL_WORDS, 2)
    return row(f"Spell {words[0]} and {words[1]}.", "", listed("-".join(word) for word in words))


def classify(random):
    kind = random.pick(sorted(WORDS))
    words = random.sample(WORDS[kind], 2)
    return row(f"What are {words[0]} and {words[1]}?", "", f"{kind}s")


def repeat(random):
    word, times = random.pick(ALL_WORDS), 2 + random.below(3)
    return row(f"Write {word} {NUMBERS[times]} times.", "", listed([word] * times))


SKILLS = [reverse, sort, count, first, last, uppercase, longest, remove, contains, spell, classify, repeat]


def make_rows():
    random = Random(SEED)
    rows, seen = [], set()
    for skill in SKILLS:
        n = 0
        while n < N_PER_SKILL:
            made = skill(random)
            task = (made["instruction"], made["input"])
            if task not in seen:
                seen.add(task)
                rows.append(made)
                n += 1
    return random.sample(rows, len(rows))


def main():
    lines = [json.dumps(made) + "\n" for made in make_rows()]
    target = Path(__file__).resolve().parent / "rows.jsonl"
    target.write_bytes("".join(lines).encode("ascii"))
    print(f"{len(lines)} rows, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
