import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.headlines.casing import with_case
from app.headlines.headline import Case

ARTICLE = """NASA's Perseverance rover has landed on Mars, the White House said. Engineers in the US cheered. "It helps
us all," one said of the rover. The iPhone maker Apple met McDonald's in New York. The U.S. Navy backed Ohio’s new plan
in St. Louis. An Irish-born man, J. Smith, painted a white house. Veltrion shut. Later Prime Minister Sanna Marin met
the prime minister of Spain. The army said the Army had no comment. Al-Qaeda fighters fled."""


@pytest.mark.parametrize(
    ("headline", "expected"),
    [
        ("nasa's perseverance", "NASA's Perseverance"),
        ("NASA'S PERSEVERANCE ROVER LANDS ON MARS", "NASA's Perseverance rover lands on Mars"),
        ("NASA's Perseverance Rover Lands on Mars", "NASA's Perseverance rover lands on Mars"),
        ("rover lands", "Rover lands"),
        ("iphone maker at mcdonald's", "iPhone maker at McDonald's"),
        ("iPhone Maker Meets McDonald’s", "iPhone maker meets McDonald’s"),
        ("The plan of ohio", "The plan of Ohio"),
        ("Ohio's u.s. navy", "Ohio's U.S. Navy"),
        ("US helps us", "US helps us"),
        ("“white house” paints a white wall", "“White House” paints a white wall"),
        ("Man paints White House", "Man paints White House"),
        ("man dies in st. louis", "Man dies in St. Louis"),
        ("Irish-Born Man Speaks", "Irish-born man speaks"),
        ("Irish-born Man Speaks Up", "Irish-born man speaks up"),
        ("APPLE TV", "Apple TV"),
        ("NASA LANDS", "NASA lands"),
        ("ROVER LANDS IN 2031", "Rover lands in 2031"),
        ("A U.N. BODY MEETS", "A U.N. body meets"),
        ("Storm Hits the Coast after Long Dry Week", "Storm hits the coast after long dry week"),
        ("The I\u0301ndice Falls Again", "The i\u0301ndice falls again"),
        ("NASA US", "NASA US"),
        ("Why I Left Apple", "Why I left Apple"),
        ("al-Qaeda flees", "Al-Qaeda flees"),
        ("prime minister marin flees", "Prime Minister Marin flees"),
        ("$4.2 billion for ohio. what now? nothing", "$4.2 billion for Ohio. What now? Nothing"),
        ("Marin: 'we will win'", "Marin: 'We will win'"),
        ("why smith, a man, died", "Why Smith, a man, died"),
        ("10-year-old wins", "10-year-old wins"),
        ("“new plan” helps", "“New plan” helps"),
    ],
)
def test_sentence_case(headline: str, expected: str) -> None:
    assert with_case(headline, "sentence", ARTICLE) == expected


def test_the_models_own_capitals_count_where_the_article_tells_nothing() -> None:
    assert with_case("Chipmaker Veltrion builds plant", "sentence", ARTICLE) == "Chipmaker Veltrion builds plant"
    assert with_case("Chipmaker veltrion builds plant", "sentence", ARTICLE) == "Chipmaker veltrion builds plant"
    assert with_case("Chipmaker Veltrion Builds Plant", "sentence", ARTICLE) == "Chipmaker veltrion builds plant"


def test_a_short_headline_keeps_its_name_and_letters() -> None:
    assert with_case("Who is Veltrix?", "sentence", ARTICLE) == "Who is Veltrix?"
    assert with_case("Why the G7 and YouTube Meet", "sentence", ARTICLE) == "Why the G7 and YouTube meet"
    assert with_case("A U.N. Body Meets", "sentence", ARTICLE) == "A U.N. body meets"


def test_a_real_headline_and_its_article() -> None:
    article = "WASHINGTON — A senator urged action on a climate bill Tuesday, citing NASA’s data."
    title, sentence = "Senator Urges Action on Climate Bill", "Senator urges action on climate bill"
    for headline in (title, sentence, title.upper(), title.lower()):
        assert with_case(headline, "sentence", article) == sentence
        assert with_case(headline, "title", article) == title


def test_a_name_is_spelt_as_the_article_does_most_often() -> None:
    article = "The Unesco office and the Unesco staff met the UNESCO board."
    assert with_case("why unesco met", "sentence", article) == "Why Unesco met"
    assert with_case("why UNESCO met", "sentence", article.replace("Unesco staff", "UNESCO staff")) == "Why UNESCO met"


def test_an_abbreviation_ends_no_sentence() -> None:
    assert with_case("why baker left", "sentence", "They told Sen. Baker so.") == "Why Baker left"
    assert with_case("why baker left", "sentence", "They went. Baker stayed.") == "Why baker left"


def test_a_quotation_may_begin_with_a_capital_that_names_nothing() -> None:
    assert with_case("why storms hit", "sentence", "They said 'Storms hit us' and left.") == "Why storms hit"


