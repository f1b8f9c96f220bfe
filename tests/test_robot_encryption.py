"""The link to a robot server, encrypted: with a certificate that the test makes, and with the wrong ones."""

import shutil
import subprocess
from pathlib import Path

import pytest
from robot_servers import Driven, Server

from vla_bench_envs.robot.client import RemoteLink
from vla_bench_envs.robot.encryption import CA_VARIABLE, explained, server_context
from vla_bench_envs.robot.errors import CertificateError, RobotLinkError

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")


def certificate(folder: Path, name: str, address: str = "127.0.0.1") -> tuple[Path, Path]:
    """Make a self-signed certificate for an address and return the files of both halves."""
    cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=robot", "-addext", f"subjectAltName=IP:{address}"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"), "robot")


@pytest.fixture(scope="module")
def server(tmp_path_factory, files):
    cert, key = files
    options = ("--live", "--image-size", "64", "--tls-cert", str(cert), "--tls-key", str(key))
    made = Server(tmp_path_factory.mktemp("served"), *options)
    yield made
    assert "Traceback" not in made.close()


@pytest.mark.sim
def test_a_robot_is_moved_over_an_encrypted_link(server, files, monkeypatch) -> None:
    monkeypatch.setenv(CA_VARIABLE, str(files[0]))
    assert server.url.startswith("wss://")
    client = Driven(server.url).arm()
    assert client.act([0, 0.1, 0, 0, 0, 0, 0])["verdict"] == "ok"
    assert client.look()["img"]["front"].shape == (64, 64, 3)
    client.close()


@pytest.mark.sim
def test_a_link_that_is_not_encrypted_is_refused(server, files, monkeypatch) -> None:
    with pytest.raises(RobotLinkError, match=r"a server with a certificate is asked by wss:\)"):
        RemoteLink(server.url.replace("wss:", "ws:"), "observe")
    monkeypatch.setenv(CA_VARIABLE, str(files[0]))
    RemoteLink(server.url, "observe").close()  # and the server goes on


@pytest.mark.sim
def test_a_certificate_that_nobody_trusts_or_of_another_host_is_refused(server, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv(CA_VARIABLE, raising=False)
    with pytest.raises(RobotLinkError, match=r"its certificate is not trusted: self-signed certificate; VLA_"):
        RemoteLink(server.url, "observe")
    monkeypatch.setenv(CA_VARIABLE, str(certificate(tmp_path, "other")[0]))
    with pytest.raises(RobotLinkError, match="its certificate is not trusted: "):
        RemoteLink(server.url, "observe")


@pytest.mark.sim
def test_a_name_that_the_certificate_does_not_have_is_refused(server, files, monkeypatch) -> None:
    monkeypatch.setenv(CA_VARIABLE, str(files[0]))
    with pytest.raises(RobotLinkError, match="its certificate is not trusted: Hostname mismatch"):
        RemoteLink(server.url.replace("127.0.0.1", "localhost"), "observe")


@pytest.mark.sim
def test_a_server_without_a_certificate_cannot_be_asked_for_one(tmp_path) -> None:
    plain = Server(tmp_path, "--image-size", "64")
    try:
        with pytest.raises(RobotLinkError, match=r"the TLS handshake failed: .*; a server without a certificate"):
            RemoteLink(plain.url.replace("ws:", "wss:"), "observe")
    finally:
        assert "Traceback" not in plain.close()


def test_files_that_make_no_encrypted_link_are_refused(files, tmp_path, monkeypatch) -> None:
    cert, key = files
    other = certificate(tmp_path, "other")[1]
    assert server_context(cert, key).minimum_version.name == "TLSv1_2"
    with pytest.raises(CertificateError, match=r"cannot be used for TLS \(.*KEY_VALUES_MISMATCH"):
        server_context(cert, other)
    (tmp_path / "empty.pem").write_text("")
    monkeypatch.setenv(CA_VARIABLE, str(tmp_path / "empty.pem"))
    with pytest.raises(CertificateError, match=r"empty\.pem \(VLA_BENCH_ROBOT_CA\) cannot be used for TLS"):
        RemoteLink("wss://127.0.0.1:9", "observe")
    assert explained("ws://127.0.0.1:9", OSError("refused")) == "refused"
