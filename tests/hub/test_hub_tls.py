"""Encryption by the hub's own authority: who is trusted, who is let in, and who no more."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon_stage import EDGE, PATIENCE_S, Broker, clean_environment, until
from hub_stage import CAM, OTHER, FakeDevice, HubProcess

from edge_daemon.config import load
from edge_hub import cli
from edge_hub.api import Credentials, EnrolRequest
from edge_hub.broker.authority import DEVICE_S, SERVER_S, Authority
from edge_hub.enrolment import device_configuration
from edge_hub.errors import AnswerError
from edge_sdk import mqtt
from edge_sdk.cli.main import build_parser
from edge_sdk.errors import StorageError, UsageError
from edge_sdk.mqtt import Down, Up

NAMES = ("127.0.0.1", "localhost", "hub.example")


def served(authority: Authority) -> tuple[tuple[str, ...], str]:
    """Names and serial of the broker's certificate, as OpenSSL reads them."""
    found: Any = ssl._ssl._test_decode_cert(str(authority.server_cert))  # type: ignore[attr-defined]
    return tuple(sorted(value for _, value in found["subjectAltName"])), found["serialNumber"]


def verified(authority: Authority, certificate: str, *flags: str) -> bool:
    """OpenSSL's own word on a certificate, with the revocation list."""
    told = subprocess.run(
        ["openssl", "verify", "-CAfile", authority.ca, "-CRLfile", authority.crl, "-crl_check", *flags],
        input=certificate.encode(),
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    return told.returncode == 0


def test_an_authority_outlives_restarts_and_renews_in_time(tmp_path: Path) -> None:
    now = [1.8e9]
    authority = Authority(tmp_path / "a", now=lambda: now[0])
    assert authority.ensure_server(NAMES)
    first = served(authority)
    assert first[0] == tuple(sorted(NAMES))
    authority = Authority(tmp_path / "a", now=lambda: now[0])
    now[0] += SERVER_S * 0.6
    assert not authority.ensure_server(NAMES)
    assert authority.ensure_server((*NAMES, "192.0.2.7"))
    assert "192.0.2.7" in served(authority)[0]
    now[0] += SERVER_S * 0.7
    assert authority.ensure_server(NAMES)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o600}


def test_a_certificate_counts_until_it_is_revoked_or_another_one_is_issued(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "a")
    first, key = authority.issue("acme/cam1")
    other, _ = authority.issue("acme/cam2")
    assert "PRIVATE KEY" in key
    assert verified(authority, first, "-purpose", "sslclient")
    assert not verified(authority, first, "-purpose", "sslserver")
    second, _ = authority.issue("acme/cam1")
    assert (verified(authority, first), verified(authority, second)) == (False, True)
    authority = Authority(tmp_path / "a")
    assert (authority.revoke("acme/cam1"), authority.revoke("acme/cam1"), authority.revoke("nobody")) == (1, 0, 0)
    assert (verified(authority, second), verified(authority, other)) == (False, True)


def test_what_has_ended_by_itself_is_forgotten(tmp_path: Path) -> None:
    now = [1.8e9]
    authority = Authority(tmp_path / "a", now=lambda: now[0])
    authority.issue("acme/cam1")
    now[0] += DEVICE_S + 1
    authority.issue("acme/cam2")
    assert "cam1" not in (tmp_path / "a" / "issued.json").read_text()


def test_an_authority_that_was_tampered_with_is_named(tmp_path: Path) -> None:
    Authority(tmp_path / "a")
    Authority(tmp_path / "b")
    (tmp_path / "a" / "ca.key").write_bytes((tmp_path / "b" / "ca.key").read_bytes())
    with pytest.raises(StorageError, match="another one's"):
        Authority(tmp_path / "a")
    (tmp_path / "b" / "ca.pem").write_text("no certificate")
    with pytest.raises(StorageError, match=r"ca\.pem"):
        Authority(tmp_path / "b")


@pytest.mark.parametrize("name", ["münchen.example", "a" * 300 + "\n"])
def test_a_name_that_no_certificate_can_have_is_named(tmp_path: Path, name: str) -> None:
    authority = Authority(tmp_path / "a")
    with pytest.raises(UsageError, match="neither a host name nor an address"):
        authority.ensure_server(("127.0.0.1", name))


# --------------------------------------------------------------------------------------------- with a real broker


