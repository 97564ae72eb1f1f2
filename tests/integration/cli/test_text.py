"""What people read: golden texts for peers, routes and configuration, as they come out of a pipe."""

from __future__ import annotations

import tomllib

from bgp.toml import config_to_dict, loads
from integration.cli.columns import Column, duration, lines_of, visible
from integration.cli.config_text import config_lines, toml_lines
from integration.cli.peers import peer_details, peers_table
from integration.cli.routes import routes_table, why
from integration.cli.status import status_lines
from tests.integration.node.stand_in import StandIn, path_view, peer_view, route_view


def plain(text: str, _style: str) -> str:
    return text


def text_of(lines: object) -> str:
    return "\n".join(lines)  # type: ignore[arg-type]


def test_the_table_of_peers_fits_a_hundred_columns() -> None:
    peers = [
        peer_view("tor1"),
        peer_view(
            "node2",
            address="2001:db8:aaaa:bbbb::2",
            asn=4200000001,
            state="Active",
            last_error="Hold Timer Expired",
            last_error_s_ago=75.0,
        ),
        peer_view("node3", state="Idle", shutdown="rack 7 moves"),
        peer_view(
            "dyn-1",
            state="Gone",
            last_down="Hold Timer Expired",
            last_down_s_ago=80.0,
            last_error="connection lost",
            last_error_s_ago=9.0,
        ),
    ]
    assert (
        text_of(peers_table(peers, plain))
        == """\
NAME   ADDRESS                        AS  STATE        UPTIME  RECV  ACC  SENT  LAST ERROR
tor1   192.0.2.1                   65000  Established   1h02m    11    9     7
node2  2001:db8:aaaa:bbbb::2  4200000001  Active                                Hold Timer Expired (1m15s ago)
node3  192.0.2.1                   65000  Shutdown                              shut down here: rack 7 moves
dyn-1  192.0.2.1                   65000  Gone                                  Hold Timer Expired (1m20s ago)"""
    )


def test_one_peer_is_shown_with_all_that_is_known() -> None:
    peer = peer_view(
        "tor1",
        capabilities=["multiprotocol ipv4", "route refresh"],
        mismatches=["ipv6: not offered by the peer"],
        timers={"hold_s": 71.2, "keepalive_s": 9.0, "connect_retry_s": None},
        malformed=3,
        local_address="192.0.2.9:45678",
        remote_address="192.0.2.1:179",
        import_policy=["rule 1: accept if prefix in 10.0.0.0/8", "default: reject"],
    )
    text = text_of(peer_details(peer, plain, malformed=False))
    assert "connection    192.0.2.9:45678 → 192.0.2.1:179\n" in text
    assert "timers        hold 1m11s, keepalive 9s\n" in text
    assert "policy in     rule 1: accept if prefix in 10.0.0.0/8\n              default: reject\n" in text
    assert "mismatches    ipv6: not offered by the peer\n" in text
    assert "ipv4          10         8         2      0     5" in text
    assert "update           4     3" in text
    assert "3 malformed messages; their bytes: catbird show peer tor1 --malformed" in text


def test_malformed_messages_are_dumped_in_hex() -> None:
    peer = peer_view(
        "tor1",
        malformed=1,
        malformed_messages=[
            {"s_ago": 12.0, "octets": 19, "verdict": "session reset", "text": "bad marker", "hex": "00" * 19}
        ],
    )
    assert (
        text_of(peer_details(peer, plain, malformed=True))
        == """\
the last 1 of 1 malformed messages from tor1, oldest first

when    12s ago
octets  19
wrong   bad marker
answer  session reset
  0000  0000 0000 0000 0000 0000 0000 0000 0000
  0010  0000 00"""
    )


def test_routes_show_each_path_with_a_mark() -> None:
    routes = [
        route_view(
            "10.1.0.0/26",
            path_view("tor1", "best"),
            path_view("tor2", "candidate", next_hop="192.0.2.2", med=5, as_path="65000 65001 65002"),
        ),
        route_view("10.2.0.0/26", path_view("", "best", source="originate", next_hop=None, interface="", as_path="")),
    ]
    assert (
        text_of(routes_table(routes, plain))
        == """\
> best   = multipath   * candidate   ! next hop unreachable   - rejected by policy   s stale
   PREFIX       NEXT HOP        PEER       LPREF  MED  AS PATH
>  10.1.0.0/26  192.0.2.1 eth0  tor1         100       65000 65001 i
*               192.0.2.2 eth0  tor2         100    5  65000 65001 65002 i
>  10.2.0.0/26  -               originate    100       i"""
    )


