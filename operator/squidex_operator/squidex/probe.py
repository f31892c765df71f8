"""Ask the server whether it accepts a token. Costs nothing there: `GET /api/apps/{app}` is never metered."""

import re
from typing import Literal

from squidex_operator.policy import observed, render
from squidex_operator.squidex import answers, errors, http

Mode = Literal["Auto", "App", "Languages", "Off"]

_APP = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)[:~].+", re.ASCII)


def path(mode: Mode, client_id: str) -> str | None:
    """What to ask for: the client's own app, or the languages, which every client may read. None: no way to ask."""
    app = _APP.fullmatch(client_id)
    if mode == "Off" or (mode == "App" and app is None):
        return None
    if mode == "Languages" or app is None:
        return "/api/languages/"
    return f"/api/apps/{app[1]}"


async def ask(
    sender: http.Http, base_url: str, grant: render.Grant, *, mode: Mode, client_id: str, ca: str
) -> tuple[observed.Verdict, str]:
    """What the server says of the token, and a message fit for a status. Never raises for what the server does."""
    asked = path(mode, client_id)
    if asked is None:
        return (
            observed.Verdict.INCONCLUSIVE,
            "spec.probe.mode is App, but the client id names no app: use Auto or Languages.",
        )
    try:
        answer = await sender.send("GET", base_url + asked, ca=ca, headers={"Authorization": f"Bearer {grant.token}"})
    except errors.SquidexError as error:
        return observed.Verdict.INCONCLUSIVE, error.problem.message
    return answers.probe_answer(answer)
