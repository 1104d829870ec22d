"""What names mean, what they must never mean, and what is wrong in a file of terms."""

import re
from itertools import product

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.terminology import BUILT_IN, PLACED, load
from workflow_scripts.datasets.tokens import tokens

TERMS = load()
FILES = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in BUILT_IN}
CATEGORIES = {name: entries for file in FILES.values() for name, entries in file.items()}
ABBREVIATIONS = CATEGORIES.pop("abbreviations")
NAMES = {
    name: (key,)
    for entries in CATEGORIES.values()
    for key, names in entries.items()
    for name in (key, *names.get("en", ()), *names.get("zh", ()))
}
PLACED_NAMES = [
    f"{position}{'' if chinese else ' '}{name}"
    for category in PLACED
    for names in CATEGORIES[category].values()
    for chinese in (False, True)
    for position in (("左", "右", "双") if chinese else ("left", "right", "bilateral"))
    for name in names.get("zh" if chinese else "en", ())
]
names = st.sampled_from(sorted(NAMES))
any_names = names | st.sampled_from(sorted(ABBREVIATIONS)) | st.sampled_from(PLACED_NAMES)
NEGATIONS = [
    "no {}", "not {}", "non-{}", "without {}", "{} absent", "no evidence of {}", "negative for {}", "{} is not seen",
    "un{}", "没有{}", "无{}", "不{}", "非{}", "未见{}", "无明显{}", "{}阴性", "不是{}", "不存在{}",
]  # fmt: skip
OPPOSITES = [
    ("left", "right"), ("左", "右"), ("upper", "lower"), ("上", "下"), ("top", "bottom"), ("顶", "底"),
    ("hyper", "hypo"), ("high", "low"), ("高", "低"), ("anterior", "posterior"), ("前", "后"), ("medial", "lateral"),
    ("white", "gray"), ("t1", "t2"), ("small", "large"), ("enhancing", "non-enhancing"), ("增强", "非增强"),
    ("ascending", "descending"), ("升", "降"), ("artery", "vein"), ("动脉", "静脉"),
    ("superior", "inferior"), ("benign", "malignant"), ("良性", "恶性"), ("亢进", "减退"), ("posteroanterior", "anteroposterior"),
]  # fmt: skip


def test_every_concept_has_names_in_both_languages():
    assert all(re.search(r"[\u4e00-\u9fff]|^(CT|T1|T2)$", names.zh[0]) for names in TERMS.concepts.values())
    assert all(key.isascii() and name.isascii() for key, names in TERMS.concepts.items() for name in names.en)


def test_there_are_as_many_terms_as_promised():
    assert len(CATEGORIES["diseases"]) >= 60 and len(ABBREVIATIONS) >= 60
    assert {"organs", "modalities", "planes", "positions", "colours"} <= set(CATEGORIES)


def test_every_name_means_its_concept():
    assert {name: TERMS.meanings(name) for name in NAMES} == {name: [key] for name, key in NAMES.items()}


def test_every_abbreviation_means_its_term():
    for short, name in ABBREVIATIONS.items():
        assert TERMS.meanings(short) == TERMS.meanings(name) is not None
        assert TERMS.canonical(short, "zh")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("lungs", "The lung."),
        ("X-ray", "radiograph"),
        ("CXR", "Chest radiograph"),
        ("RUL", "right upper lobe"),
        ("Upper Right Lobe", "右上叶"),
        ("left-sided pleural effusions", "左侧胸腔积液"),
        ("MR", "核磁共振"),
        ("axial", "横断面"),
        ("Lung, Heart", "heart and lungs"),
        ("肺，心脏", "Heart; Lung"),
        ("肝脏和心脏", "心脏、肝脏"),
        ("Inflammation, trauma, etc.", "创伤，炎症等"),
        ("pay attention to prevent cold and keep warm", "防寒保暖"),
        ("left kidney", "左侧肾脏"),
        ("右中叶", "RML"),
    ],
)
def test_the_same(a, b):
    assert TERMS.same(a, b) and TERMS.same(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("left lung", "right lung"),
        ("Left Lung, Right", "Right Lung, Left"),
        ("Left, Lung", "Left Lung"),
        ("hyperdense", "hypodense"),
        ("高血压", "低血压"),
        ("增强型脑肿瘤", "非增强型脑肿瘤"),
        ("normal", "abnormal"),
        ("nodule", "pulmonary nodule"),
        ("lung, heart", "lung"),
        ("no effusion, mass", "mass, no effusion"),
        ("effusion, no mass", "mass, no effusion"),
        ("lung or heart", "heart or lung"),
        ("PE", "pleural effusion"),
        ("", ""),
        (",", "，"),
        ("yes", "yes"),
        ("2, 3", "3, 2"),
    ],
)
def test_not_the_same(a, b):
    assert not TERMS.same(a, b) and not TERMS.same(b, a)


