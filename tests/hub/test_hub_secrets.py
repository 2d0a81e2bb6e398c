"""Secrets come in by the environment, and no process of a hub shows one in its arguments, where all users read them."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from daemon_stage import until
from hub_stage import HubProcess, hub_command
from store_stage import PostgresPlace

from edge_hub.alerts.rules import Rule
from edge_sdk.cli import main

pytestmark = pytest.mark.broker

SECRET = "a-secret-of-the-test"


@contextmanager
def receiver() -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    """An HTTP server that notes path and body of what is posted to it."""
    posts: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1], posts
        finally:
            server.shutdown()
            thread.join()


def arguments(pid: int) -> Iterator[tuple[int, bytes]]:
    """Of a process and of all that it has started."""
    yield pid, Path(f"/proc/{pid}/cmdline").read_bytes()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended
            for child in (task / "children").read_text().split():
                yield from arguments(int(child))


@pytest.mark.postgres
def test_what_the_environment_says_is_in_no_arguments(tmp_path: Path, database: PostgresPlace) -> None:
    with receiver() as (port, posts):
        hub = HubProcess(
            tmp_path,
            *("--workers", "1"),
            environment={
                # Of the tests' own server, which asks nobody for a password.
                "EDGE_HUB_STORE": database.url.replace("edge@", f"edge:{SECRET}@"),
                "EDGE_HUB_ALERT_WEBHOOKS": f"http://127.0.0.1:{port}/{SECRET} http://127.0.0.1:{port}/{SECRET}/2",
            },
        )
        hub.start()
        try:
            found = dict(arguments(hub.pid))
            assert len(found) == 3, found  # itself, its broker, its worker
            password = (hub.data / "broker-password").read_bytes().strip()
            for secret in (SECRET.encode(), hub.token.encode(), password):
                assert not any(secret in given for given in found.values())
            hub.enrol()
            with hub.client() as client:
                client.put_rule("always", Rule(when="tenant = acme or not online", text="it is so"))
            until(lambda: {path for path, _ in posts} == {f"/{SECRET}", f"/{SECRET}/2"}, "both to be told")
            assert json.loads(posts[0][1])["alert"]["rule"] == "always"
        finally:
            hub.stop()
    assert SECRET not in hub.said


@pytest.mark.parametrize(
    ("option", "url", "variable"),
    [
        ("--broker", "mqtt://hub:{}@127.0.0.1:1", "EDGE_HUB_BROKER"),
        pytest.param(
            *("--store", "postgresql://edge:{}@127.0.0.1:1/edge", "EDGE_HUB_STORE"), marks=pytest.mark.postgres
        ),
    ],
)
def test_a_password_among_the_arguments_is_warned_of_and_not_repeated(
    tmp_path: Path, option: str, url: str, variable: str
) -> None:
    hub = HubProcess(tmp_path, option, url.format(SECRET))
    hub.start(ready=False)
    assert hub.wait() == 1, hub.said
    assert f"every user of this machine can read the password in {option}: give it in {variable}" in hub.said
    assert SECRET not in hub.said


def test_a_webhook_of_the_environment_that_is_no_url_is_refused(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path, environment={"EDGE_HUB_ALERT_WEBHOOKS": f"\n ftp://{SECRET}\n"})
    hub.start(ready=False)
    assert hub.wait() == 2, hub.said
    assert "[usage]" in hub.said
    assert SECRET not in hub.said


def test_who_is_elsewhere_asks_with_the_token_and_the_hub_of_the_environment(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "there")
    hub.start()
    try:
        hub.enrol()
        with hub.client() as client:
            reader = client.make_token("reader", "viewer").token

        def ask(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
            environment = {f"EDGE_HUB_{name}": value for name, value in variables.items()}
            return hub_command(tmp_path, *arguments, **environment)

        url = f"http://127.0.0.1:{hub.http}"
        assert "acme/cam1" in ask("devices", TOKEN=reader, URL=url).stdout
        assert "acme/cam1" in ask("devices", "--hub", url, TOKEN=f" {reader}\n", URL="http://127.0.0.1:1").stdout
        assert "acme/cam1" in ask("devices", "--data", str(hub.data), TOKEN=reader).stdout
        refused = ask("revoke", "acme/cam1", "--data", str(hub.data), TOKEN=reader)
        assert refused.returncode != 0, "a viewer's token goes before the directory's"
        nowhere = ask("devices", TOKEN=reader)
        assert (nowhere.returncode, "EDGE_HUB_URL" in nowhere.stderr) == (2, True)
        wrong = ask("devices", TOKEN=SECRET, URL=url)
        assert (wrong.returncode, "token" in wrong.stderr, SECRET in wrong.stderr) == (1, True, False)
    finally:
        hub.stop()


@pytest.mark.parametrize("token", ["one\ntwo", "one\x7ftwo", "\u20ac"])
def test_what_is_no_token_is_not_sent_and_not_repeated(
    token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_HUB_TOKEN", token)
    monkeypatch.setenv("EDGE_HUB_URL", "http://127.0.0.1:1")
    assert main(["hub", "devices", "--data", str(tmp_path)]) == 2
    said = capfd.readouterr().err
    assert "[usage]" in said
    assert token not in said
