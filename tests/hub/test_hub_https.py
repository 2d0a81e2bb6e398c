"""The HTTP API and the dashboard with TLS: whose certificate, who trusts it, and how it is renewed meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from daemon_stage import until
from dashboard_stage import browser, visits
from hub_stage import CAM, HubProcess, again_and_again, hub_command

from edge_hub.broker.authority import SERVER_S, Authority
from edge_hub.client import HubClient
from edge_hub.datadir import DataDir
from edge_hub.errors import AnswerError, CertificateError, HubUntrustedError
from edge_hub.web.certificate import Https, ServerCertificate
from edge_hub.web.handshakes import MOST
from edge_sdk.address import Address
from edge_sdk.cli.main import build_parser
from edge_sdk.errors import UsageError

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

HERE = Address(host="127.0.0.1", port=1)
ELSEWHERE = "127.0.0.2"  # this machine too, by a name that no certificate has


class Issued:
    """A certificate and its key in files of somebody else's, as certbot leaves them.

    Args:
        directory: Of the files.
        names: What it is for.
        age_s: How long ago it was made.
    """

    def __init__(self, directory: Path, *names: str, age_s: float = 0.0) -> None:
        now = time.time() - age_s
        self._authority = Authority(directory / "a", now=lambda: now)
        self._authority.ensure_api(names)
        self.ca = self._authority.ca
        self.cert, self.key = directory / "fullchain.pem", directory / "privkey.pem"
        self.copy_from(self)

    def copy_from(self, other: Issued, *, key: bool = True) -> None:
        """Replace the files by those of another one."""
        self.cert.write_bytes(other._authority.api_cert.read_bytes())
        if key:
            self.key.write_bytes(other._authority.api_key.read_bytes())

    @property
    def options(self) -> tuple[str, ...]:
        return "--https-certificate", str(self.cert), "--https-key", str(self.key)


Issue = Callable[..., Issued]


@pytest.fixture
def issue(tmp_path: Path) -> Issue:
    def issue(*names: str, age_s: float = 0.0) -> Issued:
        directory = tmp_path / f"issued{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        return Issued(directory, *names, age_s=age_s)

    return issue


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub with `--https` that listens everywhere."""
    process = HubProcess(tmp_path_factory.mktemp("https"))
    process.options = ("--https", "--listen", f"0.0.0.0:{process.http}")
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def ca(hub: HubProcess) -> Path:
    found = DataDir(hub.data).ca
    assert found is not None
    return found


@contextlib.contextmanager
def running(directory: Path, *options: str) -> Iterator[HubProcess]:
    process = HubProcess(directory, *options)
    process.start()
    try:
        yield process
    finally:
        process.stop()


# ------------------------------------------------------------------------------------------- by the hub's authority


def test_a_command_on_the_same_machine_trusts_the_authority_of_the_data_directory(
    hub: HubProcess, tmp_path: Path
) -> None:
    until(lambda: f"the hub is at https://127.0.0.1:{hub.http}," in hub.said, "the address")
    for words in ([], ["--hub", hub.url]):
        told = hub_command(tmp_path, "devices", "--data", str(hub.data), *words)
        assert told.returncode == 0, told.stderr


