"""A certificate authority of one server's own, for TLS on loopback."""

import tempfile
from pathlib import Path

from brokers.tools import find_tool, run_tool

DAYS = "30"
REMEDY = "Install OpenSSL 3 (package openssl)."

# Spelled out, since what a distribution's openssl.cnf adds differs. Strict verifiers want every line: Python
# 3.13 the key identifiers and usages, rustls a server certificate that is not an authority.
CONFIGURATION = """
[req]
distinguished_name = name
prompt = no
[name]
CN = headrace test broker
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def write_certificate(certificate: Path, key: Path, authority: Path) -> None:
    """Writes PEM files: a certificate for 127.0.0.1 and localhost, its key, and the authority to trust.

    The authority's own key is thrown away. Raises BrokerUnavailableError without `openssl`.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-ca-") as name:
        scratch = Path(name)
        authority_key = scratch / "ca.key"
        (scratch / "openssl.cnf").write_text(CONFIGURATION)
        _sign(scratch, "authority", authority, authority_key)
        _sign(scratch, "server", certificate, key, "-CA", str(authority), "-CAkey", str(authority_key))
    key.chmod(0o600)


def _sign(scratch: Path, extensions: str, certificate: Path, key: Path, *signer: str) -> None:
    openssl = find_tool("openssl", REMEDY)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    shape = ["-config", "openssl.cnf", "-extensions", extensions, "-days", DAYS]
    files = ["-keyout", str(key), "-out", str(certificate)]
    run_tool([openssl, "req", "-x509", *curve, *shape, *files, *signer], scratch, REMEDY)
