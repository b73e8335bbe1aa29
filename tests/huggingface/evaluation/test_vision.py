"""Models that see, when they answer: evaluation and chat look at the pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Sampling
from support.evaluating import Evaluation, generator_of

if TYPE_CHECKING:
    from support.looking import VisionProject
    from support.projects import Project


@pytest.fixture
def project(seeing: VisionProject) -> VisionProject:
    """A project whose model sees."""
    return seeing


@pytest.fixture(scope="module")
def sampling() -> Sampling:
    return Sampling(max_new_tokens=6)


def test_rows_with_pictures_are_asked_and_their_loss_is_that_of_the_trainer(
    project: Project, sampling: Sampling
) -> None:
    project.write(
        data={"eval_size": 3}, train={"per_device_eval_batch_size": 3}, eval={"metrics": ["f1"], "max_new_tokens": 4}
    )
    done = project.perform()
    assert done.code == 0, done.printed
    found = Evaluation(project, done.folder).found("eval.samples=3")
    trained = done.of_kind("trained")[-1]["metrics"]["eval_loss"]
    assert found["metrics"]["loss"]["tuned"]["value"] == pytest.approx(trained, rel=1e-3)
    assert found["metrics"]["f1"]["base"]["n"] == 3
    one = Evaluation(project, done.folder).found("eval.samples=3", "eval.batch_size=1")
    assert [each["answers"] for each in one["samples"]] == [each["answers"] for each in found["samples"]]

    generator: Any = generator_of(done.folder)
    pictures = sorted((project.folder / "pictures").iterdir())
    content = [{"type": "image", "image": str(pictures[0])}, {"type": "text", "text": "Which colour is this?"}]
    prompt = generator._prompt([{"role": "user", "content": content}])
    assert len(prompt.images) == 1
    whole = next(generator.complete([prompt], sampling))[1][0]
    assert "".join(generator.chat([{"role": "user", "content": content}], sampling)) == whole.text
    blank = prompt.images[0].point(lambda _: 255)
    seen, unseen = (
        generator.model(**generator._encode([type(prompt)(text=prompt.text, images=(image,))])).logits[0, -1]
        for image in (prompt.images[0], blank)
    )
    assert not seen.allclose(unseen, atol=1e-4), "another picture gives another answer"