def test_elsewhere_it_is_told_whom_to_trust(hub: HubProcess, ca: Path, tmp_path: Path) -> None:
    def ask(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return hub_command(tmp_path, *words, "--hub", hub.url, EDGE_HUB_TOKEN=hub.token, **more)

    refused = ask("devices")
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "[hub-untrusted]" in line
    assert "--hub-ca FILE or EDGE_HUB_CA" in line
    assert ask("devices", "--hub-ca", str(ca)).returncode == 0
    assert ask("devices", EDGE_HUB_CA=str(ca)).returncode == 0
    # What is said of a hub elsewhere is not said of the one of the directory.
    assert hub_command(tmp_path, "devices", "--data", str(hub.data), EDGE_HUB_CA="absent.pem").returncode == 0
    out = tmp_path / "rows.csv"
    exported = ask("export", "--what", "audit", "-o", str(out), "--hub-ca", str(ca))
    assert exported.returncode == 0, exported.stderr
    assert out.read_text().startswith("id,")
    no_file = ask("devices", "--hub-ca", str(tmp_path / "absent.pem"))
    assert (no_file.returncode, no_file.stderr.count("\n")) == (1, 1)
    assert "absent.pem: no certificate of an authority: No such file" in no_file.stderr


def test_a_fleet_is_played_to_a_hub_elsewhere(hub: HubProcess, ca: Path, tmp_path: Path) -> None:
    words = ("simulate", "--devices", "1", "--duration", "1", "--hub", hub.url, "--hub-ca", str(ca))
    told = hub_command(tmp_path, *words, EDGE_HUB_TOKEN=hub.token)
    assert "1 devices for" in told.stdout, told.stderr


def test_another_name_than_the_certificate_is_for_is_not_taken(hub: HubProcess, ca: Path) -> None:
    with (
        HubClient(f"https://{ELSEWHERE}:{hub.http}", hub.token, ca=ca) as client,
        pytest.raises(HubUntrustedError, match=rf"not for '{ELSEWHERE}'; .*--tls-name"),
    ):
        client.devices()


def test_who_asks_without_tls_is_told_in_clear(hub: HubProcess) -> None:
    with (
        HubClient(f"http://127.0.0.1:{hub.http}", hub.token) as client,
        pytest.raises(AnswerError, match="ask https:// instead of http://"),
    ):
        client.devices()
    answer = httpx.get(f"http://127.0.0.1:{hub.http}/", trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")


def test_who_asks_with_tls_where_there_is_none_is_told_so(tmp_path: Path) -> None:
    with (
        running(tmp_path / "h") as plain,
        HubClient(f"https://127.0.0.1:{plain.http}", plain.token) as client,
        pytest.raises(HubUntrustedError, match="speaks no TLS; ask http:// instead"),
    ):
        client.devices()


def test_an_old_version_of_tls_is_not_spoken(hub: HubProcess, ca: Path) -> None:
    def speaks(version: str) -> bool:
        words = ("-connect", f"127.0.0.1:{hub.http}", "-CAfile", ca, "-cipher", "ALL:@SECLEVEL=0", version)
        command = ("openssl", "s_client", "-verify_return_error", "-x509_strict", *words)
        told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        return told.returncode == 0

    assert [version for version in ("-tls1_1", "-tls1_2", "-tls1_3") if speaks(version)] == ["-tls1_2", "-tls1_3"]


def test_a_session_is_of_this_host_over_tls_alone(hub: HubProcess, ca: Path) -> None:
    with httpx.Client(base_url=hub.url, verify=ssl.create_default_context(cafile=ca), trust_env=False) as asking:
        answer = asking.post("/api/v1/session", json={"token": hub.token})
        given = answer.headers.get_list("set-cookie")
        assert [one.partition("=")[0] for one in given] == ["__Host-edge-hub", "__Host-edge-hub-csrf"]
        for one in given:
            assert {"Secure", "Path=/", "SameSite=strict"} <= set(one.split("; "))
            assert "Domain" not in one
        assert asking.get("/api/v1/session").status_code == 200
        assert asking.delete("/api/v1/session").json()["code"] == "cross-site"
        # A cookie that a page without TLS has put there is nobody's session.
        plain = {"Cookie": f"edge-hub={asking.cookies['__Host-edge-hub']}"}
        stranger = httpx.get(f"{hub.url}/api/v1/session", headers=plain, verify=False, trust_env=False)  # noqa: S501
        assert stranger.status_code == 401
        csrf = {"X-Edge-CSRF": asking.cookies["__Host-edge-hub-csrf"]}
        ended = asking.delete("/api/v1/session", headers=csrf)
        assert ended.status_code == 204
        assert all("Max-Age=0" in one and "Secure" in one for one in ended.headers.get_list("set-cookie"))
        assert not asking.cookies


def test_hands_that_are_not_shaken_to_the_end_keep_nobody_out(hub: HubProcess) -> None:
    with contextlib.ExitStack() as ends:
        for number in range(MOST + 200):
            sock = ends.enter_context(socket.create_connection(("127.0.0.1", hub.http), timeout=60))
            if number % 2:
                sock.sendall(b"\x16\x03\x01\x02\x00")  # of a record with 512 bytes, which never come
        until(hub._answers, "an answer to somebody else")
        assert len(list(Path(f"/proc/{hub.pid}/fd").iterdir())) < MOST + 100
    until(lambda: len(list(Path(f"/proc/{hub.pid}/fd").iterdir())) < 100, "the connections to be let go of")


@pytest.mark.browser
def test_the_dashboard_works_over_tls(hub: HubProcess) -> None:
    with browser() as chromium, visits(chromium, hub) as visit:
        seen = visit(ignore_https_errors=True)
        page = seen.page
        page.goto(hub.url)
        page.get_by_label("Token").fill(hub.token)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Token").wait_for()
        until(lambda: not seen.context.cookies(), "the browser to forget the session")


# ----------------------------------------------------------------------------------------------- by somebody else's


def test_a_certificate_is_renewed_under_a_stream_that_is_open(issue: Issue, tmp_path: Path) -> None:
    mine, next_one = issue("hub.example"), issue("hub.example")
    with running(tmp_path / "h", *mine.options) as hub:
        where = ("127.0.0.1", hub.http)
        hub.enrol()
        numbers = itertools.count()
        with hub.client() as client:

            def label() -> None:
                client.set_labels(CAM, {"number": str(next(numbers))})

            news = client.news()
            with again_and_again(label):
                assert "rows" in (topic for topic, _ in news)
            before = ssl.get_server_certificate(where)
            mine.copy_from(next_one)
            until(lambda: ssl.get_server_certificate(where) != before, "the new certificate")
            # Nobody here knows its authority or calls the machine by its name; the directory says which one it is.
            until(lambda: hub_command(tmp_path, "devices", "--data", str(hub.data)).returncode == 0, "the commands")
            with again_and_again(label):
                assert "rows" in (topic for topic, _ in news)
            news.close()
        with HubClient(hub.url, hub.token, ca=mine.ca) as client, pytest.raises(HubUntrustedError):
            client.devices()


def test_a_new_certificate_is_served_once_its_key_is_there(issue: Issue, tmp_path: Path) -> None:
    mine, next_one = issue("hub.example"), issue("hub.example")
    served = ServerCertificate(Https(certificate=mine.cert, key=mine.key), DataDir(tmp_path / "d"), HERE)
    before, context = served.pem, served.context
    assert not served.look()
    mine.copy_from(next_one, key=False)
    with pytest.raises(CertificateError, match=r"privkey\.pem: the key is another certificate's"):
        served.look()
    assert (served.pem, served.context) == (before, context)
    mine.copy_from(next_one)
    assert served.look()
    assert served.pem == next_one.cert.read_text()


def test_the_hubs_own_certificate_is_renewed_in_time(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "d")
    served = ServerCertificate(Https(names=("hub.example",)), data, HERE)
    first = served.pem
    old = time.time() - SERVER_S * 0.7
    Authority(data.authority, now=lambda: old).ensure_api(("127.0.0.1", "other.example"))
    served._renew_at = 0.0
    assert served.look()  # made anew for its own names, and because two thirds of the other's days are over
    served._renew_at = 0.0
    assert not served.look()
    assert served.pem != first
    assert abs(served.ends - time.time() - SERVER_S) < 60


def test_one_that_has_ended_is_served_and_said(issue: Issue, tmp_path: Path) -> None:
    old = issue("127.0.0.1", age_s=SERVER_S + 86_400)
    with running_unwell(tmp_path / "h", *old.options) as hub:
        assert "the certificate of the HTTP API ended on" in hub.said
        health = httpx.get(
            f"{hub.url}/api/v1/health",
            headers={"Authorization": f"Bearer {hub.token}"},
            verify=False,  # noqa: S501 - nobody could trust it
            trust_env=False,
        )
        assert "ended on" in health.json()["trouble"]
        with hub.client() as client:  # who is at the machine gets through
            assert client.devices() == ()
        with (
            HubClient(hub.url, hub.token, ca=old.ca) as client,
            pytest.raises(HubUntrustedError, match="certificate has ended; is this machine's clock right"),
        ):
            client.devices()


@contextlib.contextmanager
def running_unwell(directory: Path, *options: str) -> Iterator[HubProcess]:
    process = HubProcess(directory, *options)
    process.start(ready=False)
    try:
        until(lambda: "the hub is at" in process.said, "the hub")
        yield process
    finally:
        process.stop()


def spoil(how: str, files: Issued, other: Issued) -> Https:
    """Files that no server can be made of."""
    if how == "absent":
        files.cert.unlink()
    elif how == "no certificate":
        files.cert.write_text("hello")
    elif how == "no key":
        files.key.write_text("hello")
    elif how == "another's key":
        files.copy_from(other)
        files.cert.write_bytes(files._authority.api_cert.read_bytes())
    elif how == "no key in one file":
        return Https(certificate=files.cert)
    elif how == "a directory":
        return Https(certificate=files.cert.parent, key=files.key)
    elif how == "too large":
        files.cert.write_bytes(b"x" * 2_000_000)
    else:
        locked = files.key.with_name("locked.pem")
        command = ["openssl", "pkey", "-in", files.key, "-aes256", "-passout", "pass:x", "-out", locked]
        subprocess.run(command, check=True, capture_output=True)
        return Https(certificate=files.cert, key=locked)
    return Https(certificate=files.cert, key=files.key)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("absent", r"fullchain\.pem: cannot be read: No such file"),
        ("no certificate", r"fullchain\.pem: holds no certificate"),
        ("no key", r"privkey\.pem: holds no key"),
        ("another's key", r"privkey\.pem: the key is another certificate's"),
        ("no key in one file", r"fullchain\.pem: holds no key; name its file with --https-key"),
        ("a directory", "cannot be read: Is a directory"),
        ("too large", "more than"),
        ("locked", "the key is locked by a password"),
    ],
)
def test_files_that_cannot_be_served_are_named(issue: Issue, tmp_path: Path, how: str, said: str) -> None:
    https = spoil(how, issue("127.0.0.1"), issue("127.0.0.1"))
    with pytest.raises(CertificateError, match=said):
        ServerCertificate(https, DataDir(tmp_path / "d"), HERE)


