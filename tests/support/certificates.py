"""A certificate authority of the tests' own, and contexts for both ends."""

import functools
import ssl

import trustme


class Authority:
    """Issues certificates, and makes contexts that show and trust them."""

    def __init__(self) -> None:
        self.ca = trustme.CA()

    @functools.cache  # noqa: B019 - there is one for the whole run
    def issue(self, *names: str) -> trustme.LeafCert:
        """A certificate for host names or addresses."""
        return self.ca.issue_cert(*names)

    def server(self, *names: str) -> ssl.SSLContext:
        """A context for a server, with a certificate for these names (default: localhost)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issue(*(names or ("localhost",))).configure_cert(context)
        return context

    def client(self, certificate_for: str | None = None) -> ssl.SSLContext:
        """A context for a client that trusts this authority, with a certificate of its own if asked for."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if certificate_for is not None:
            self.issue(certificate_for).configure_cert(context)
        return context


_AUTHORITY = Authority()


def authority() -> Authority:
    """The one of this run, for all of its threads."""
    return _AUTHORITY
