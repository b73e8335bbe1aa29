"""A chat at a terminal: what it remembers, and what its commands do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import Sampling
from forge.cli.session import Session
from forge.errors import ForgeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest


class Echo:
    """A chat that answers with what it was asked."""

    def ask(self, messages: Sequence[Mapping[str, Any]], _: Sampling, show: Any) -> dict[str, Any]:
        content = messages[-1]["content"]
        if content == "fail":
            raise ForgeError("it cannot be answered")
        show(str(len(messages)))
        return {"text": str(content), "finished": True, "stopped": False}


def test_a_session_keeps_its_messages_until_it_is_reset(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(Echo(), Sampling(), "Be brief.")  # type: ignore[arg-type]  # a double
    session.say("one")
    session.say("fail")
    session.say("two")
    assert [message["content"] for message in session.messages] == ["Be brief.", "one", "one", "two", "two"]
    assert "error: it cannot be answered" in capsys.readouterr().err
    picture = tmp_path / "a picture.png"
    picture.write_bytes(b"")
    session.obey("image", str(picture))
    session.say("What is this?")
    parts = session.messages[-2]["content"]
    assert parts == [{"type": "image", "image": str(picture)}, {"type": "text", "text": "What is this?"}]
    session.obey("image", "nowhere.png")
    assert "there is no file nowhere.png" in capsys.readouterr().err
    session.obey("reset", "")
    assert session.messages == [{"role": "system", "content": "Be brief."}]
    session.obey("save", str(tmp_path / "x.jsonl"))
    assert "nothing has been said" in capsys.readouterr().err