def test_what_the_article_writes_as_a_small_i_is_a_word() -> None:
    assert with_case("Polska I Niemcy Graja", "sentence", "Mecz polska i niemcy graja") == "Polska i niemcy graja"


def test_what_the_article_writes_in_lower_case_is_no_name() -> None:
    assert with_case("Why NASA's Rover landed", "sentence", ARTICLE) == "Why NASA's rover landed"


def test_what_the_article_writes_both_ways_stays_unless_the_headline_is_a_title() -> None:
    assert with_case("Why the Army helps", "sentence", ARTICLE) == "Why the Army helps"
    assert with_case("Why the army helps", "sentence", ARTICLE) == "Why the army helps"
    assert with_case("Why the Army Helps Nobody", "sentence", ARTICLE) == "Why the army helps nobody"


def test_a_name_that_only_starts_sentences_confirms_the_models_own_capitals() -> None:
    article = "White House officials spoke of a white house. The House waited in the other house."
    assert with_case("Why White House waits", "sentence", article) == "Why White House waits"
    assert with_case("Why white house waits", "sentence", article) == "Why white house waits"
    assert with_case("Why The House waits", "sentence", article) == "Why the House waits"


@pytest.mark.parametrize("heading", ["Storm Hits Coast of Florida Again Today.", "STORM HITS COAST.", "", '"Coast" is'])
def test_a_heading_tells_nothing_of_names(heading: str) -> None:
    assert with_case("storm hits coast", "sentence", heading) == "Storm hits coast"


@pytest.mark.parametrize(
    ("headline", "expected"),
    [
        ("nasa's perseverance rover lands on mars", "NASA's Perseverance Rover Lands on Mars"),
        ("NASA ROVER LANDS ON MARS, SGT SAYS", "NASA Rover Lands on Mars, Sgt Says"),
        ("The Plan Of The U.S. Navy", "The Plan of the U.S. Navy"),
        ("iphone maker helps us", "iPhone Maker Helps Us"),
        ("US troops leave", "US Troops Leave"),
        ("irish-born man finds e-mail on-site", "Irish-Born Man Finds E-Mail On-Site"),
        ("face-to-face: a plan", "Face-to-Face: A Plan"),
        ("it's what ohio’s navy isn't", "It's What Ohio’s Navy Isn't"),
        ("‘the best’ and “the worst”", "‘The Best’ and “The Worst”"),
        ("storm—thousands flee", "Storm—Thousands Flee"),
        ("what is it for", "What Is It For"),
        ("cafe\u0301s close", "Cafe\u0301s Close"),
        ("up in the air, and over", "Up in the Air, and Over"),
        ("10-year-old and/or 5G", "10-Year-Old and/or 5G"),
    ],
)
def test_title_case(headline: str, expected: str) -> None:
    assert with_case(headline, "title", ARTICLE) == expected


def test_model_leaves_the_headline_as_it_is() -> None:
    assert with_case(" nasa  LANDS", "model", ARTICLE) == " nasa  LANDS"


@pytest.mark.parametrize("case", ["sentence", "title"])
@pytest.mark.parametrize("headline", ["", " ", "…", "ßa", "ŉa", "İı", "東京で会談", "\tМосква\n"])
def test_what_has_no_case_to_change(headline: str, case: Case) -> None:
    assert with_case(headline, case, ARTICLE) == headline


def test_a_word_without_end_comes_back() -> None:
    word = with_case("mc" * 5000, "title", "")
    assert word.startswith("McMc")
    assert word.casefold() == "mc" * 5000


WORDS = """
    nasa NASA Nasa iPhone iphone mcdonald's McDonald's U.S. u.s. us US New York new york the The a A i I I'll i'm ßa ⓐ
    STRASSE straße İstanbul ıst ΟΔΟΣ οδος ς ǆabc Ǆ ﬁn TV nth ltd WXYZ rover Rover ROVER lands Lands LANDS irish-born
    Irish-Born e-mail o'brien O'B and/or Of of don't DON'T b1 b中文字 ŉa it's “the ‘we: he. He! Sgt X d'État x.y mcdx Ⓐb
    vs. 3rd ǅx ᾳx Ⅷ ſt e\u0301a E\u0301A — - a—b : \t
"""
HEADLINES = st.lists(st.sampled_from(WORDS.split(" ")) | st.text(max_size=4), max_size=9).map(" ".join)
ARTICLES = st.lists(st.sampled_from(WORDS.split()) | st.sampled_from(". x"), max_size=20).map(" ".join)


@given(HEADLINES, ARTICLES, st.sampled_from(["sentence", "title"]))
@example("ΟΔΟΣ ΟΔΟΣ", "", "title")
@example("b123 WXYZ", "", "sentence")
@example("STRASSE lands", "LANDS", "sentence")
def test_only_case_changes_and_only_once(headline: str, article: str, case: Case) -> None:
    for text in (article, f"{article} x {headline}. {article}"):
        cased = with_case(headline, case, text)
        assert [letter.casefold() for letter in cased] == [letter.casefold() for letter in headline]
        assert with_case(cased, case, text) == cased