def test_why_puts_the_best_first_and_says_at_which_step_others_lost() -> None:
    route = route_view(
        "10.1.0.0/26",
        path_view("tor2", "candidate", reason="lost at step 2, AS_PATH length: 3 against 2 of tor1"),
        path_view("tor1", "best", communities=["65000:1"]),
    ) | {"best": 1, "fib": {"state": "programmed", "desired": {"metric": 32}}}
    assert (
        text_of(why([route], plain))
        == """\
10.1.0.0/26  2 paths
  1. > tor1 (ebgp)
       best
       next hop     192.0.2.1 eth0
       AS path      65000 65001 i
       local pref   100
       communities  65000:1
       router id    192.0.2.1
  2. * tor2 (ebgp)
       candidate: lost at step 2, AS_PATH length: 3 against 2 of tor1
       next hop    192.0.2.1 eth0
       AS path     65000 65001 i
       local pref  100
       router id   192.0.2.1
  kernel: state programmed, desired (metric 32)
"""
    )


def test_what_a_peer_says_cannot_move_the_cursor() -> None:
    peers = [peer_view("tor1", state="Idle", last_error="Cease: \x1b[2J\u202egone\nnode2 Established")]
    text = text_of(peers_table(peers, plain))
    assert text.count("\n") == 1
    assert "\\x1b[2J\\u202egone\\nnode2" in text


def test_a_wider_cell_after_the_measured_rows_is_not_cut() -> None:
    rows = [("a", "b")] * 500 + [("a much wider cell", "b")]
    *_, last = lines_of((Column("ONE"), Column("TWO")), rows, plain)
    assert last == "a much wider cell  b"


def test_durations_are_short() -> None:
    assert [duration(value) for value in (None, 0.4, 59, 60, 3600, 86400 * 3 + 7200)] == [
        "", "0s", "59s", "1m00s", "1h00m", "3d02h",
    ]  # fmt: skip


def test_visible_leaves_letters_of_any_language_alone() -> None:
    assert visible("Größe 東京") == "Größe 東京"


def test_status_says_why_it_is_not_ready() -> None:
    view = StandIn().summary(0.0) | {
        "not_ready": "not converged: no session with tor1",
        "loop_lag_max_s": 0.003,
        "memory_octets": 40 << 20,
        "version": "1",
        "pid": 7,
        "config_refused": {"at": "now", "text": "speaker.toml:3: asn"},
    }
    text = text_of(status_lines(view, plain))
    assert "ready      no, not converged: no session with tor1" in text
    assert "refused    what is there now is refused: speaker.toml:3: asn" in text
    assert "memory     40 MiB" in text


CONFIG = """
[speaker]
asn = 64512
router_id = "10.0.0.1"
listen = ["127.0.0.1"]

[kernel]
learn = [{ protocol = "boot" }, { interface = "cali*" }]

[[originate]]
prefix = "10.1.0.0/26"
blackhole = true

[[peer]]
name = "tor/1"
description = "a \\" é"
address = "192.0.2.1"
asn = 65000
password = "hunter22"
import = [{ prefix = ["10.0.0.0/8"], action = "accept", set = { local_pref = 200 } }]
export = "accept"
max_prefixes = 1000
"""


def test_the_configuration_is_shown_as_toml_that_reads_back_the_same() -> None:
    running = config_to_dict(loads(CONFIG, "speaker.toml"))
    text = text_of(toml_lines(running))
    assert tomllib.loads(text) == running
    assert config_to_dict(loads(text, "again.toml")) == running
    assert "hunter22" not in text


def test_the_configuration_says_that_the_file_on_disk_is_refused() -> None:
    view = {
        "file": "/etc/catbird/speaker.toml",
        "loaded_at": "yesterday",
        "refused": {"at": "today", "text": "speaker.toml:3: asn: not a number\nspeaker.toml:9: unknown key"},
        "running": {"speaker": {"asn": 64512}},
    }
    assert (
        text_of(config_lines(view))
        == """\
# /etc/catbird/speaker.toml, read yesterday; passwords are not shown
# since today what is there now is refused:
#   speaker.toml:3: asn: not a number
#   speaker.toml:9: unknown key

[speaker]
asn = 64512"""
    )