@given(any_names, any_names)
@settings(max_examples=300, deadline=None)
def test_two_names_are_the_same_only_as_one_concept(a, b):
    assert TERMS.same(a, b) == (TERMS.meanings(a) == TERMS.meanings(b))


@pytest.mark.parametrize("negation", NEGATIONS)
def test_no_name_means_its_negation(negation):
    merged = [
        name for name in [*NAMES, *ABBREVIATIONS, *PLACED_NAMES] if TERMS.same(name, negation.format(name))
    ]
    assert not merged


@given(st.lists(any_names, min_size=1, max_size=3), st.data())
@settings(max_examples=300, deadline=None)
def test_a_negated_part_is_never_taken_for_the_finding(parts, data):
    place = data.draw(st.integers(0, len(parts) - 1))
    negated = parts.copy()
    negated[place] = data.draw(st.sampled_from(NEGATIONS)).format(parts[place])
    for between in (", ", "，", " and ", "和"):
        assert not TERMS.same(between.join(parts), between.join(negated))


@pytest.mark.parametrize(("one", "other"), OPPOSITES)
def test_no_name_means_its_opposite(one, other):
    turned = 0
    for name in [*NAMES, *ABBREVIATIONS, *PLACED_NAMES]:
        for word, opposite in ((one, other), (other, one)):
            opposed = name.casefold().replace(word, opposite)
            if opposed != name.casefold():
                turned += TERMS.meanings(opposed) is not None
                assert not TERMS.same(name, opposed), (name, opposed)
    assert turned


def test_no_position_is_merged_with_another():
    """Nor with what it stands before: each pair has a meaning of its own."""
    pairs = list(product(CATEGORIES["positions"], (*CATEGORIES["organs"], *CATEGORIES["diseases"])))
    meanings = {tuple(TERMS.meanings(f"{position} {name}")) for position, name in pairs}
    assert len(meanings) == len(pairs) > 5000


@given(st.lists(any_names, min_size=1, max_size=4), st.data())
@settings(max_examples=200, deadline=None)
def test_the_order_of_a_list_does_not_matter_to_what_it_means(parts, data):
    shuffled = data.draw(st.permutations(parts))
    assert TERMS.same(", ".join(parts), "，".join(shuffled))


@given(any_names, any_names, st.sampled_from(("", " ", " of ", " with ", "的", " to ")))
@settings(max_examples=300, deadline=None)
def test_order_matters_where_there_is_no_list(a, b, between):
    one, other = f"{a}{between}{b}", f"{b}{between}{a}"
    assume(tokens(one) != tokens(other))
    assert not TERMS.same(one, other) or TERMS.meanings(one) == TERMS.meanings(other)


