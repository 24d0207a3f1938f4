"""Settings come from keywords, then the environment, then defaults; wrong ones are refused."""

import ssl
from pathlib import Path
from typing import Any

import pytest

import adsum
from adsum.config import resolve_settings
from adsum.errors import ConfigurationError
from adsum.replication.timing import carrier_timing
from adsum.values.limits import MAX_ADDRESSES


def refusal(given: dict[str, Any], environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve_settings(given, environment or {})
    return str(caught.value)


def test_defaults_are_those_of_the_protocol() -> None:
    settings = resolve_settings({}, {})
    assert (settings.listen, settings.peers, settings.siblings) == ((), (), True)
    assert settings.timing.heartbeat_interval == 1.0
    assert settings.timing.down_after == 6.0


def test_environment_overrides_defaults_and_keywords_override_it() -> None:
    environment = {"ADSUM_CLUSTER": "chat", "ADSUM_DOWN_AFTER": "9.5", "ADSUM_SIBLINGS": "no"}
    settings = resolve_settings({"cluster": "mail"}, environment)
    assert settings.cluster == "mail"
    assert settings.timing.down_after == 9.5
    assert settings.siblings is False


def test_lists_are_separated_by_commas_in_the_environment() -> None:
    settings = resolve_settings({}, {"ADSUM_PEERS": "127.0.0.1:1, [::1]:2,unix:/run/x.sock"})
    assert settings.peers == ("127.0.0.1:1", "[::1]:2", "unix:/run/x.sock")


def test_one_address_is_a_list_of_one() -> None:
    assert resolve_settings({"listen": "127.0.0.1:0"}, {}).listen == ("127.0.0.1:0",)


def test_empty_variable_is_not_given() -> None:
    assert resolve_settings({}, {"ADSUM_NAME": "", "ADSUM_LISTEN": ""}).listen == ()


@pytest.mark.parametrize(
    ("field", "value", "accepted"),
    [
        ("name", "", "1 to 255"),
        ("name", "a\nb", "printable"),
        ("name", 5, "str"),
        ("cluster", "x" * 256, "1 to 255"),
        ("listen", "nonsense", "host:port"),
        ("listen", 7, "address"),
        ("listen", [None], "host:port"),
        ("listen", ["127.0.0.1:0"] * MAX_ADDRESSES, f"fewer than {MAX_ADDRESSES}"),
        ("peers", "127.0.0.1:0", "port"),
        ("peers", "127.0.0.1:99999", "port"),
        ("siblings", "maybe", "True or False"),
        ("runtime_dir", "relative", "absolute path"),
        ("runtime_dir", 5, "absolute path"),
        ("runtime_dir", "/" + "x" * 70, "the system allows"),
        ("secret", "short", "at least 16 bytes"),
        ("secret", 5, "str or bytes"),
        ("tls", "cert.pem", "adsum.TLS"),
        ("heartbeat_interval", 0, "must be between 0.02 s and 10 years"),
        ("heartbeat_interval", True, "a number of seconds, between 0.02 s"),
        ("heartbeat_interval", float("nan"), "a number of seconds"),
        ("heartbeat_interval", "1", "a number of seconds"),
        ("down_after", float("inf"), "a number of seconds"),
        ("linger", -1, "must be between 0 s and 3600 s"),
        ("linger", 1e9, "between 0 s and 3600 s"),
        ("join_timeout", -1, "between 0 s and 3600 s"),
        ("join_timeout", 3601, "between 0 s and 3600 s"),
    ],
)
def test_wrong_setting_error_names_it_and_its_range(
    field: str, value: object, accepted: str
) -> None:
    text = refusal({field: value})
    assert field in text
    assert accepted in text


@pytest.mark.parametrize(
    ("given", "field", "accepted"),
    [
        ({"down_after": 2.0}, "down_after", "3 x heartbeat_interval = 3 s"),
        ({"heartbeat_interval": 5.0}, "down_after", "3 x heartbeat_interval = 15 s"),
        ({"link_grace": 7.0}, "link_grace", "at most down_after = 6 s"),
        ({"forget_after": 3.0}, "forget_after", "at least down_after = 6 s"),
        ({"coalesce_interval": 1.5}, "coalesce_interval", "at most heartbeat_interval = 1 s"),
        ({"advertise": "127.0.0.1:5"}, "advertise", "listen"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    given: dict[str, Any], field: str, accepted: str
) -> None:
    text = refusal(given)
    assert text.startswith(field)
    assert accepted in text


@pytest.mark.parametrize("field", ["listen", "peers"])
@pytest.mark.parametrize("address", ["10.0.0.1:7400", "example.org:7400", "[2001:db8::1]:7400"])
def test_address_off_loopback_without_secret_or_tls_is_refused(field: str, address: str) -> None:
    text = refusal({field: address})
    assert address in text
    assert "ADSUM_SECRET" in text
    resolve_settings({field: address, "secret": "0123456789abcdef"}, {})


@pytest.mark.parametrize("address", ["0.0.0.0:7400", "[::]:7400"])
def test_every_interface_is_off_loopback(address: str) -> None:
    assert "ADSUM_SECRET" in refusal({"listen": address})


def test_secret_is_never_in_an_error() -> None:
    assert "hunter2" not in refusal({"secret": "hunter2"})


def contexts(server: ssl.VerifyMode, client: ssl.VerifyMode) -> list[ssl.SSLContext]:
    """One for each side, verifying as told."""
    made = []
    for purpose, mode in ((ssl.PROTOCOL_TLS_SERVER, server), (ssl.PROTOCOL_TLS_CLIENT, client)):
        context = ssl.SSLContext(purpose)
        context.check_hostname = False
        context.verify_mode = mode
        made.append(context)
    return made


NONE, OPTIONAL, REQUIRED = ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED
SECRET = "a secret of 16 bytes or more"


@pytest.mark.parametrize(
    ("server", "client", "named"),
    [
        (NONE, REQUIRED, "tls.server.verify_mode=CERT_NONE"),
        (OPTIONAL, REQUIRED, "tls.server.verify_mode=CERT_OPTIONAL"),
        (REQUIRED, NONE, "tls.client.verify_mode=CERT_NONE"),
        (NONE, NONE, "tls.server.verify_mode=CERT_NONE"),
    ],
)
def test_tls_that_does_not_verify_is_refused_unless_the_secret_is_to_do_it(
    server: ssl.VerifyMode, client: ssl.VerifyMode, named: str
) -> None:
    both = contexts(server, client)
    cases: list[dict[str, Any]] = [
        {"tls": adsum.TLS(*both)},
        {"tls": adsum.TLS(*both), "secret": SECRET},
        {"tls": adsum.TLS(*both, allow_unverified=True)},
    ]
    for refused in cases:
        text = refusal(refused)
        for part in (named, "CERT_REQUIRED", "TLS.from_files()", "allow_unverified=True"):
            assert part in text
        with pytest.raises(ConfigurationError):
            adsum.Node(**refused)

    accepted = resolve_settings(
        {"tls": adsum.TLS(*both, allow_unverified=True), "secret": SECRET}, {}
    )
    assert accepted.tls is not None
    assert not accepted.tls.mutual


def test_tls_that_verifies_needs_no_secret() -> None:
    settings = resolve_settings({"tls": adsum.TLS(*contexts(REQUIRED, REQUIRED))}, {})
    assert settings.tls is not None
    assert settings.tls.mutual


def test_tls_of_anything_but_contexts_is_refused() -> None:
    (context, _) = contexts(REQUIRED, REQUIRED)
    with pytest.raises(ConfigurationError, match=r"tls\.server=None: must be an ssl\.SSLContext"):
        adsum.TLS(None, context)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ConfigurationError, match=r"tls\.client='client\.pem'"):
        adsum.TLS(context, "client.pem")  # type: ignore[arg-type]  # that is the point


def test_half_of_the_tls_files_is_refused() -> None:
    text = refusal({}, {"ADSUM_TLS_KEY": "/key.pem"})
    assert "ADSUM_TLS_CERTIFICATE" in text


def test_tls_files_are_read_from_the_environment(certificates: Path) -> None:
    files = {
        "ADSUM_TLS_CERTIFICATE": str(certificates / "node.pem"),
        "ADSUM_TLS_KEY": str(certificates / "node.key"),
        "ADSUM_TLS_AUTHORITY": str(certificates / "authority.pem"),
    }
    tls = resolve_settings({}, files).tls
    assert tls is not None
    assert tls.mutual
    del files["ADSUM_TLS_KEY"]
    assert "must be all of" in refusal({}, files)


CARRIER: dict[str, Any] = {"cluster": "shop", "carrier": "nats://bus:4222", "secret": SECRET}


def test_carrier_is_read_from_the_environment() -> None:
    environment = {
        "ADSUM_CARRIER": "redis://bus:6379",
        "ADSUM_CARRIER_GRACE": "5",
        "ADSUM_CLUSTER": "shop",
        "ADSUM_SECRET": SECRET,
    }
    settings = resolve_settings({}, environment)
    assert settings.carrier == "redis://bus:6379"
    assert settings.carrier_grace == 5.0


def test_durations_on_a_carrier_are_its_own_unless_set() -> None:
    assert resolve_settings(CARRIER, {}).timing == carrier_timing()
    timing = resolve_settings({**CARRIER, "heartbeat_interval": 0.5}, {}).timing
    assert timing.heartbeat_interval == 0.5
    assert timing.down_after == carrier_timing().down_after


@pytest.mark.parametrize("missing", ["cluster", "secret"])
def test_carrier_without_cluster_or_secret_is_refused(missing: str) -> None:
    text = refusal({key: value for key, value in CARRIER.items() if key != missing})
    assert text.startswith("carrier='nats://bus:4222': ")
    assert f"`{missing}` (ADSUM_{missing.upper()})" in text


@pytest.mark.parametrize("field", ["listen", "peers", "advertise"])
def test_carrier_beside_addresses_is_refused(field: str) -> None:
    given = {**CARRIER, field: "127.0.0.1:7400"}
    text = refusal(given if field != "advertise" else {**given, "listen": "127.0.0.1:7400"})
    assert "127.0.0.1:7400" in text
    assert "carrier='nats://bus:4222'" in text
    variables = {f"ADSUM_{name.upper()}": value for name, value in given.items()}
    assert "ADSUM_CARRIER='nats://bus:4222'" in refusal({}, variables)


def test_carrier_beside_tls_is_refused() -> None:
    tls = adsum.TLS(*contexts(REQUIRED, REQUIRED))
    assert refusal({**CARRIER, "tls": tls}).startswith("tls: must not be set with carrier=")


def test_credentials_of_a_carrier_are_never_shown() -> None:
    url = "nats://ann:hunter2@bus:4222"
    given = {**CARRIER, "carrier": url}
    assert "hunter2" not in refusal({"carrier": url})
    assert "hunter2" not in refusal({**given, "peers": "127.0.0.1:7400"})
    assert "hunter2" not in refusal({**given, "carrier": url.replace("nats", "amqp")})
    assert "hunter2" not in repr(resolve_settings(given, {}))
    assert "hunter2" not in repr(adsum.Node(**given))


@pytest.mark.parametrize(("value", "accepted"), [(-1, "0 s and 3600 s"), (3601, "0 s and 3600 s")])
def test_grace_of_a_carrier_out_of_range_is_refused(value: float, accepted: str) -> None:
    assert accepted in refusal({**CARRIER, "carrier_grace": value})
