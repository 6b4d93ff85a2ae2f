"""Cards, registry and the strict trigger grammar."""

import dataclasses

import pytest

from vlm.experts import (
    Expert,
    ExpertCard,
    ExpertError,
    TriggerError,
    card_block,
    expert_names,
    get_expert,
    parse_trigger,
    register_expert,
)


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("<LESIONS()>", "LESIONS", ()),
        ("This is a CT. Let me ask <VISTA3D(hepatic tumor)>.", "VISTA3D", ("hepatic tumor",)),
        ("<CXR( edema , pleural-effusion )>", "CXR", ("edema", "pleural-effusion")),
    ],
)
def test_a_valid_trigger_is_parsed(text, name, arguments):
    trigger = parse_trigger(text)
    assert (trigger.name, trigger.arguments) == (name, arguments)
    assert parse_trigger(str(trigger)) == trigger


@pytest.mark.parametrize("text", ["left", "14 mm", "", "a < b and c > d", "<image>", "LESIONS()", "<LESIONS>"])
def test_ordinary_answers_are_no_triggers(text):
    assert parse_trigger(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "<LESIONS()> <LESIONS()>",
        "<LESIONS()><CXR()>",
        "<LESIONS(<LESIONS()>)>",
        "<LESIONS(a(b))>",
        "<LESIONS((a))>",
        "<LESIONS(a,)>",
        "<LESIONS(,)>",
        "<LESIONS(a;b)>",
        "<LESIONS(",
        "<LESIONS()",
        "<lesions()>",
        "< LESIONS()>",
        "<LESIONS ()>",
        "<LESIONS(a\nb)>",
    ],
)
def test_what_is_not_exactly_one_trigger_is_an_error(text):
    with pytest.raises(TriggerError):
        parse_trigger(text)


def test_a_long_reply_is_parsed_quickly():
    assert parse_trigger("x " * 20_000) is None
    with pytest.raises(TriggerError):
        parse_trigger("<LESIONS(" + "a " * 2_000)


def test_the_registry_refuses_duplicates_and_lists_what_it_knows():
    assert "LESIONS" in expert_names()
    with pytest.raises(ValueError, match="already registered"):
        register_expert(get_expert("LESIONS"))
    with pytest.raises(ExpertError, match="unknown expert NOBODY; known: .*LESIONS"):
        get_expert("NOBODY")


@pytest.mark.parametrize("name", expert_names())
def test_every_registered_expert_declares_itself(name):
    cls = get_expert(name)
    assert issubclass(cls, Expert) and cls.card.name == name
    assert cls.card.modality and cls.card.returns
    arguments = ", ".join(cls.card.arguments[:1])
    assert parse_trigger(f"<{name}({arguments})>").name == name


def test_cards_are_checked_and_shown_one_a_line():
    card = ExpertCard("SEG", "CT", "any", "masks", ("liver", "lung"))
    assert card_block([card]) == "Experts:\n<SEG(liver|lung)> CT: masks\n"
    assert card_block([]) == ""
    with pytest.raises(ValueError, match="expert name"):
        dataclasses.replace(card, name="seg")
    with pytest.raises(ValueError, match="argument"):
        dataclasses.replace(card, arguments=("(x)",))
