"""Ways to spoil a text, a file, a database. All that is random comes out of the generator they are given."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from typing import Any

PAGE = 4096
TOKENS = [
    *[
        "",
        "=",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        '"',
        "'",
        '"""',
        "'''",
        ",",
        ".",
        "#",
        "\n",
        "\r",
        "\x00",
        "\x1b[2J",
    ],
    *[
        "nan",
        "-inf",
        "inf",
        "1e999",
        "-1",
        "0",
        "1_000",
        "0x7fffffff",
        "9" * 400,
        "9" * 5000,
        "1e-400",
        "-0.0",
    ],
    *[
        "true",
        "1979-05-27",
        "1979-05-27T07:32:00Z",
        "07:32:00",
        '"\\ud800"',
        '"\\u0000"',
        '"\u202e"',
        "\ufeff",
    ],
    *['"[red]"', '"../../x"', "[1, [2, [3]]]", "{a = 1}", "{}", "[]", '""', '"digits"', '"genetic"', '"a:b"'],
    *[
        "name",
        "seed",
        "kind",
        "sampler",
        "evaluation",
        "tasks",
        "presets",
        "options",
        "ｎａｍｅ",
        "п",
        "[" * 3000,
    ],
]
JSONS = [
    *[
        "",
        "null",
        "true",
        "[]",
        "{}",
        "0",
        "-1",
        "1.5",
        "NaN",
        "Infinity",
        '"x"',
        '""',
        "[null]",
        '["a"]',
        "[[]]",
    ],
    *[
        '{"a": 1}',
        '{"a":',
        "[1, 2, 3]",
        "99999999999999999999",
        "1e999",
        '"\\u001b[2J\\ud800\\u202e"',
        "\x00",
    ],
    *["[" * 3000 + "]" * 3000, '"' + "x" * 5000 + '"', "[-1]", "[0]", '[0, "b"]', "[1.0, 2]", "[99999]"],
]
VALUES: list[Any] = [
    None,
    "",
    "garbage",
    -1,
    0,
    10**9,
    1.5,
    float("inf"),
    b"\x00\xff",
    "nan",
    "[",
    "\x1b[2J",
    "[]",
]


def toml(text: str, rng: random.Random) -> bytes:
    """A study file with one to four faults: of bytes, tokens, values, lines or the whole."""
    data = text.encode()
    for _ in range(rng.randint(1, 4)):
        lines = data.split(b"\n")
        at, token = rng.randrange(len(lines)), rng.choice(TOKENS).encode("utf-8", "surrogatepass")
        kind = rng.randrange(9)
        if kind == 0:
            data = flip(data, rng)
        elif kind == 1:
            data = cut(data, rng)
        elif kind == 2:
            place = rng.randrange(len(data) + 1)
            data = data[:place] + token + data[place:]
        else:
            key, _, value = lines[at].partition(b"=")
            lines[at : at + 1] = {
                3: [key + b"= " + token],
                4: [token + b" = " + value],
                5: [token],
                6: [lines[at], rng.choice(lines)],
                7: [],
                8: [value, key],
            }[kind]
            data = b"\n".join(lines)
    return data


def flip(data: bytes, rng: random.Random) -> bytes:
    """One to twenty bytes changed."""
    spoilt = bytearray(data)
    for _ in range(rng.randint(1, 20) if spoilt else 0):
        spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
    return bytes(spoilt)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The beginning of it."""
    return data[: rng.randrange(len(data) + 1)]


def _zero(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(0, max(1, len(data)), 512)
    return data[:start] + bytes(min(rng.choice([512, PAGE]), len(data) - start)) + data[start + PAGE :]


def _swap_pages(data: bytes, rng: random.Random) -> bytes:
    pages = [data[i : i + PAGE] for i in range(0, len(data), PAGE)]
    i, j = rng.randrange(len(pages)), rng.randrange(len(pages))
    pages[i], pages[j] = pages[j], pages[i]
    return b"".join(pages)


def _head(data: bytes, rng: random.Random) -> bytes:
    """Faults in the header, which decides how the rest is read."""
    return flip(data[:100], rng) + data[100:]


def _another(data: bytes, rng: random.Random) -> bytes:
    kinds = (b"", b"not this format", b"\x1f\x8b", b"\x89PNG\r\n\x1a\n", b"SQLite format 3\x00", bytes(1024))
    return rng.choice(kinds) + (data if rng.random() < 0.5 else b"")


def _longer(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.choice([1, 100, PAGE]))


BYTES: list[Callable[[bytes, random.Random], bytes]] = [
    flip,
    cut,
    _zero,
    _swap_pages,
    _head,
    _another,
    _longer,
]


def spoil(data: bytes, rng: random.Random) -> bytes:
    """`data` with one fault of any kind."""
    return rng.choice(BYTES)(data, rng)


def spoil_json(text: str, rng: random.Random) -> str:
    """Another JSON text, or none at all; often the same but for one value somewhere inside."""
    if rng.random() < 0.5:
        return rng.choice(JSONS)
    value = [json.loads(text)]
    inner: Any = value
    key: Any = 0
    while isinstance(inner[key], (dict, list)) and inner[key] and rng.random() < 0.9:
        inner = inner[key]
        key = rng.choice([*inner]) if isinstance(inner, dict) else rng.randrange(len(inner))
    if rng.random() < 0.3:
        del inner[key]
    else:
        odd: list[Any] = [None, True, -1, 0, 1.5, float("nan"), 10**30, "", "x\x1b[2J", [], {}, [1], {"a": 1}]
        inner[key] = rng.choice(odd)
    return json.dumps(value[0] if value else None)


def rows(connection: sqlite3.Connection, rng: random.Random) -> str:
    """One to three changes to rows of Optuna's database; returns what was done."""
    done = [_change(connection, rng) for _ in range(rng.randint(1, 3))]
    connection.commit()
    return "; ".join(done)


def _change(connection: sqlite3.Connection, rng: random.Random) -> str:
    attrs = ["study_user_attributes", "trial_user_attributes", "trial_system_attributes"]
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    weighed = [*names, *["trials", "trial_params", "trial_values", "studies", "study_directions"] * 3]
    table = rng.choice([*attrs, *attrs[:2]] if rng.random() < 0.6 else weighed)
    try:
        rowid = rng.choice([row[0] for row in connection.execute(f"SELECT rowid FROM {table}")])
        if table in attrs:
            return _change_attr(connection, table, rowid, rng)
        chance = rng.random()
        if chance < 0.05:
            connection.execute(f"DROP TABLE {table}")
            return f"drop {table}"
        if chance < 0.25:
            connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))
            return f"delete {rowid} of {table}"
        column = rng.choice([row[1] for row in connection.execute(f"PRAGMA table_info({table})")])
        states = ["RUNNING", "WAITING", "COMPLETE", "PRUNED", "FAIL", "MINIMIZE", "NOT_SET", "INF_POS"]
        value = rng.choice([*VALUES, *states])
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))
    except (sqlite3.Error, IndexError) as error:  # a constraint, a table dropped before, or an empty one
        return f"nothing in {table} ({error})"
    return f"{table}.{column} of {rowid} = {value!r}"


def _change_attr(connection: sqlite3.Connection, table: str, rowid: int, rng: random.Random) -> str:
    row = connection.execute(f"SELECT key, value_json FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
    try:
        new = spoil_json(row[1], rng)
    except (ValueError, TypeError, RecursionError):  # spoilt before
        new = rng.choice(JSONS)
    connection.execute(f"UPDATE {table} SET value_json = ? WHERE rowid = ?", (new, rowid))
    return f"{table}.{row[0]} = {new[:80]!r}"