@given(st.lists(any_names, min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_canonical_text_means_what_it_was_made_of(parts):
    answer = ", ".join(parts)
    for language, back in (("en", "zh"), ("zh", "en")):
        text = TERMS.canonical(answer, language)
        assert TERMS.meanings(text) == TERMS.meanings(answer)
        assert TERMS.canonical(text, language) == text
        assert TERMS.canonical(TERMS.canonical(text, back), language) == text


@pytest.mark.parametrize(
    ("answer", "english", "chinese"),
    [
        ("heart and liver", "Heart, Liver", "心脏，肝脏"),
        ("左下肺", "Lower Left Lung", "左下肺"),
        ("左侧肾脏", "Left Kidney", "左肾"),
        ("RLL", "Lower Right Lobe", "右下叶"),
        ("X光", "X-Ray", "X光"),
        ("no fracture", None, None),
        ("lung of a cat", None, None),
        ("", None, None),
    ],
)
def test_canonical(answer, english, chinese):
    assert (TERMS.canonical(answer, "en"), TERMS.canonical(answer, "zh")) == (english, chinese)


@given(st.text(max_size=40))
def test_any_text_is_read(text):
    meanings = TERMS.meanings(text)
    assert meanings is None or TERMS.meanings(TERMS.canonical(text, "en")) == meanings


# Files of the user


@pytest.fixture
def mine(tmp_path):
    """Write a file of terms and give its path."""

    def write(text: str, name: str = "mine.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_a_file_of_the_user_adds_names_and_concepts(mine):
    path = mine(
        "organs: {Liver: {en: [hepar], zh: [肝臟]}, Knee: {zh: [膝关节]}}\n"
        "diseases: {Sarcoidosis: {en: [Besnier-Boeck disease]}}\nabbreviations: {LK: Left Knee, BBD: Sarcoidosis}\n"
    )
    terms = load((path,))
    assert terms.same("hepar", "liver") and terms.canonical("liver", "zh") == "肝臟"
    assert terms.canonical("LK", "zh") == "左膝关节" and terms.same("bilateral knees", "双侧膝关节")
    assert terms.canonical("BBD", "en") == "Sarcoidosis" and terms.canonical("BBD", "zh") is None
    assert not TERMS.meanings("hepar") and TERMS.canonical("liver", "zh") == "肝脏"


def test_a_later_file_may_use_the_concepts_of_an_earlier(mine):
    files = mine("organs: {Knee: {}}", "a.yaml"), mine("abbreviations: {K: Knee}", "b.yaml")
    assert load(files).same("K", "knees")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("organs: {Hepar: {en: [Liver]}}", r"organs.Hepar: 'Liver' is a name of 'Liver' already"),
        ("organs: {Knee: {zh: [肺]}}", r"organs.Knee: '肺' is a name of 'Lung' already"),
        ("organs: {Knee: {en: [K]}, Kidney: {en: [k]}}", r"organs.Kidney: 'k' is a name of 'Knee' already"),
        ("diseases: {Lung: {en: [L]}}", r"diseases.Lung: 'Lung' stands among the organs already"),
        ("organs: {Knee: {en: ['--']}}", r"organs.Knee: '--' has no letter and no digit"),
        ("organs: {Knee: {en: K}}", r"organs.Knee.en: Input should be a valid list"),
        ("organs: {Knee: {en: [1]}}", r"organs.Knee.en.0: Input should be a valid string"),
        ("organs: {Knee: {de: [Knie]}}", r"organs.Knee.de: Extra inputs are not permitted"),
        ("organs: {Knee: }", r"organs.Knee: Input should be a valid dictionary"),
        ("organs: {1: {}}", r"organs.1.\[key\]: Input should be a valid string"),
        ("bodyparts: {}", r"bodyparts.\[key\]: Input should be 'positions'"),
        ("abbreviations: {LK: Left Knee}", r"abbreviations.LK: 'Left Knee' is no name of any concept"),
        ("abbreviations: {PE: Lung, CT: MRI}", r"abbreviations.CT: 'CT' is a name of 'CT' already"),
        ("abbreviations: [CT]", r": Input should be a valid dictionary"),
        ("organs: {Knee: {}, Knee: {}}", r"the key 'Knee' stands twice"),
        ("- Lung", r"expected keys and values"),
        ("organs: {", r"not valid YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(mine, text, said):
    with pytest.raises(UserError, match=rf"mine\.yaml: .*{said}"):
        load((mine(text),))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        load((tmp_path / "none.yaml",))