@pytest.fixture(params=[(), ("--client-certificates",)], ids=["password", "certificate"])
def secure(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[HubProcess]:
    hub = HubProcess(tmp_path / "h", "--tls", *request.param)
    hub.start()
    yield hub
    hub.stop()


Join = Callable[..., FakeDevice]


@pytest.fixture
def join(secure: HubProcess, tmp_path: Path) -> Iterator[Join]:
    """Connects a device by what its enrolment gave it."""
    with contextlib.ExitStack() as ends:

        def connect(credentials: Credentials, device: mqtt.DeviceId = CAM, **more: Any) -> FakeDevice:
            made = FakeDevice(secure.mqtt, credentials.password, device, tls=context(tmp_path, credentials), **more)
            ends.callback(made.close)
            return made

        yield connect


def context(directory: Path, credentials: Credentials) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=credentials.ca)
    if credentials.certificate is not None and credentials.key is not None:
        chain = directory / "chain.pem"
        chain.write_text(credentials.certificate + credentials.key)
        made.load_cert_chain(chain)
    return made


def enrolled(hub: HubProcess, device: mqtt.DeviceId = CAM, *, again: bool = False) -> Credentials:
    with hub.client() as client:
        return client.enrol(device, again=again)


@pytest.mark.broker
def test_what_is_enrolled_connects_encrypted_until_it_is_revoked(secure: HubProcess, join: Join) -> None:
    credentials = enrolled(secure)
    assert credentials.tls
    assert (credentials.certificate is None) == ("--client-certificates" not in secure.options)
    cam, other = join(credentials), join(enrolled(secure, OTHER), OTHER)
    cam.confirmed(cam.happens("hello"))
    lost: list[Any] = []
    cam._client.on_disconnect = lambda *found: lost.append(found)
    told = subprocess.run(
        [*EDGE, "hub", "revoke", str(CAM), "--data", str(secure.data)],
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
        env=clean_environment(secure.directory),
    )
    assert told.returncode == 0, told.stderr
    until(lambda: lost, "the connection to end")
    cam._client.on_disconnect = None
    other.confirmed(other.happens("unharmed"))
    if credentials.certificate is not None:  # not even with a password that is right
        fresh = enrolled(secure, again=True)
        stale = msgspec.structs.replace(fresh, certificate=credentials.certificate, key=credentials.key)
        with pytest.raises(AssertionError, match="the subscription"):
            join(stale, patience_s=1.0)
        back = join(fresh)
        back.confirmed(back.happens("back"))
    assert secure.messages() >= 1


@pytest.mark.broker
def test_spoofed_messages_are_not_delivered(secure: HubProcess, join: Join) -> None:
    """What counts is what arrives: mosquitto grants any subscription and delivers nothing of it."""
    cam = join(enrolled(secure))
    topics = ("#", "edge/#", "edge/v1/+/+/up/#", f"edge/v1/{CAM}/#", "$SYS/#", "+/+/+/+/+/+")
    rogue = join(enrolled(secure, OTHER), OTHER, topics=topics)
    body = mqtt.Event(at=1.0, kind="sensor", text="forged")
    forged = mqtt.UpEnvelope(id="0" * 32, boot=cam.boot, seq=9, sent=1.0, body=body)
    rogue.publish(mqtt.up_topic(CAM, Up.EVENT), mqtt.pack(forged))
    ack = mqtt.DownEnvelope(id="0" * 32, sent=1.0, body=mqtt.Ack(boot=cam.boot, ranges=((1, 99),)))
    rogue.publish(mqtt.down_topic(CAM, Down.ACK), mqtt.pack(ack))
    rogue.publish(mqtt.down_topic(CAM, Down.DESIRED), b"{}", retain=True)
    rogue.when(lambda: len(rogue.denied) == 3, "the refusals")
    cam.confirmed(cam.happens("mine"))
    rogue.confirmed(rogue.happens("its own"))
    assert cam.acked == {1}
    assert rogue.strangers == []
    with secure.client() as client:
        assert [one.event.text for one in client.device(CAM).events] == ["mine"]


@pytest.mark.broker
def test_names_that_are_wildcards_are_enrolled_by_nobody(secure: HubProcess) -> None:
    with secure.client() as client:
        for name in ("acme/+", "+/cam", "acme/#", "#/#", "acme/cam1/up", "acme/"):
            with pytest.raises(AnswerError, match="TENANT/DEVICE"):
                client._ask("POST", "/api/v1/devices", Credentials, EnrolRequest(device=name))


