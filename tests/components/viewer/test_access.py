"""Who may look."""

import pytest
from fastapi.testclient import TestClient

from components.records.errors import InputError
from components.viewer.access import Access
from components.viewer.catalog import read_catalog
from components.viewer.serve import check_access
from components.viewer.service import create_app

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture
def guarded(run_folders):
    app = create_app(read_catalog([str(run_folders[0])]), Access(TOKEN))
    return TestClient(app, base_url="http://viewer.example", follow_redirects=False)


@pytest.mark.parametrize("address", ["/api/slides", "/metrics", "/openapi.json", "/static/slide.js", "/api/runs/run"])
def test_without_the_token_nothing_is_told(guarded, address):
    assert guarded.get(address).status_code == 401
    assert guarded.get(address, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert guarded.get(address, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.get(address, cookies={"bagline-viewer": TOKEN}).status_code == 401


def test_probes_need_no_token(guarded):
    assert guarded.get("/healthz").status_code == 200
    assert guarded.get("/readyz").status_code == 200


def test_the_page_asks_for_the_token_and_takes_it(guarded):
    asked = guarded.get("/", headers={"Accept": "text/html"})
    assert (asked.status_code, asked.headers["location"]) == (303, "/login")
    assert guarded.get("/login").status_code == 200
    wrong = guarded.post("/login", data={"token": "wrong"})
    assert wrong.headers["location"] == "/login?again"
    assert "set-cookie" not in wrong.headers
    right = guarded.post("/login", data={"token": TOKEN}, headers={"X-Forwarded-Proto": "https"})
    cookie = right.headers["set-cookie"]
    assert TOKEN not in cookie
    assert all(word in cookie for word in ("HttpOnly", "SameSite=lax", "Secure"))
    value = cookie.partition("=")[2].partition(";")[0]
    assert guarded.get("/api/slides", cookies={"bagline-viewer": value}).status_code == 200


def test_without_a_token_only_this_machine_s_names_are_answered(run_folders):
    app = create_app(read_catalog([str(run_folders[0])]))
    for host, status in (("localhost:8080", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("evil.example", 421)):
        assert TestClient(app).get("/api/runs", headers={"Host": host}).status_code == status


def test_another_host_needs_a_token():
    with pytest.raises(InputError, match=r"0\.0\.0\.0 is more than this machine.*--token-file"):
        check_access("0.0.0.0", "")
    with pytest.raises(InputError, match="has 5 characters; take 16 or more"):
        check_access("127.0.0.1", "short")
    assert check_access("127.0.0.1", "").open
    assert not check_access("0.0.0.0", TOKEN).open
