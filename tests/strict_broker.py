"""A real broker that wants TLS, a login or both."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from deploy.local import kafka
from deploy.local.broker import listeners
from deploy.local.ports import free_ports
from tests.services import had

USER = "fleet"
PASSWORD = "right-and-secret"


def login(user: str = USER) -> Mapping[str, str]:
    """The properties with which a user logs in to `login`."""
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": PASSWORD,
    }


class Strict:
    """A broker with listeners of each kind: `plain`, `login`, `tls` and `both`.

    Whoever comes to `plain` may do everything; `users` may log in to the others.
    """

    def __init__(self, folder: Path, users: Collection[str] = (USER,), *, closed: bool) -> None:
        """`closed` is whether users may do only what they were allowed to."""
        self._users = users
        self._closed = closed
        self.ports = dict(zip(("login", "tls", "both"), free_ports(3), strict=True))
        self.authority = folder / "ca.pem"
        self.stranger = folder / "stranger.pem"
        self._keys = folder / "server.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        trustme.CA().cert_pem.write_to_path(self.stranger)
        issued = authority.issue_cert("127.0.0.1")
        # Kafka reads keys in PKCS #8 alone.
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._keys.write_bytes(pem + b"".join(each.bytes() for each in issued.cert_chain_pems))

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def listeners(self, *given: Any, **options: Any) -> Mapping[str, str]:
        """What `deploy.local` gives a broker, and the strict listeners beside it."""
        found = dict(listeners(*given, **options))
        for name, port in self.ports.items():
            for which in ("listeners", "advertised.listeners"):
                found[which] += f",{name.upper()}://127.0.0.1:{port}"
        found["listener.security.protocol.map"] += ",LOGIN:SASL_PLAINTEXT,TLS:SSL,BOTH:SASL_SSL"
        found["sasl.enabled.mechanisms"] = "PLAIN"
        found["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        found["allow.everyone.if.no.acl.found"] = str(not self._closed).lower()
        found["super.users"] = "User:ANONYMOUS"
        logins = " ".join(f'user_{user}="{PASSWORD}"' for user in self._users)
        for name in ("login", "both"):
            found[f"listener.name.{name}.plain.sasl.jaas.config"] = (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {logins};"
            )
        for name in ("tls", "both"):
            found[f"listener.name.{name}.ssl.keystore.type"] = "PEM"
            found[f"listener.name.{name}.ssl.keystore.location"] = str(self._keys)
        return found

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it while the block does."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("deploy.local.native_kafka.listeners", self.listeners)
            with had(kafka(native=True)) as service:
                self.ports["plain"] = int(service.bootstrap_servers.rpartition(":")[2])
                yield
