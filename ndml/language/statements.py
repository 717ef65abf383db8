"""Which sentences state something about the speaker or their world: what a memory is for. Rules, no model; the words they know are English.

A question, a greeting, thanks or an order to the assistant is none. What is in another language is kept unless its marks say that it is a
question or its few words that it is a greeting: losing what somebody said is worse than keeping a sentence too many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from ndml.btsp.salience import STOP_WORDS, word_set
from ndml.language.subjects import RELATIVES

_HEAD_CHARS = 400  # what kind of sentence it is stands at its beginning
_TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[?？؟;:,!.]")
_WORD = re.compile(r"[^\W\d_]")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_QUESTION_MARK = re.compile(r"[?？؟⁇⁈⁉‽][\s\"'”’»)\]!.…]*$")
_LABELLED = re.compile(r"\w[^:\n]{0,60}:\s*\S")
_FEWEST_UNSPACED = 4

# What may stand before what is said, and says nothing by itself.
_LEADS = word_set(
    """well so ok okay yes yeah yep no nope oh ah hey hi hello hiya and but also anyway actually btw fyi hm hmm um uh right sure great
    thanks cheers please sorry listen look plus then now basically honestly just good fine alright cool nice perfect again note"""
)
_LEAD_PHRASES = re.compile(
    r"(?:by the way|for the record|(?:just )?so you know|to be clear|as i said|good (?:morning|evening|afternoon|day|night)|"
    r"thank you(?: (?:so|very) much)?|thanks a lot|(?:hi|hello|hey) (?:there|all|everyone|everybody)|in fact|of course|from now on|"
    r"(?:please )?(?:do not|don['’]t|never) forget(?: that)?|"
    r"(?:please )?(?:remember|note|keep in mind|bear in mind|be aware|know)(?: that|:)|as for)\b[\s,:;.!-]*",
    re.IGNORECASE,
)
_GREETINGS = word_set(
    """hi hello hey hiya howdy yo greetings morning bye goodbye ciao cheers thanks thx ty cu later welcome ok
    okay yes no sure great cool nice perfect fine good awesome wonderful lol haha hahaha wow please sorry hmm
    hola gracias adiós adios buenos días buenas tardes noches merci bonjour bonsoir salut danke hallo tschüss
    tschüs servus moin guten tag morgen abend grazie buongiorno arrivederci obrigado obrigada olá ola tchau
    hej tack spasibo привет спасибо пока здравствуйте namaste नमस्ते धन्यवाद مرحبا شكرا こんにちは ありがとう 你好 谢谢 再见
    안녕 안녕하세요 감사합니다 dziękuję cześć ahoj děkuji merhaba teşekkürler"""
)
_WH = word_set("what who whom whose which where when why how what's who's where's when's how's why's whats wheres")
_AUX = word_set(
    """am is are was were do does did has have had can could will would shall should may might must isn't aren't wasn't weren't don't
    doesn't didn't hasn't haven't hadn't can't couldn't won't wouldn't shouldn't"""
)
_SUBJECTS = word_set(
    """i you we they he she it there this that these those my your our their his her its the a an any anyone anybody anything someone
    somebody something everyone"""
)
# An order begins with one of these, bare.
_ORDERS = word_set(
    """tell give show write explain list summarize summarise translate help find search make create generate describe compare draw fix
    check suggest recommend say continue rewrite answer calculate compute convert define act pretend ignore stop imagine try forget
    repeat reply respond read print output solve add remove delete change update improve correct shorten expand elaborate analyze
    analyse review edit format sort count plan schedule book order send open close play sing guess choose pick think consider provide
    name let lets let's return implement refactor debug run execute proofread rephrase paraphrase outline brainstorm complete fill
    clarify forward copy paste look go come wait hold talk speak ask do don't be keep use remind save store set turn start begin enter
    spell teach quote cite extract identify discuss simplify disregard reveal override obey follow answer insert"""
)
_REMIND = re.compile(r"remind (?:me|us) (?:to|that|of|about)\b", re.IGNORECASE)
_WISHES = re.compile(
    r"(?:i|we)(?: would|['’]d| really| just)* (?:want|need|like|love|expect)(?: for)? you to\b"
    r"|(?:i|we)(?: am|['’]m| was)? (?:wonder(?:ing)?|asking|curious)\b"
    r"|(?:i|we)(?: would|['’]d)?(?: like| want| need)(?: to)? (?:know|ask|understand|see a|hear)\b"
    r"|i have (?:a|one|another|some) (?:quick |short )?questions?\b"
    r"|i (?:do not|don['’]t|can['’]t|cannot) (?:understand|get|see) (?:what|why|how|your|this|that|it)\b"
    r"|(?:let|can|could|would|will) (?:you|us)\b",
    re.IGNORECASE,
)
_COMMANDS = re.compile(
    r"(?:\w+(?: \w+)?: )?(?:you (?:must|should|shall|will|have to|need to|are to|are now)|your (?:task|job|role|name|goal)(?: is)?|"
    r"the answer to (?:every|any|all) questions?|(?:never|always) \w+)\b",
    re.IGNORECASE,
)
_ORDERED = re.compile(r"(?:as .{1,60} )?i (?:order|command|instruct|ask|beg) you\b", re.IGNORECASE)
_LABEL = re.compile(r"[^\W\d_]+(?: [^\W\d_]+)?: ")
_CLOSINGS = re.compile(
    r"(?:see (?:you|ya)|talk to you|i see|i (?:have|need|gotta|got) to go|gotta go|got it|i (?:got|understand) it|no problem|never mind)\b"
    r"(?:\W+\w+){0,2}\W*\Z",
    re.IGNORECASE,
)
_FORGOTTEN = re.compile(
    r"(?:i|we) (?:forgot|forget|have forgotten|(?:can['’]?t|cannot|can not|don['’]?t|do not) (?:remember|recall|know))"
    r"(?: (?:it|that|this|now|any ?more))?\W*\Z",
    re.IGNORECASE,
)
_ABOUT_THE_ANSWER = re.compile(
    r"(?:that|this|it|you|your (?:answer|response|reply|code|text)|these|those)"
    r"(?:['’](?:s|re)| (?:is|are|was|were|looks?|sounds?|seems?|works?|makes?|helps?|did|got|helped|worked))\b",
    re.IGNORECASE,
)
_FIRST = word_set("i me my mine myself i'm i've i'd i'll we us our ours we're we've we'd we'll im ive")
_PRONOUNS = word_set("i we they he she it you who everyone everybody nobody somebody someone")
_VERBS = _AUX | word_set(
    """be been being 'm i'm i've i'd i'll we're we've we'd we'll he's she's it's they're they've you're that's there's who's went got
    made took came saw bought met left told gave found kept began broke lost won sold paid sent spent felt heard held read ran wrote
    drove ate drank slept spoke taught thought wore grew flew fell chose built brought caught cost cut let put set sit sat stood
    became become becomes
    understood hit hurt love loves like likes hate hates prefer prefers live lives work works want wants need needs know knows own
    owns keep keeps eat eats drink drinks play plays speak speaks go goes come comes get gets call calls study studies teach teaches
    drive drives"""
)
_AFTER_A_LEAD = _FIRST | _LEADS | _WH | _AUX | _PRONOUNS | {"tell", "give", "show", "remind", "explain"}
_VERBISH = re.compile(r"[a-z]{2,}(?:ed|es|ies|[^s]s)")
_ALSO_ELSEWHERE = word_set("a all am an as at but die do few has he her here him in is me more most no not on or over s so to was will")
_ENGLISH = (STOP_WORDS | _VERBS) - _ALSO_ELSEWHERE
"""Words that only an English sentence has."""
_PAST_ASKED = re.compile(
    r"\b(?:before|previous(?:ly)?|used to|former(?:ly)?|earlier|originally|in the past|back then|history|no longer|any ?more|changed?|"
    r"at (?:the|that) time|(?:my|our|his|her|their|the) (?:old|last|ex)|until|ago|in (?:19|20)\d\d|"
    r"last (?:year|month|week|summer|winter|spring|autumn|time))\b",
    re.IGNORECASE,
)

_NOW_ASKED = re.compile(r"\b(?:now|current(?:ly)?|at the moment|at present|these days|nowadays|today|latest|newest|still)\b", re.IGNORECASE)
_NO_RELATIVE = r"\b(?! (?:mother|father|mum|mom|dad|sister|brother|son|daughter|wife|husband|friend)\b)"
_OWN_ASKED = re.compile(rf"\b(?:I|my|mine|me|we|our|ours|us){_NO_RELATIVE}", re.IGNORECASE)
_ALONE_ASKED = re.compile(rf"\b(?:I|my|mine|me)\b(?! (?:[a-z]+ )?(?:{RELATIVES})\b)", re.IGNORECASE)
# Who asks, as the one to be told: "Tell me when Tom's train leaves", "I forgot who painted it".
_AS_HEARER = re.compile(
    r"\b(?:tell|show|give|remind|teach|help|let|send) me\b"
    r"|\bi(?:['’]d| would| really| just| also)* (?:like|love|want|need|wish) to (?:know|ask|hear|see)\b"
    r"|\bi(?:['’]m| am| was)? (?:wonder(?:ing)?|asking|curious)\b"
    r"|\b(?:can|could|may|might) i (?:ask|know)\b|\b(?:do|did) i (?:know|remember)\b"
    r"|\bi (?:forgot|forget|have forgotten|(?:can['’]?t|cannot|don['’]?t|do not) (?:remember|recall|know))\b",
    re.IGNORECASE,
)
_WAS_ASKED = re.compile(r"\b(?:did|was|were|had)\b", re.IGNORECASE)


def states_something(sentence: str) -> bool:
    """Whether this sentence tells something about the speaker or their world that may be worth keeping."""
    head = " ".join(sentence[:_HEAD_CHARS].split())
    if head.startswith(("```", "~~~")) or not _WORD.search(head) or is_question(sentence):
        return False
    head = _without_leads(head)
    tokens = _tokens(head)
    words = [token for token in tokens if token[0].isalnum()]
    if _is_small_talk(words):
        return False
    if _is_order(head, words) or _WISHES.match(head) or _CLOSINGS.match(head) or _FORGOTTEN.match(head):
        return False
    if _ABOUT_THE_ANSWER.match(head) and not (any(word in _FIRST for word in words) or _has_particular(head)):
        return False
    if len(words) >= 2 and (_has_verb(words) or _LABELLED.match(head)):
        return True
    return not any(word in _ENGLISH for word in words) and _says_enough(head, words)


def is_question(sentence: str) -> bool:
    """It ends in a question mark, or begins as English questions do."""
    if _QUESTION_MARK.search(sentence[-16:]) or sentence.lstrip().startswith("¿"):
        return True
    head = _without_leads(" ".join(sentence[:_HEAD_CHARS].split()))
    words = [token for token in _tokens(head) if token[0].isalnum()][:6]
    if len(words) < 2:
        return bool(words) and words[0] in _WH
    if words[0] in _WH:
        return (
            "'" in words[0] or words[1] in _AUX or (words[0] in ("which", "what", "how", "whose") and words[2:3] != [] and words[2] in _AUX)
        )
    return words[0] in _AUX and words[1] in _SUBJECTS and not (words[0] in ("may", "might", "will") and words[1] in ("the", "a", "an"))


def asks_about_the_past(question: str) -> bool:
    """Whether it asks for what was, so that what has changed since is part of the answer."""
    return _PAST_ASKED.search(question[:2000]) is not None


def asks_what_holds(question: str, *, then: bool = False, own: bool = False) -> bool:
    """Whether it asks how things stand: now, by its words or because the asker asks about themselves in the present. then: at a time that
    is given, when "did I" asks how things stood. own: it is known to ask for what is the asker's, where no word says so."""
    asked = question[:2000]
    if not then and (_PAST_ASKED.search(asked) or _WAS_ASKED.search(asked)):
        return False
    return own or asks_about_the_asker(asked) or _NOW_ASKED.search(asked) is not None