@pytest.mark.broker
def test_without_encryption_or_trust_nobody_gets_through(secure: HubProcess, tmp_path: Path) -> None:
    credentials = enrolled(secure)
    strangers = Authority(tmp_path / "strangers")
    with pytest.raises(AssertionError):
        FakeDevice(secure.mqtt, credentials.password, patience_s=1.0)
    distrustful = ssl.create_default_context(cafile=strangers.ca)
    with (
        socket.create_connection(("127.0.0.1", secure.mqtt)) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
        distrustful.wrap_socket(plain, server_hostname="127.0.0.1"),
    ):
        pass
    if credentials.certificate is not None:
        certificate, key = strangers.issue(str(CAM))
        stranger = msgspec.structs.replace(credentials, certificate=certificate, key=key)
        with pytest.raises((AssertionError, OSError)):
            FakeDevice(secure.mqtt, credentials.password, tls=context(tmp_path, stranger), patience_s=1.0)


@pytest.mark.parametrize("papers", [(), ("ca",), ("ca", "certificate", "key")])
def test_what_the_enrolment_writes_is_what_the_daemon_verifies_by(tmp_path: Path, papers: tuple[str, ...]) -> None:
    from edge_daemon.uplink import tls_context

    authority = Authority(tmp_path / "a")
    certificate, key = authority.issue(str(CAM))
    given = {"ca": authority.ca_pem, "certificate": certificate, "key": key}
    chosen = {name: given[name] for name in papers}
    credentials = Credentials(device=str(CAM), host="h", port=1, tls=True, username="u", password="p", **chosen)
    path = tmp_path / "device.toml"
    path.write_text(device_configuration(credentials, {"digits": "/x"}))
    path.chmod(0o600)
    section = load(path).mqtt
    assert section is not None
    assert section.encryption is not None
    made = tls_context(section.encryption)
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert (made.cert_store_stats()["x509_ca"] == 1) == bool(papers)


@pytest.mark.broker
def test_an_external_broker_is_trusted_by_a_file_of_its_authority(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", encrypted=True)
    broker.start()
    url = f"mqtts://hub:of%20the%20hub@127.0.0.1:{broker.port}"
    try:
        refused = HubProcess(tmp_path / "r", "--broker", url)
        refused.start(ready=False)
        assert refused.wait() == 1
        assert "[broker-unreachable]" in refused.said
        trusting = HubProcess(tmp_path / "t", "--broker", url, "--broker-ca", str(tmp_path / "broker" / "ca.pem"))
        trusting.start()
        trusting.stop()
    finally:
        broker.stop()


@pytest.mark.parametrize(
    "options",
    [
        ("--client-certificates",),
        ("--tls-name", "hub.example"),
        ("--tls", "--broker", "mqtt://127.0.0.1"),
        ("--broker-ca", "ca.pem"),
        ("--broker", "mqtt://127.0.0.1", "--broker-ca", "ca.pem"),
        ("--https-key", "k.pem"),
        ("--https", "--https-certificate", "c.pem"),
        ("--https-certificate", "c.pem", "--tls-name", "hub.example"),
        ("--client-certificates", "--https"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    args = build_parser().parse_args(["hub", "run", "--data", str(tmp_path / "hub"), *options])
    with pytest.raises(UsageError):
        cli.run(args)
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--mqtt", "0.0.0.0:{port}"), "unsafe-listen"),
        (("--broker", "mqtts://127.0.0.1:{port}", "--broker-ca", "absent.pem"), "storage"),
    ],
)
def test_what_is_unsafe_or_not_there_is_refused(tmp_path: Path, options: tuple[str, ...], code: str) -> None:
    hub = HubProcess(tmp_path / "h")
    hub.options = tuple(option.format(port=hub.mqtt) for option in options)
    hub.start(ready=False)
    assert hub.wait() in {1, 2}
    assert f"[{code}]" in hub.said.splitlines()[-1], hub.said


@pytest.mark.broker
def test_with_encryption_it_may_listen_beyond_this_machine(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "h")
    hub.options = ("--tls", "--tls-name", "hub.example", "--mqtt", f"0.0.0.0:{hub.mqtt}")
    hub.start()
    try:
        authority = Authority(hub.data / "broker" / "authority")
        assert {"127.0.0.1", "hub.example", "localhost"} <= set(served(authority)[0])
        assert enrolled(hub).host != "0.0.0.0"  # noqa: S104
    finally:
        hub.stop()
