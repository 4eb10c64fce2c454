"""The page's local addresses behind its filter, and the requests of a browser on this machine."""

import json
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from demo.app_state import AppState
from demo.local_files import local_routes
from demo.request_filter import RequestFilter

HERE = {"Host": "127.0.0.1:7860", "Origin": "http://127.0.0.1:7860", "Content-Type": "application/json"}
READ = {"Host": "127.0.0.1:7860", "Sec-Fetch-Site": "same-origin"}


class Page:
    """The local routes behind the filter, and the requests of a browser."""

    def __init__(self, app_state: AppState, client: tuple[str, int] = ("127.0.0.1", 40000)) -> None:
        self.app_state = app_state
        filters = [Middleware(RequestFilter, is_local=app_state.is_local)]
        app: Any = Starlette(routes=local_routes(app_state), middleware=filters)
        app.auth, app.auth_dependency, app.tokens, app.cookie_id = None, None, {}, "test"
        self.app = app
        self.client = TestClient(app, client=client)

    def post(self, path: str, values: Any = None, headers: dict[str, str] | None = None) -> Any:
        return self.client.post(f"/local/{path}", content=json.dumps(values or {}), headers=headers or HERE)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Any:
        return self.client.get(f"/local/{self.key}/{path}", headers=headers or READ)

    @property
    def key(self) -> str:
        return str(self.post("open").json()["key"])

    def act(self, name: str, /, **values: Any) -> dict[str, Any]:
        answer = self.post(f"{self.key}/{name}", {"gallery": self.gallery, **values})
        assert answer.status_code == 200
        return dict(answer.json())

    @property
    def gallery(self) -> str:
        return self.app_state.search.previews.version
