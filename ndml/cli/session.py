"""What every command shares: where the suite is, who asks, how to print."""

from __future__ import annotations

from dataclasses import dataclass, field

from ndml.cli.output import Output
from ndml.client import DEFAULT_ADDRESS, ClientOptions, NdmlClient, Tls
from ndml.errors import FieldInvalid

LONGEST_S = 24 * 3600.0
"""For what goes over everything of a user, or of a suite."""


@dataclass(frozen=True, slots=True)
class Session:
    """The global options."""

    address: str = DEFAULT_ADDRESS
    tenant: str = ""
    user: str = ""
    agent: str = ""
    session: str = ""
    token: str = field(default="", repr=False)
    timeout_s: float = 10.0
    tls: Tls | None = None
    output: Output = field(default_factory=Output)
    consistency: str = ""

    @property
    def client_options(self) -> ClientOptions:
        return ClientOptions(tls=self.tls, consistency=self.consistency)

    def client(self, *, needs_user: bool = True) -> NdmlClient:
        """A client with these options. Raises FieldInvalid where the command is about a user and none is given."""
        if needs_user and not self.user:
            raise FieldInvalid("say whose memory: give --user or set NDML_USER", field="user")
        return NdmlClient(
            self.address,
            tenant=self.tenant,
            token=self.token,
            user=self.user,
            agent=self.agent,
            session=self.session,
            timeout_s=self.timeout_s,
            options=self.client_options,
        )
