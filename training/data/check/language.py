"""The language of a text by its script and its commonest words: enough to see that a corpus is what it says it is.

A guess: closely related languages (Danish and Norwegian) are mixed up, and a few words of a Latin script tell nothing.
"""

import re
import unicodedata
from collections import Counter

LONGEST = 2000  # characters looked at
FEWEST = 2  # common words that must be met,
SHARE = 0.05  # and their share of all words: lists of names and prices hold a few of any language
SCRIPTS = {
    "LATIN": "Latin", "CYRILLIC": "Cyrillic", "GREEK": "Greek", "ARABIC": "Arabic", "HEBREW": "Hebrew",
    "DEVANAGARI": "Devanagari", "BENGALI": "Bengali", "TAMIL": "Tamil", "TELUGU": "Telugu", "GUJARATI": "Gujarati",
    "THAI": "Thai", "HANGUL": "Korean", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "CJK": "Han",
    "GEORGIAN": "Georgian", "ARMENIAN": "Armenian", "ETHIOPIC": "Ethiopic", "KHMER": "Khmer", "MYANMAR": "Burmese",
}  # fmt: skip
# The commonest words of each language that are rare in its neighbours.
WORDS = {
    "English": "the of and to is in what this that are how which for with does it on was shown image",
    "German": "der die das und ist nicht ein eine wie was auf dem den im mit für welche sind wird zu",
    "French": "le la les et est une des du dans que qui pour sur avec ce cette quel quelle sont au",
    "Spanish": "el los las es una del que por para con qué cuál este esta como se son en y muestra",
    "Italian": "il gli è di che una della nel per con cosa questo questa sono come quale dei si non",
    "Portuguese": "o os um uma não é do da em que para com qual são no na esta este você dos",
    "Dutch": "het een van is niet wat deze dit op zijn voor met en welke hoe wordt aan er dat",
    "Swedish": "och är det som en ett på att inte med vad för den av till vilken finns hur",
    "Danish or Norwegian": "og er det som en et på at ikke med hva hvad for den av af til hvilken",
    "Polish": "jest nie się na co jak do i w z że to są czy który która dla od",
    "Czech": "je na se co jak do že to jsou který která pro od ve není kolik jaký",
    "Turkish": "ve bir bu ne için ile nedir olan hangi kaç mi mı değil var da de",
    "Vietnamese": "là của và có trong này không gì những được một các cho với người ở",
    "Indonesian or Malay": "yang dan di ini apa dengan untuk adalah dari tidak pada berapa dalam itu",
    "Finnish": "ja on ei se että mitä tämä kuinka ovat mikä joka oli kuva kuvassa",
    "Hungarian": "a az és egy nem hogy mi van ez mit milyen meg hány képen",
    "Romanian": "și este în la de un o nu ce care sunt cu din pentru această câte",
}  # fmt: skip
_OF_WORD: dict[str, list[str]] = {}
for _language, _words in WORDS.items():
    for _word in _words.split():
        _OF_WORD.setdefault(_word, []).append(_language)
_WORD = re.compile(r"[^\W\d_]+")


def guess_language(text: str) -> str:
    """As "English", "Chinese", "Latin script, too few words to tell", "no letters"."""
    text = text[:LONGEST]
    if text.isascii():
        return _latin(text) if any(map(str.isalpha, text)) else "no letters"
    scripts = Counter(map(_script, filter(str.isalpha, text)))
    if not scripts:
        return "no letters"
    script = scripts.most_common(1)[0][0]
    if scripts["Japanese"] and scripts["Japanese"] + scripts["Han"] >= scripts[script]:
        return "Japanese"
    if script == "Latin":
        return _latin(text)
    if script == "Cyrillic":
        return "Ukrainian" if set(text.lower()) & set("іїєґ") else "Russian or other Cyrillic"
    if script == "Arabic":
        return "Persian or Urdu" if set(text) & set("پچگژٹڈے") else "Arabic"
    return {"Han": "Chinese", "Devanagari": "Hindi or other Devanagari"}.get(script, script)


def _latin(text: str) -> str:
    votes: Counter[str] = Counter()
    words = _WORD.findall(text.lower())
    for word in words:
        languages = _OF_WORD.get(word, ())
        for language in languages:
            votes[language] += 1 / len(languages)
    for language, count in votes.most_common(1):
        if count >= max(FEWEST, SHARE * len(words)):
            return language
    return "Latin script, too few words to tell"


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").split(" ")[0]
    return SCRIPTS.get(name, SCRIPTS.get(name.split("-")[0], "other script"))
