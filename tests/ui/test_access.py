"""Who may see the page, and what its command refuses."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import shop
from fake_answers import Sessions, ask

from text2sql import cli
from text2sql.ui import access, places
from text2sql.ui.access import Access

OWN = "http://127.0.0.1:8321"


def test_every_answer_forbids_inline_scripts_other_hosts_and_frames(client):
    browser = client()
    for address in ("/", "/runs", "/compare", "/work", "/assets/ask.js", "/nothing", "/reports/0/base/report.html"):
        headers = browser.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "'unsafe-inline'" not in policy or policy.startswith("sandbox allow-scripts;")
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_pages_have_no_inline_scripts_or_styles(client):
    browser = client()
    for address in ("/", "/runs", "/sweeps/1/rank", "/compare?a=0/base&b=0/tuned"):
        page = browser.get(address).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=\"|https?://", page)


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1:8321", 200), ("localhost:8321", 200), ("localhost", 200),
    ("evil.example", 421), ("evil.example:8321", 421), ("127.0.0.1.evil.example", 421), ("", 421),
])  # fmt: skip
def test_another_name_for_this_machine_is_refused(client, host, status):
    assert client().get("/runs", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(("headers", "status"), [
    ({}, 200), ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, 200),
    ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Origin": "http://127.0.0.1:9999"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403),
])  # fmt: skip
def test_a_question_from_another_page_is_refused(client, headers, status):
    sessions = Sessions()
    assert ask(client(sessions), headers=headers).status_code == status
    assert bool(sessions.opened) is (status == 200)


TOKEN = "a-token-of-enough-characters"


def test_with_a_token_nothing_is_shown_without_it(client):
    browser = client(allowed=Access("0.0.0.0", 8321, TOKEN))
    for address in ("/", "/runs", "/work", "/assets/ask.js", "/?token=wrong", "/?token=", "/runs?token=" + TOKEN):
        said = browser.get(address)
        assert (said.status_code, "set-cookie" in said.headers) == (401, False)
    assert ask(browser).status_code == 401


def test_the_token_in_the_address_becomes_a_cookie_that_scripts_and_other_sites_do_not_have(client):
    browser = client(allowed=Access("0.0.0.0", 8321, TOKEN))
    opened = browser.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert browser.get("/runs").status_code == 200
    browser.cookies.set("text2sql_ui_8321", "wrong", domain="127.0.0.1")
    browser.cookies = {"text2sql_ui_8321": "wrong"}
    assert browser.get("/runs").status_code == 401


def test_a_token_is_wanted_where_a_host_is_named_or_one_is_given():
    assert access.token_for(None, "") is None
    assert len(access.token_for("0.0.0.0", "")) >= 32
    assert access.token_for("0.0.0.0", "") != access.token_for("0.0.0.0", "")
    assert access.token_for(None, TOKEN) == access.token_for("0.0.0.0", TOKEN) == TOKEN
    with pytest.raises(ValueError, match="TEXT2SQL_UI_TOKEN has 5 characters"):
        access.token_for(None, "short")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to show"),
        (["nowhere"], "nowhere is no folder"),
        (["--database", "none.sqlite"], "--database=none.sqlite does not exist"),
        (["--database", "text.sqlite"], "--database=text.sqlite is not a SQLite database"),
        (["--database", "empty"], "--database=empty holds no database"),
        (["--run", "empty"], "--run empty is no run's folder"),
        (["empty", "--votes", "0"], "--votes 0"),
        (["empty", "--port", "{taken}"], "--port {taken}: "),
        (["empty", "--port", "99999"], "--port 99999: "),
    ],
)
def test_a_mistake_ends_with_one_message_and_exit_code_2(capsys, arguments, message):
    Path("empty").mkdir()
    Path("text.sqlite").write_text("id,name\n")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        assert cli.main(["ui", "--no-browser", *(one.format(taken=taken) for one in arguments)]) == 2
    assert message.format(taken=taken) in capsys.readouterr().err.splitlines()[-1]


def test_the_help_names_every_option_and_has_examples(capsys):
    with pytest.raises(SystemExit):
        cli.main(["ui", "--help"])
    printed = capsys.readouterr().out
    for said in (
        "--database",
        "--run",
        "--port",
        "--host",
        "--no-browser",
        "--votes",
        "text2sql ui --database shop.sqlite",
    ):
        assert said in printed


def test_databases_of_one_name_are_told_apart_by_their_paths(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shop.make(tmp_path / name / "shop.sqlite")
    shop.make(tmp_path / "b" / "other.db")
    found = places.find([], [tmp_path / "a", tmp_path / "b"], [])
    assert sorted(found.databases) == [f"{tmp_path}/a/shop.sqlite", f"{tmp_path}/b/shop.sqlite", "other"]


def test_it_serves_this_machine_and_ends_with_ctrl_c(found):
    code = "import sys; from text2sql.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "ui", "outputs", "--port", "0", "--no-browser"]
    path = {"PYTHONPATH": str(Path(cli.__file__).parent.parent)}
    served = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **path}
    )
    try:
        said = served.stdout.readline()
        address = re.fullmatch(r"text2sql ui: (http://127\.0\.0\.1:\d+/)   \(Ctrl-C ends it\)\n", said)[1]
        assert "outputs/base" in urllib.request.urlopen(f"{address}runs", timeout=20).read().decode()
        served.send_signal(signal.SIGINT)
        assert served.wait(20) == 0
        assert served.stderr.read() == ""
    finally:
        served.kill()
        served.communicate()
