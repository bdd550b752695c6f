"""A readable prompt from a scene's folder name, for scenes that nobody has described yet.

"test_ball_and_block_fall/env_0/0/0" becomes "A ball and a block fall.". A small grammar over the words of physics
scenes: subject, verb, place. A name that it cannot read becomes "A physics scene: its words.".
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import PurePosixPath


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def third_person(verb: str) -> str:
    """roll -> rolls, push -> pushes, fly -> flies; box -> boxes too."""
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s")


# What folder names of physics scenes are made of. A name with any other word gets the plain fallback sentence.
NOUNS = words("""
    apple ball balloon barrel basket bin block board book bottle bowl box bucket can car card cart chain chair cloth
    coin cone crate cube cup cylinder disk domino door duck egg fan figure floor funnel gear hammer hoop house lamp
    ledge lever magnet marble mirror mug orange pen pencil pendulum pin plane plate platform pole puck pyramid rail
    ramp ring robot rod roller rope sculpture shelf slope sphere spinner spring stack stick string table target
    teapot top torus tower toy track train tray tube tunnel wall weight wheel
""")
MASS_NOUNS = words("air foam glass grass gravel honey ice juice light milk nothing oil sand snow space water")
VERBS = words("""
    balance bend bounce break catch circle climb collapse collide crash crush deflate dive drift drip drop enter
    escape fall fill float flip flow fly hang hit jump knock land lean leave lift meet melt move orbit pass pour
    press pull push reach rest rise rock roll rotate shake shatter sink sit skid slide slip spill spin splash stand
    stay stop strike swing tilt tip topple toss touch tumble turn vibrate wobble
""")
VERB_FORMS = frozenset(third_person(verb) for verb in VERBS)
PREPOSITIONS = words("""
    above across against along apart around at away back behind below beside between by down from front in inside
    into near off on onto out outside over past through to together toward towards under up upward with without
""")
STATES = {"static": "stays still", "still": "stays still", "stationary": "stays still", "moving": "moves"}
VARIATION = re.compile(
    r"((env|variation|var|seed|run|take|view|camera|cam)[_-]?)?\d+", re.IGNORECASE
)  # not a scene's name


def scene_words(scene: str, base_name: str) -> list[str]:
    """Words of the folder that names a scene: "test_ball_ramp/env_0/0/0" -> ["ball", "ramp"].

    That is the last folder which does not just count (env_0, 0); `base_name` stands in where all of them are.
    """
    names = [part for part in PurePosixPath(scene).parts if not VARIATION.fullmatch(part)]
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", names[-1] if names else base_name)  # BallRamp
    return [token for token in re.split(r"[\W_]+", name.lower()) if token and token != "test"]


def things(tokens: list[str]) -> str | None:
    """["mug", "and", "block"] or ["mug", "block"] -> "a mug and a block"; None if a word names no thing."""
    nouns = [token for token in tokens if token not in ("and", "a", "an", "the")]
    if not nouns or any(noun not in NOUNS | MASS_NOUNS for noun in nouns):
        return None
    phrases = [noun if noun in MASS_NOUNS else f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}" for noun in nouns]
    return " and ".join(phrases) if len(phrases) < 3 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def places(tokens: list[str]) -> str | None:
    """["in", "box"] -> "in a box"; also without a preposition first ("a duck") or a thing last ("off")."""
    phrases: list[str | None] = []
    for is_preposition, group in groupby(tokens, PREPOSITIONS.__contains__):
        run = list(group)
        phrases.append(" ".join(run).replace("front", "in front of") if is_preposition else things(run))
    return None if None in phrases else " ".join(phrases)


def parse_clause(tokens: list[str]) -> str | None:
    """An English clause from tokens in the order subject, verb, rest; None for other orders and unknown words."""
    verbs = [i for i, token in enumerate(tokens) if token in VERBS | VERB_FORMS]
    if len(verbs) > 1:
        return None
    if not verbs and tokens[-1] in STATES:
        subject, verb, rest = things(tokens[:-1]), STATES[tokens[-1]], ""
    elif not verbs:  # "ball_in_basket"
        first = next((i for i, token in enumerate(tokens) if token in PREPOSITIONS), len(tokens))
        subject, verb, rest = things(tokens[:first]), "", places(tokens[first:])
    else:
        (at,) = verbs
        verb, rest = tokens[at], places(tokens[at + 1 :])
        subject = things(tokens[:at]) if at else "an object"  # "roll_behind_box"
        if verb in VERBS and (at == 0 or subject in MASS_NOUNS):
            verb = third_person(verb)
        elif verb in VERBS and at == 1 and subject:  # "ball_collide"; English forms plurals as it does verbs
            subject = third_person(tokens[0])
    return None if subject is None or rest is None else " ".join(part for part in (subject, verb, rest) if part)


def make_prompt(scene: str, base_name: str) -> str:
    """A sentence for a scene's folder: "test_ball_and_block_fall/env_0" -> "A ball and a block fall."."""
    tokens = scene_words(scene, base_name)
    if not tokens:
        return "A physics scene."
    clause = parse_clause(tokens)
    return f"{clause[0].upper()}{clause[1:]}." if clause else f"A physics scene: {' '.join(tokens)}."
