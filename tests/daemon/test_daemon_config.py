"""The configuration file: what is taken, what is refused and in which words."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edge_daemon import config
from edge_daemon.config import Config, ServerSection, find, load, password, state_directory
from edge_sdk.errors import ConfigError
from edge_sdk.preference import Mode, Preference
from edge_sdk.server_address import ServerAddress

pytestmark = pytest.mark.device


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "daemon.toml"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    return write


def test_an_empty_file_is_all_defaults(write) -> None:
    loaded = load(write(""))
    assert loaded.device_id() is None
    assert loaded.bundles() == {}
    assert loaded.policy.tick_s == 1.0
    assert load(None) == Config()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[telemetry]\nsample_evry_s = 5", "sample_evry_s"),
        ("[telemtry]\n", "telemtry"),
        ("[models.digits]\nbundle = 'x'\nprefrence = {}", "prefrence"),
        ("[mqtt]\nhost = 'h'\npasword = 'x'", "pasword"),
        ("[models.digits]\nbundle = 'x'\npreference = {max_latency = 5}", "max_latency"),
    ],
)
def test_an_unknown_key_is_refused_by_name(write, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        load(write(text))
    assert "daemon.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_value_of_a_model_names_the_model(write) -> None:
    models = "".join(
        f"[models.{name}]\nbundle = 'x'\npreference = {{mode = '{mode}'}}\n"
        for name, mode in (("digits", "speed"), ("faces", "fast"), ("birds", "battery"))
    )
    with pytest.raises(ConfigError, match=r"'fast' - at `\$\.models\.faces\.preference\.mode`"):
        load(write(models))


@pytest.mark.parametrize(
    "text",
    [
        "[telemetry]\nsample_every_s = nan",
        "[telemetry]\nsample_every_s = inf",
        "[telemetry]\nsample_every_s = 0",
        "[telemetry]\nspool_max_mb = -1",
        "[policy]\ntick_s = 0.0001",
        "[mqtt]\nhost = ''",
        "[mqtt]\nhost = 'h'\nport = 0",
        "[mqtt]\nhost = 'h'\nport = 65536",
        "[log]\nlevel = 'loud'",
        "[models]\n'../etc' = 'x'",
        "[models]\n'a\\n' = 'x'",
        "[models]\ndigits = ''",
        "[device]\nname = 'a/b'",
        "[sensors]\nplayed = 1",
        "not toml",
        "a = 1\na = 2",
    ],
)
def test_what_is_out_of_bounds_is_refused(write, text: str) -> None:
    with pytest.raises(ConfigError):
        load(write(text))


def test_relative_paths_are_relative_to_the_file(write, tmp_path: Path) -> None:
    text = (
        "[models]\na = 'a.edge'\n[models.b]\nbundle = '/opt/b.edge'\n[state]\ndirectory = 's'\n[api]\nsocket = 'x.sock'"
    )
    loaded = load(write(text))
    assert loaded.bundles()["a"].bundle == str(tmp_path / "a.edge")
    assert loaded.bundles()["b"].bundle == "/opt/b.edge"
    assert loaded.state.directory == str(tmp_path / "s")
    assert loaded.api.socket == str(tmp_path / "x.sock")


def test_a_model_may_carry_its_preference(write) -> None:
    text = "[models.digits]\nbundle = 'x'\npreference = {mode = 'battery', max_latency_ms = 50}"
    assert load(write(text)).bundles()["digits"].preference == Preference(mode=Mode.BATTERY, max_latency_ms=50)


def served_by(url: str, *, name: str = "digits", more: str = "") -> str:
    return f"[models.{name}]\nbundle = 'x'\nserver = {{url = '{url}', model = 'big', quality = 99.5{more}}}\n"


def test_a_model_may_name_a_server_that_runs_it_too(write) -> None:
    loaded = load(write(served_by("http://board-2:8080/api", more=", server_ms = 25")))
    assert loaded.bundles()["digits"].server == ServerSection(
        url="http://board-2:8080/api", model="big", quality=99.5, server_ms=25.0
    )
    assert ServerAddress.read("http://board-2:8080/api/") == ServerAddress(
        scheme="http", host="board-2", port=8080, prefix="/api"
    )
    assert ServerAddress.read("grpcs://[::1]") == ServerAddress(scheme="grpcs", host="::1", port=443)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (served_by("board-2:8080"), r"models\.digits\.server\.url: it is not SCHEME://HOST"),
        (served_by("ftp://board-2"), "it is not SCHEME://HOST"),
        (served_by("http://board-2?a=b"), "it is not SCHEME://HOST"),
        (served_by("http://board-2:99999"), "it has a bad host or port"),
        (served_by("http://board 2"), "it holds characters that none has"),
        (served_by("http://me:hush@board-2"), "it holds a name or a password"),
        (served_by("http://a") + served_by("http://b", name="faces"), r"faces\.server\.url is of another host"),
        (served_by("http://a", more=", token = 'hush'"), "token"),
        (served_by("http://a", more=", token_file = ''"), "token_file"),
        (served_by("http://a", more=", ca_file = 'ca.pem'"), r"digits\.server\.ca_file is given, but http:// is not"),
        (served_by("grpc://a", more=", ca_file = 'ca.pem'"), "grpc:// is not encrypted"),
        (served_by("http://a", more=", metered = 'never'"), "metered"),
        (served_by("http://a", more=", server_ms = -1"), "server_ms"),
        ("[models.digits]\nbundle = 'x'\nserver = {url = 'http://a', model = 'big'}", "quality"),
        ("[models.digits]\nbundle = 'x'\nserver = {url = 'http://a', quality = 9.0}", "model"),
        ("[models.digits]\nbundle = 'x'\nserver = {url = 'http://a', model = 'm', quality = nan}", "quality"),
    ],
)
def test_a_server_that_makes_no_sense_is_refused_in_one_line_without_a_secret(write, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(write(text))
    assert "daemon.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_the_files_of_a_server_are_relative_to_the_file_and_need_not_be_there(write, tmp_path: Path) -> None:
    text = served_by("https://board-2", more=", token_file = 'token', ca_file = '/etc/edge/ca.pem', metered = 'allow'")
    server = load(write(text)).bundles()["digits"].server
    assert server is not None
    assert (server.token_file, server.ca_file) == (str(tmp_path / "token"), "/etc/edge/ca.pem")
    assert server.metered == "allow"
    plain = load(write(served_by("http://board-2"))).bundles()["digits"].server
    assert plain is not None
    assert (plain.token_file, plain.ca_file, plain.metered) == (None, None, "avoid")


def test_a_token_that_everybody_can_read_is_complained_about_without_a_word_of_it(
    write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "token"
    token.write_text("hush")
    for mode, complaints in ((0o640, 0), (0o644, 1)):
        token.chmod(mode)
        load(write(served_by("http://board-2", more=", token_file = 'token'")))
        assert caplog.text.count(f"{token} holds a token and every user of this machine can read it") == complaints
    assert "hush" not in caplog.text


def test_a_broker_needs_a_name_to_report_under(write) -> None:
    with pytest.raises(ConfigError, match=r"device\.tenant or device\.name.*enroll"):
        load(write("[mqtt]\nhost = 'h'"))


WHO = "[device]\ntenant = 't'\nname = 'd'\n"


@pytest.mark.parametrize(
    ("tls", "port"), [("", 1883), ("tls = true", 8883), ("tls = false", 1883), ("tls = {ca = 'ca.pem'}", 8883)]
)
def test_the_port_follows_from_the_encryption(write, tmp_path: Path, tls: str, port: int) -> None:
    mqtt = load(write(f"{WHO}[mqtt]\nhost = 'h'\n{tls}")).mqtt
    assert mqtt is not None
    assert mqtt.effective_port == port
    assert (mqtt.encryption is not None) == (port == 8883)
    if "ca.pem" in tls:
        assert mqtt.encryption is not None
        assert mqtt.encryption.ca == str(tmp_path / "ca.pem")


def test_what_excludes_each_other_is_refused(write) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        load(write(f"{WHO}[mqtt]\nhost = 'h'\npassword = 'a'\npassword_file = 'b'"))
    with pytest.raises(ConfigError, match="go together"):
        load(write(f"{WHO}[mqtt]\nhost = 'h'\ntls = {{cert = 'c'}}"))


def test_the_password_may_lie_in_a_file_of_its_own(write, tmp_path: Path) -> None:
    mqtt = load(write(f"{WHO}[mqtt]\nhost = 'h'\npassword_file = 'secret'")).mqtt
    assert mqtt is not None
    with pytest.raises(ConfigError, match="password_file cannot be read"):
        password(mqtt)
    secret = tmp_path / "secret"
    secret.write_text("\n")
    secret.chmod(0o600)
    with pytest.raises(ConfigError, match="no password in its first line"):
        password(mqtt)
    secret.write_text("of the device\nnot this\n")
    assert password(mqtt) == "of the device"


def test_a_password_file_that_everybody_can_read_is_complained_about_once_and_not_at_each_connection(
    write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mqtt = load(write(f"{WHO}[mqtt]\nhost = 'h'\npassword_file = 'secret'")).mqtt
    (tmp_path / "secret").write_text("hush\n")
    (tmp_path / "secret").chmod(0o644)
    assert {password(mqtt) for _ in range(3)} == {"hush"}
    assert caplog.text.count("every user of this machine can read it") == 1


def test_a_password_that_everybody_can_read_is_complained_about(write, caplog: pytest.LogCaptureFixture) -> None:
    path = write(f"{WHO}[mqtt]\nhost = 'h'\npassword = 'hush'")
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        load(path)
    assert "chmod o-r" in caplog.text
    assert "hush" not in caplog.text


def test_the_file_is_named_by_option_variable_or_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "system.toml"
    monkeypatch.setattr(config, "SYSTEM_CONFIG", system)
    monkeypatch.delenv(config.CONFIG_VARIABLE, raising=False)
    assert find() is None
    system.touch()
    assert find() == system
    monkeypatch.setenv(config.CONFIG_VARIABLE, "/variable")
    assert find() == Path("/variable")
    assert find("/given") == Path("/given")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.toml")


def test_state_lies_where_systemd_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edge-test:/other")
    assert state_directory(Config()) == Path("/var/lib/edge-test")
