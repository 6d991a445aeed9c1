"""What the tests stand on."""

import pytest
from support.server import SharedServers


def test_a_shared_server_that_has_died_fails_who_killed_it_or_who_finds_it_and_nobody_else():
    servers = SharedServers()
    try:
        log = r"ended in this test.*\n(.*\n)*.*Started server process"
        with pytest.raises(pytest.fail.Exception, match=log), servers.lend("apps:app") as first:
            first.kill()
        with servers.lend("apps:app") as second:
            assert second.get("/text").status == 200
        with servers.lend("apps:app") as again, servers.lend("apps:app", "--no-access-log") as other:
            assert again is second is not other
        second.kill()
        with pytest.raises(pytest.fail.Exception, match="ended before this test"), servers.lend("apps:app"):
            raise AssertionError("lent out dead")
        with servers.lend("apps:app") as third:
            assert third.get("/text").status == 200
    finally:
        servers.close()
