"""TOML files: values beyond what anyone writes are refused with the reason, and those up to there are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from hirise_imb.utils.errors import UserError
from hirise_imb.utils.toml_file import parse_toml, read_toml


def nested_keys(depth: int) -> str:
    return f"{'.'.join('k' * depth)} = 1"


def test_values_up_to_the_limits_are_read() -> None:
    text = f"least = {-(2**63)}\nlargest = {2**63 - 1}\nhalf = 0.5\npath = '{4096 * 'x'}'\n{nested_keys(16)}\n"
    values = parse_toml(text.encode())
    assert (values["least"], values["largest"], values["half"]) == (-(2**63), 2**63 - 1, 0.5)
    assert values["path"] == 4096 * "x"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"seed = {2**63}", "an integer has more than 64 bits"),
        (f"seed = {-(2**63) - 1}", "an integer has more than 64 bits"),
        (f"seeds = [1, [{2**63}]]", "an integer has more than 64 bits"),
        ("rate = inf", "inf is not a number that anything can be set to"),
        ("rate = -1e999", "-inf is not a number that anything can be set to"),
        ("[overrides]\nrate = nan", "nan is not a number that anything can be set to"),
        (f"data = '{4097 * 'x'}'", "a string has 4,097 characters, over the limit of 4,096"),
        (f"{4097 * 'x'} = 1", "a string has 4,097 characters, over the limit of 4,096"),
        (nested_keys(17), "its lists or tables are nested too deeply"),
        (f"x = {100_000 * '['}", "its lists or tables are nested too deeply"),
    ],
    ids=["large", "small", "inside", "infinite", "overflowing", "NaN", "long", "long key", "deep keys", "deep lists"],
)
def test_values_over_the_limits_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        parse_toml(text.encode())


def test_text_in_another_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="'utf-8' codec can't decode byte 0xc4"):
        parse_toml("name = 'Änderung'".encode("latin-1"))


def test_a_refusal_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text("rate = inf", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_toml(path)
    assert str(refused.value) == f"{path} is not valid TOML: inf is not a number that anything can be set to."


def test_a_file_of_a_mebibyte_is_read_and_a_larger_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    line = b"trials = 5\n"
    path.write_bytes(line + b"#" * (1_048_576 - len(line)))
    assert read_toml(path) == {"trials": 5}
    path.write_bytes(path.read_bytes() + b"#")
    with pytest.raises(UserError) as refused:
        read_toml(path)
    assert str(refused.value) == f"{path} has 1,048,577 bytes, over the limit of 1,048,576: name another file."
