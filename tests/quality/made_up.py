"""Dialogue turns made from a grammar written for this project: text to calibrate on that belongs to us and looks like what people say."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

EXAMPLES = Path(__file__).parents[2] / "examples/conversations/conversations.jsonl"

_TABLES: dict[str, str] = {
    "person": "Mira|Jonas|Priya|Luca|Aisha|Pedro|Hanna|Kofi|Yuki|Sven|Leila|Marek|Rosa|Declan|Ines|Tariq|Greta|Ravi|Chloe|Bruno",
    "kin": "my brother|my grandmother|my neighbour|my cousin|my daughter|my uncle|my old flatmate|my boss|my son|our landlord"
    "|my best friend|my aunt",
    "place": "Ghent|Valencia|Bergen|Kyoto|Toronto|Nairobi|Trieste|Leipzig|Porto Alegre|Cork|Tallinn|Lima|Hobart|Marrakesh|Pune"
    "|Grenoble|Utrecht",
    "spot": "the harbour|the old town hall|the allotment|the climbing gym|the library|the night market|the ferry|the station cafe|the beach"
    "|the botanical garden|the swimming pool|the community centre|the ice rink|the vet|the hospital|the workshop|the bakery on the corner",
    "animal": "a greyhound|two kittens|a tortoise|a parrot|a rescue dog|a hedgehog|a goat|a ferret|three hens|an elderly cat|a pony",
    "food": "mushroom risotto|lentil soup|rye bread|a plum cake|dumplings|paella|pickled cucumbers|a lemon tart|okonomiyaki|goulash"
    "|falafel|jam"
    "|fish pie|kimchi|a walnut loaf|gazpacho|pierogi",
    "hobby": "pottery|bouldering|choir practice|bird watching|chess|salsa|beekeeping|watercolours|rowing|astronomy|fencing|knitting"
    "|orienteering"
    "|archery|improv theatre|restoring bicycles|playing the accordion|cold water swimming|calligraphy|judo",
    "job": "a nurse|a tram driver|a translator|a carpenter|a data analyst|a geography teacher|a sound engineer|a pastry chef|a paramedic"
    "|a marine biologist|a florist|a locksmith|a tax adviser|a stage designer|an electrician",
    "thing": "the washing machine|a second-hand piano|a telescope|the boiler|a canoe|my laptop|the blue sofa|a sewing machine"
    "|the camper van"
    "|a pair of hiking boots|the greenhouse|an espresso machine|my grandfather's watch|a tent|the roof box|a violin|the fridge",
    "trouble": "broke down|was stolen|leaks again|finally arrived|needs a new motor|went missing|is up for sale|got repaired"
    "|smells of smoke",
    "show": "a documentary about glaciers|that detective series|a jazz concert|the puppet theatre|a film about the moon landing|the derby"
    "|a lecture on medieval maps|the flower show|a stand-up evening|the opera",
    "book": "a novel about lighthouse keepers|a history of salt|a biography of a cartographer|poems about winter"
    "|a thriller set in a submarine"
    "|a manual on beekeeping|short stories from Lagos|an atlas of islands",
    "body": "my knee|my shoulder|my back|my wrist|my left ear|a wisdom tooth|my ankle|my eyes",
    "feel": "relieved|exhausted|proud|nervous|over the moon|a bit lost|furious|hopeful|homesick|grateful|torn|calm for once",
    "when": "last Tuesday|on Saturday|in March|the week before last|this morning|over Easter|in the autumn|yesterday evening|on the 14th"
    "|three years ago|next month|at the weekend|on my birthday|in early June|after work|tomorrow",
    "number": "two|three|five|six|eight|eleven|fourteen|twenty|forty|a hundred and ten",
    "sum": "forty euros|two hundred pounds|a month's rent|next to nothing|eighteen dollars|half my savings|six thousand kroner",
    "plan": "learn Portuguese|run a half marathon|move in with Felix|open a small cafe|go back to university|build a shed|adopt a dog"
    "|cycle along the Danube|give up sugar|start a podcast|plant an orchard|change teams|sell the flat|take a sabbatical",
    "lesson": "patience|asking for help|saying no|sleep|good maps|writing things down|being early|a sharp knife|listening first",
    "event": "the school play|her wedding|the retirement party|the street festival|the job interview|the exam|the house-warming|the funeral"
    "|the marathon|the christening|the science fair|the flea market|the court hearing|the board meeting",
    "worry": "the results|the mortgage|her visa|the deadline|his hearing|the noise upstairs|the harvest|the election"
    "|the mould in the cellar",
}
_SHAPES: tuple[str, ...] = (
    "{kin} got a job as {job} in {place} and starts {when}.",
    "I made {food} for {number} people {when}, and for once nobody asked for salt.",
    "We adopted {animal} from the shelter near {spot}; {person} chose the name.",
    "I signed up for {hobby} at {spot}, every week, {number} evenings in a row.",
    "{thing} {trouble} {when}, just before {event}.",
    "Went to see {show} with {person}. I was {feel} afterwards.",
    "I'm reading {book}, {person} lent it to me {when}.",
    "{body} has been hurting since {event}, so no {hobby} for a while.",
    "I finally decided to {plan}. It will cost {sum}, but I'm {feel}.",
    "Remember {person}? Moved to {place} {when} and works as {job} now.",
    "What I took from {event} is that {lesson} matters more than talent.",
    "{when} we drove to {place} and stayed with {kin} for {number} days.",
    "{kin} taught me how to cook {food} when I was small.",
    "I sold {thing} for {sum} and bought a ticket to {place}.",
    "Honestly I can't stop thinking about {worry}.",
    "{person} and I want to {plan} before the summer is over.",
    "They cancelled {event} because of the storm, so we ended up at {spot}.",
    "My first {hobby} lesson was a disaster, I felt {feel}, then it clicked.",
    "{kin} was in hospital {when}, it was {body} this time, all fine now.",
    "There's {animal} living behind {spot}, {person} feeds it every morning.",
    "I spent {sum} on {thing} and I regret nothing.",
    "Since {when} I get up at five to do some {hobby} before the shift.",
    "The best {food} I ever had was in {place}, in a kitchen the size of a wardrobe.",
    "{event} went well! {number} people came and {person} gave a speech.",
    "I grew up in {place}, {number} streets from {spot}.",
    "We painted the kitchen yellow {when}, {kin} hates it.",
    "Turns out {person} used to be {job} before all this.",
    "I dreamt of {animal} running through {spot}, no idea what that says about {worry}.",
    "If I had the money I would {plan}, but first I have to deal with {worry}.",
    "{kin} gave me {book} {when}, with a note about {lesson} inside.",
)
_REPLIES: tuple[str, ...] = (
    "That's wonderful, {person}! How did you feel about it?",
    "Oh no, I'm sorry about {worry}. Can I help somehow?",
    "Ha! {lesson}, as {kin} always says.",
    "What made you want to {plan}?",
    "How long have you been into {hobby}?",
    "Wow, {place}! Did you go to {spot} as well?",
    "Did {person} come along?",
    "I'd be {feel} too.",
    "Thanks, that means a lot to me.",
    "Good luck with {event}, tell me everything!",
    "And {thing}, is it still the same one?",
    "Really? {sum} for that?",
    "Same here, {when} was a mess.",
    "You should try {food}, it helps.",
)
_TAILS: tuple[str, ...] = (
    "",
    "",
    " It reminded me of {place}.",
    " {kin} laughed for {number} minutes.",
    " Next time I'll bring {food}.",
    " How is {event} coming along on your side?",
    " I still feel {feel} about it.",
    " And you, any news about {worry}?",
    " Anyway, {lesson} first.",
    " I wrote it all down {when}.",
)


def made_up_turns(count: int, random: Random) -> list[str]:
    """`count` distinct turns "Speaker: words", a third of them short replies."""
    tables = {name: row.split("|") for name, row in _TABLES.items()}
    found: dict[str, None] = {}
    while len(found) < count:
        shapes: Sequence[str] = _REPLIES if random.random() < 1 / 3 else _SHAPES
        text = random.choice(shapes) + (random.choice(_TAILS) if shapes is _SHAPES else "")
        filled = re.sub(r"\{(\w+)\}", lambda slot: random.choice(tables[slot[1]]), text)
        found[f"{random.choice(tables['person'])}: {filled[0].upper()}{filled[1:]}"] = None
    return list(found)


def example_turns() -> list[str]:
    """The turns of the two example conversations as they are embedded."""
    rows = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    return [f"{row['speaker']}: {row['text']}" for row in rows]
