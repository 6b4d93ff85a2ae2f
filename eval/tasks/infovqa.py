"""InfographicVQA (Mathew et al., WACV 2022): questions on long infographics, some of which count or compare. ANLS.

`infovqa` is the validation split; `infovqa_test` has no public answers and leaves a file for the benchmark's server.
Repository (a configuration of DocVQA's), splits, prompt and limit are those of lmms-eval 0.7.3 (`infovqa_val`,
`infovqa_test`); VLMEvalKit puts the same suffix. Sub-scores say where the answer is found (image span, question span,
several spans, none), groups are pictures.
"""

from __future__ import annotations

from eval.sources import Source
from eval.tasks.docvqa import FORMERLY, REPO, PageQuestions
from eval.tasks.registry import register_task


@register_task
class InfoVQA(PageQuestions):
    name = "infovqa"
    source = Source(REPO, split="validation", config="InfographicVQA", formerly=FORMERLY)
    kinds_column = "answer_type"


@register_task
class InfoVQATest(InfoVQA):
    name = "infovqa_test"
    source = Source(REPO, split="test", config="InfographicVQA", formerly=FORMERLY)
    answers_public = False
    controls = ()  # nothing to compare