def asks_about_the_asker(question: str, *, alone: bool = False) -> bool:
    """Whether it asks about the one who asks, or what is theirs; not about their relatives. alone: nor about anybody else of theirs, nor
    about what they share with others: "Where do we meet?" is answered by what one of us does."""
    asked = question[:2000]
    return (_ALONE_ASKED.search(_AS_HEARER.sub(" ", asked)) if alone else _OWN_ASKED.search(asked)) is not None


def _tokens(text: str) -> list[str]:
    return [token.casefold().replace("’", "'") for token in _TOKEN.findall(text)]


def _without_leads(head: str) -> str:
    """The sentence without what only opens it: "Hi, by the way, I moved" is a statement."""
    for _ in range(6):
        phrase = _LEAD_PHRASES.match(head)
        if phrase:
            head = head[phrase.end() :]
            continue
        word = re.match(r"[^\W_]+(?:['’-][^\W_]+)*", head)
        rest = head[word.end() :] if word else ""
        if word is None or word.group().casefold() not in _LEADS or (not rest[:1].strip(" ") and not _opens(word.group(), rest)):
            return head
        head = rest.lstrip(" ,;:.!-–—")
    return head


def _opens(word: str, rest: str) -> bool:
    """A lead that no comma ends: "so I moved", but not "good friends of mine came" or "no dogs"."""
    following = rest.split(None, 1)[:1]
    if not following or word.casefold() in ("and", "but", "so", "please", "also"):
        return bool(following)
    return following[0].casefold().strip(",.!:;").replace("’", "'") in _AFTER_A_LEAD


