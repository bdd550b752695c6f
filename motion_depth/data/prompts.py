"""A readable prompt from a scene's folder name, for scenes that nobody has described yet.

"test_ball_and_block_fall/env_0/0/0" becomes "A ball and a block fall.". A name that does not read as things, a verb and
places becomes "A physics scene: its words.".
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

MADE_UP = "A physics scene"  # how a prompt begins where the name does not read
WORDS = {  # by a letter for their kind: thing, stuff, verb, place, joint
    "t": """apple ball balloon barrel basket bin block board book bottle bowl box bucket can car card cart chain chair
        cloth coin cone crate cube cup cylinder disk domino door duck egg fan figure floor funnel gear hammer hoop house
        lamp ledge lever magnet marble mirror mug orange pen pencil pendulum pin plane plate platform pole puck pyramid
        rail ramp ring robot rod roller rope sculpture shelf slope sphere spinner spring stack stick string table target
        teapot top torus tower toy track train tray tube tunnel wall weight wheel""",
    "s": "air foam glass grass gravel honey ice juice light milk nothing oil sand snow space water",
    "v": """balance bend bounce break catch circle climb collapse collide crash crush deflate dive drift drip drop enter
        escape fall fill float flip flow fly hang hit jump knock land lean leave lift meet melt move orbit pass pour
        press pull push reach rest rise rock roll rotate shake shatter sink sit skid slide slip spill spin splash stand
        stay stop strike swing tilt tip topple toss touch tumble turn vibrate wobble""",
    "p": """above across against along apart around at away back behind below beside between by down from front in
        inside into near off on onto out outside over past through to together toward towards under up upward with
        without""",
    "j": "and a an the",
}
STATES = {"static": "stays still", "still": "stays still", "stationary": "stays still", "moving": "moves"}
COUNTS = re.compile(r"((env|variation|var|seed|run|take|view|camera|cam)[_-]?)?\d+", re.IGNORECASE)  # no scene's name
# Subject, verb, rest. m: many things; V: of the third person; u: unknown, taken for such a verb; z: a state.
CLAUSE = re.compile(r"((?:j*[tms]j*)*)(v|V|(?<=.)u(?=.)|(?<=.)z$|)((?:j*[tms]j*|p)*)")


def third_person(word: str) -> str:
    """roll -> rolls, push -> pushes, fly -> flies; so are plurals formed: box -> boxes."""
    if re.search("[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "sh", "ch", "x", "o")) else "s")


KINDS = {third_person(thing): "m" for thing in WORDS["t"].split()} | dict.fromkeys(STATES, "z")
KINDS |= {word: kind for kind, words in WORDS.items() for word in words.split()}
KINDS |= {third_person(verb): "V" for verb in WORDS["v"].split()}


def kind_of(scene: str, otherwise: str) -> str:
    """The last of a scene's folders that does not just count (env_0, 0), which its variations share; or `otherwise`."""
    return next((part for part in reversed(PurePosixPath(scene).parts) if not COUNTS.fullmatch(part)), otherwise)


def make_prompt(scene: str, base_name: str) -> str:
    """A sentence for a scene, from its kind, or from base_name if it has none."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind_of(scene, base_name)).lower()  # BallRamp
    words = [word for word in re.split(r"[\W\d_]+", name) if word not in ("", "test")]
    kinds = "".join(KINDS.get(word, "u" if word.endswith("s") else "?") for word in words)
    found = CLAUSE.fullmatch(kinds)
    if found is None or not found[1] + found[2]:
        return f"{MADE_UP}: {' '.join(words)}." if words else f"{MADE_UP}."
    (subject, verb, rest), start = found.groups(), found.end(1)
    phrases = [phrase(words[:start], subject) if subject else "an object"]  # "roll_behind_box"
    phrases += [STATES.get(word, word) for word in words[start : start + len(verb)]]
    phrases += [phrase(words[start + len(verb) :], rest)] if rest else []
    if verb == "v" and subject in ("", "s"):
        phrases[1] = third_person(phrases[1])
    elif verb == "v" and subject == "t":  # "ball_collide"
        phrases[0] = third_person(words[0])
    sentence = " ".join(phrases)
    return f"{sentence[0].upper()}{sentence[1:]}."


def phrase(words: list[str], kinds: str) -> str:
    """["in", "box"] of kinds "pt" -> "in a box"; ["mug", "block"] of kinds "tt" -> "a mug and a block"."""
    parts = []
    for run in re.finditer("p+|[^p]+", kinds):
        these = words[run.start() : run.end()]
        if "p" not in run[0]:
            nouns = [noun for noun in these if KINDS[noun] != "j"]
            nouns = [noun if KINDS[noun] in "sm" else f"a{'n' * (noun[0] in 'aeiou')} {noun}" for noun in nouns]
            these = [", ".join(nouns[:-1]), *["and"] * (len(nouns) > 1), nouns[-1]]
        parts += filter(None, these)
    return re.sub("(in )?front( of)?", "in front of", " ".join(parts))
