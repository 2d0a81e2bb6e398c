"""A token in a file: taken as it was meant, or refused in one line that repeats nothing of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from unprivileged import reachable, unprivileged

from edge_sdk.errors import UsageError
from edge_sdk.tokenfile import MAX_TOKEN_BYTES, is_open_to_all, read_token

pytestmark = pytest.mark.device

SECRET = "hush-0123456789abcdef"


@pytest.mark.parametrize("text", [SECRET, f"{SECRET}\n", f"  {SECRET}\r\n\n", f"\n{SECRET}\t"])
def test_white_space_around_a_token_is_none_of_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(text.encode())
    assert read_token(file, least=len(SECRET)) == SECRET
    assert read_token(str(file)) == SECRET


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b"\xef\xbb\xbf" + SECRET.encode(), "byte order mark"),
        (SECRET.encode("utf-16"), "byte order mark"),
        (f"{SECRET}\nsecond\n".encode(), "several lines"),
        (f"{SECRET}\rsecond".encode(), "several lines"),
        (f"{SECRET}ü".encode(), "characters that none has"),
        (f"{SECRET}\0".encode(), "characters that none has"),
        (f"{SECRET}\x1b[2J".encode(), "characters that none has"),
        (SECRET.encode() * 200, f"larger than {MAX_TOKEN_BYTES} bytes"),
        (b"hush", "shorter than 16 characters"),
    ],
)
def test_what_is_no_token_is_refused_in_one_line_without_a_word_of_it(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "of-the-server"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_token(file, least=16)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("path", ["missing", ".", "token\0"])
def test_what_cannot_be_opened_is_one_line(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError, match="cannot be read") as caught:
        read_token(os.path.join(tmp_path, path))  # noqa: PTH118 - a path that `Path` does not take
    assert "\n" not in str(caught.value)


def test_a_pipe_is_read_to_its_end_and_one_without_a_writer_is_empty(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="is empty"):
        read_token(pipe)
    reader, writer = os.pipe()
    os.write(writer, SECRET[:4].encode())
    os.write(writer, SECRET[4:].encode())
    os.close(writer)
    try:
        assert read_token(f"/dev/fd/{reader}") == SECRET
    finally:
        os.close(reader)
    with pytest.raises(UsageError, match="larger than"):  # and not the machine's memory full
        read_token("/dev/urandom")


def test_who_may_not_read_it_is_told_what_to_do_and_who_may_is_seen() -> None:
    with reachable() as place:
        file = place / "token"
        file.write_text(SECRET)
        file.chmod(0o600)
        assert not is_open_to_all(file)
        if os.geteuid() == 0:
            with unprivileged(), pytest.raises(UsageError, match="let the user who runs this read it"):
                read_token(file)
        file.chmod(0o000)
        with unprivileged(), pytest.raises(UsageError, match="Permission denied"):
            read_token(file)
        file.chmod(0o644)
        assert is_open_to_all(file)
        with unprivileged():
            assert read_token(file) == SECRET
    assert not is_open_to_all(file)
    assert not is_open_to_all("a\0b")