def _is_small_talk(words: Sequence[str]) -> bool:
    return not words or (len(words) <= 4 and all(word in _GREETINGS or word in _LEADS for word in words))


def _is_order(head: str, words: Sequence[str]) -> bool:
    if _REMIND.match(head):
        return False
    if _ORDERED.match(head) or (_COMMANDS.match(head) and not any(word in _FIRST for word in words[1:])):
        return True
    label = _LABEL.match(head)
    bare = [word for word in _tokens(_without_leads(head[label.end() :])) if word[0].isalnum()] if label else words
    if not bare or bare[0] not in _ORDERS:
        return False
    # "Call me Ann" is a statement; so is "Book club is on Friday", where what looks like an order has a verb after it.
    return not (len(bare) > 2 and any(word in _AUX for word in bare[1:4]) and bare[1] not in _SUBJECTS | _FIRST | {"me", "us"})


def _has_particular(head: str) -> bool:
    """A digit, or a capital past the first word: something that can be looked up."""
    return any(char.isdigit() for char in head) or any(word[:1].isupper() for word in head.split()[1:])


def _has_verb(words: Sequence[str]) -> bool:
    if any(word in _VERBS or word.endswith("n't") for word in words):
        return True
    if any(word in _PRONOUNS and following.isalpha() for word, following in pairwise(words)):
        return True
    return any(_VERBISH.fullmatch(word) for word in words[1:])


def _says_enough(head: str, words: Sequence[str]) -> bool:
    """Of a language that the rules do not know: more than a greeting."""
    unspaced = len(_UNSPACED.findall(head))
    return unspaced >= _FEWEST_UNSPACED or len(words) >= 3 or _LABELLED.match(head) is not None