def test_a_hub_does_not_start_with_such_files(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "h", "--https-certificate", "absent.pem")
    hub.start(ready=False)
    assert hub.wait() == 1
    (line,) = hub.said.splitlines()
    assert "[certificate]" in line
    assert not (hub.data / "hub.json").exists()


def test_when_it_ends_is_a_metric(hub: HubProcess) -> None:
    with hub.client() as client:
        lines = dict(line.split(" ") for line in client.metrics().splitlines() if line[0] != "#" and "{" not in line)
    assert abs(float(lines["edge_hub_certificate_ends_seconds"]) - time.time() - SERVER_S) < 3600


def test_certificate_and_key_may_be_in_one_file(issue: Issue, tmp_path: Path) -> None:
    mine = issue("127.0.0.1")
    mine.cert.write_text(mine.cert.read_text() + mine.key.read_text())
    assert ServerCertificate(Https(certificate=mine.cert), DataDir(tmp_path / "d"), HERE).given


@pytest.mark.parametrize(
    "words",
    [
        ("devices", "--hub", "http://127.0.0.1:1"),
        ("token", "--hub", "http://127.0.0.1:1", "list"),
        ("export", "--what", "audit", "-o", "x.csv"),
    ],
    ids=lambda words: words[0],
)
def test_an_authority_for_nothing_that_is_asked_by_tls_is_refused(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("EDGE_HUB_TOKEN", "x")
    args = build_parser().parse_args(["hub", *words, "--hub-ca", "c.pem"])
    with pytest.raises(UsageError, match=r"without TLS|goes with --hub"):
        args.command.run(args)
