"""Texts of others are harmless where they are shown or stored."""

import io
import logging

import pytest
from rich.markup import escape

from experiments.config.foreign import Record, cell, mask_passwords, printable, say
from experiments.reports.console import Console

SECRET = "geheim1"
ATTACK = "\x1b]0;title\x07\x1b[2J[red]cat\u202e\x9b31m\r\nnext"


@pytest.mark.parametrize(
    "address",
    [
        f"https://{SECRET}@host/x",
        f"https://{SECRET}:@host/x",
        f"https://{SECRET}:x-oauth-basic@host/x.git",
        f"HTTPS://{SECRET}@host",
        f"https://a@{SECRET}@host/x",
        f"postgresql://me:a@{SECRET}@host/db",
        f"postgresql://host/db?user=me&password={SECRET}",
        f"https://host/x#access_token={SECRET}",
        f"could not reach http://me:{SECRET}@host:80/x?y=1 (timeout)",
    ],
)
def test_every_form_of_a_password_is_masked(address):
    assert SECRET not in mask_passwords(address) and "host" in mask_passwords(address)


@pytest.mark.parametrize(
    "text", ["https://host/a@b", "https://host?mail=a@b", "http://host:80/#/x", "git@host:x", "a=b@c"]
)
def test_other_texts_stay(text):
    assert mask_passwords(text) == text


def shown(print_it):
    file = io.StringIO()
    print_it(file)
    return file.getvalue()


@pytest.mark.parametrize(
    "print_it",
    [
        lambda file: say(ATTACK, file=file),
        lambda file: Console(file=file, highlight=False, force_terminal=True, width=200).print(escape(ATTACK)),
    ],
)
def test_names_do_nothing_on_a_terminal(print_it):
    text = shown(print_it)
    assert "[red]cat" in text and not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(text)


def test_a_name_has_one_line_and_a_message_keeps_its_lines():
    assert printable("a\nb") == "a\\nb" and printable("a\nb\x1b", lines=True) == "a\nb\\x1b"


def test_log_messages_are_harmless():
    record = Record("x", logging.WARNING, "f", 1, "%s http://me:%s@host", (ATTACK, SECRET), None)
    assert "\x1b" not in record.getMessage() and SECRET not in record.getMessage()


@pytest.mark.parametrize("text", ["=cmd|x.png", "+1+1", "-1+1", "@b", "\t=1", "\r=1"])
def test_formulas_are_escaped(text):
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-0.5", "+3", "-1e-3", "-inf", "", "cat", "a=b", -0.5, 3, None])
def test_numbers_and_other_texts_stay_as_they_are(value):
    assert cell(value) == value and type(cell(value)) is type(value)
