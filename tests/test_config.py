"""Study definitions: files, options, and what is refused."""

import re
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st

from hirise_imb import config
from hirise_imb.config import Override, Range, StudyDefinition
from hirise_imb.utils.errors import UserError

STUDIES = Path(__file__).parents[1] / "studies"

DEFINITIONS = st.builds(
    StudyDefinition,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
    data=st.text(st.characters(codec="utf-8")),
    backbone=st.text(st.characters(codec="utf-8")),
    weights=st.sampled_from(["imagenet", "random", 'a "quoted" file', "C:\\weights.h5", "tab\t\n\r\x1f\x7f\u2028é"]),
    strategies=st.lists(st.text(st.characters(codec="utf-8")), min_size=1, unique=True).map(tuple),
    trials=st.integers(1, 10**6),
    trial_seeds=st.integers(1, 100),
    refits=st.integers(1, 100),
    seed=st.integers(0, 2**31),
)


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_bytes(text.encode())
    return path


def test_the_committed_demo_is_the_default() -> None:
    assert config.load_definition(STUDIES / "demo.toml", {}) == StudyDefinition() == config.default_definition({})


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_committed_study_loads(path: Path) -> None:
    assert config.load_definition(path, {}).name


def test_the_committed_studies_have_names_of_their_own() -> None:
    names = [config.load_definition(path, {}).name for path in STUDIES.glob("*.toml")]
    assert len(names) >= 3
    assert len(set(names)) == len(names)


def test_a_file_need_not_give_everything(tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "mine"\ntrials = 7\nstrategies = ["focal_loss"]\n')
    assert config.load_definition(path, {}) == StudyDefinition(name="mine", trials=7, strategies=("focal_loss",))
    assert config.load_definition(written(tmp_path, 'name = "demo"'), {}) == StudyDefinition()


@pytest.mark.parametrize(("file", "name"), [("mine.toml", "mine"), ("a b,c.toml", "a-b-c"), ("_.toml", "study")])
def test_a_file_without_a_name_gives_its_own(file: str, name: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    assert config.load_definition(tmp_path / file, {}) == StudyDefinition(name=name)


def test_other_data_than_the_demos_has_another_name() -> None:
    assert config.default_definition({"trials": 5}).name == "demo"
    assert config.default_definition({"data": "synthetic"}).name == "demo"
    assert config.default_definition({"data": "hirise"}).name == "hirise"
    assert config.default_definition({"data": "/some/where/my landmarks.zip"}).name == "my-landmarks"
    assert config.default_definition({"data": "$HIRISE_SAMPLE"}).name == "HIRISE_SAMPLE"
    assert config.default_definition({"data": "x.zip", "name": "given"}).name == "given"


@pytest.mark.parametrize("value", [["oversampling"], ("oversampling",)])
def test_options_come_before_the_file(value: list[str] | tuple[str, ...], tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "mine"\ntrials = 7\nstrategies = ["focal_loss"]\n')
    found = config.load_definition(path, {"trials": 9, "strategies": value})
    assert found == StudyDefinition(name="mine", trials=9, strategies=("oversampling",))
    assert config.default_definition({"strategies": value}).strategies == ("oversampling",)


def test_an_option_replaces_a_wrong_value_of_the_file(tmp_path: Path) -> None:
    assert config.load_definition(written(tmp_path, "trials = 0\n"), {"trials": 1}).trials == 1


@quick
@given(DEFINITIONS)
def test_the_toml_of_a_definition_reads_back_as_it(study: StudyDefinition) -> None:
    import tomllib

    found = tomllib.loads(study.to_toml())
    assert not study.overrides
    expected = asdict(study) | {"strategies": list(study.strategies), "evaluation": list(study.evaluation)}
    del expected["overrides"], expected["costs"]
    assert found == expected


def test_costs_are_part_of_the_definition_as_they_were_written(tmp_path: Path) -> None:
    text = 'metric = "cost"\ncosts = ["impact ejecta, other, 10", "*, crater, 0.5"]\n'
    found = config.load_definition(written(tmp_path, text), {})
    assert (found.metric, found.costs) == ("cost", ("impact ejecta, other, 10", "*, crater, 0.5"))
    assert config.load_definition(written(tmp_path, found.to_toml()), {}) == found


def test_the_toml_of_a_definition_loads(tmp_path: Path) -> None:
    study = replace(StudyDefinition(), name="a.b-c_1", data="$HOME/é", strategies=("a", "b"))
    assert config.load_definition(written(tmp_path, study.to_toml()), {}) == study


# --- overrides ---

TABLES = """\
trials = 7

[strategies.oversampling]

[strategies.focal_loss]
gamma = {low = 1, high = 3.5}
weights = "none"

[strategies.class_weights]
scheme = ["inverse_power", "effective_number"]
power = 0.5

[strategies.undersampling]
members = {high = 3}
"""
OVERRIDES: dict[str, dict[str, Override]] = {
    "focal_loss": {"gamma": Range(1, 3.5), "weights": "none"},
    "class_weights": {"scheme": ("inverse_power", "effective_number"), "power": 0.5},
    "undersampling": {"members": Range(high=3)},
}
NAMES = ("oversampling", "focal_loss", "class_weights", "undersampling")


def test_tables_name_strategies_in_order_and_hold_overrides(tmp_path: Path) -> None:
    study = config.load_definition(written(tmp_path, TABLES), {})
    assert study == StudyDefinition(name="study", trials=7, strategies=NAMES, overrides=OVERRIDES)


def test_empty_tables_are_a_list(tmp_path: Path) -> None:
    study = config.load_definition(written(tmp_path, "[strategies]\nfocal_loss = {}\nprototypes = {}\n"), {})
    assert study == StudyDefinition(name="study", strategies=("focal_loss", "prototypes"))
    assert 'strategies = [\n    "focal_loss",\n    "prototypes",\n]' in study.to_toml()


def test_overrides_survive_their_toml(tmp_path: Path) -> None:
    study = config.load_definition(written(tmp_path, TABLES), {})
    assert config.load_definition(written(tmp_path, study.to_toml()), {}) == study


@pytest.mark.parametrize(
    ("option", "names", "kept"),
    [
        (["focal_loss", "prototypes"], ("focal_loss", "prototypes"), ["focal_loss"]),
        (["prototypes"], ("prototypes",), []),
        (["undersampling", "focal_loss"], ("undersampling", "focal_loss"), ["focal_loss", "undersampling"]),
    ],
)
def test_an_option_selects_names_and_keeps_their_overrides(
    option: list[str], names: tuple[str, ...], kept: list[str], tmp_path: Path
) -> None:
    study = config.load_definition(written(tmp_path, TABLES), {"strategies": option})
    assert study.strategies == names
    assert study.overrides == {name: OVERRIDES[name] for name in kept}
    assert config.load_definition(written(tmp_path, study.to_toml()), {}) == study


def test_overrides_of_the_control_are_kept_whatever_is_selected(tmp_path: Path) -> None:
    path = written(tmp_path, TABLES + "[strategies.plain]\nweight_decay = 0.1\n")
    study = config.load_definition(path, {"strategies": ["prototypes"]})
    assert study.strategies == ("plain", "prototypes")
    assert study.overrides == {"plain": {"weight_decay": 0.1}}
    named = config.load_definition(path, {"strategies": ["prototypes", "plain"]})
    assert named.strategies == ("prototypes", "plain")


_WAYS = (
    "give a number or a string to fix it, a table with the numbers low and high to narrow it, or a list of strings to "
    "keep only these choices."
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "strategies.focal_loss = 3",
            "strategies.focal_loss is 3: it must be a table of parameters, which may be empty.",
        ),
        ("strategies.focal_loss.gamma = true", f"strategies.focal_loss.gamma is true: {_WAYS}"),
        ("strategies.focal_loss.gamma = []", f"strategies.focal_loss.gamma is []: {_WAYS}"),
        ("strategies.focal_loss.gamma = [1, 2]", f"strategies.focal_loss.gamma is [1, 2]: {_WAYS}"),
        ("strategies.focal_loss.gamma = {}", f"strategies.focal_loss.gamma is another table: {_WAYS}"),
        ("strategies.focal_loss.gamma = {min = 1}", f"strategies.focal_loss.gamma is another table: {_WAYS}"),
        ("strategies.focal_loss.gamma = {low = '1'}", f"strategies.focal_loss.gamma is another table: {_WAYS}"),
        ("strategies.focal_loss.gamma = {low = true}", f"strategies.focal_loss.gamma is another table: {_WAYS}"),
        ("strategies.focal_loss.gamma = 2024-01-01", f"strategies.focal_loss.gamma is 2024-01-01: {_WAYS}"),
        ("strategies = {}", "strategies is empty: name at least one (`hirise-imb strategies` lists them)."),
    ],
)
def test_an_override_of_another_form_is_refused_with_its_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        config.load_definition(written(tmp_path, text), {})


def test_overrides_of_a_strategy_that_is_not_named_are_refused() -> None:
    with pytest.raises(UserError, match=r"^overrides are given for tta, which is not in strategies: add it there\.$"):
        StudyDefinition(overrides={"tta": {"views": "mirror"}})


def test_overrides_are_no_key_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^There is no key 'overrides'"):
        config.load_definition(written(tmp_path, "overrides = {}"), {})


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (2.0, "2.0"),
        (3, "3"),
        ("none", '"none"'),
        (Range(1, 3.5), "{low = 1, high = 3.5}"),
        (Range(high=3), "{high = 3}"),
        (("a", "b"), '["a", "b"]'),
    ],
)
def test_an_override_is_shown_as_it_is_written(override: Override, text: str) -> None:
    assert config.format_override(override) == text


# --- what is refused ---


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": True}, "trials is true: it must be an integer."),
        ({"trials": "2"}, 'trials is "2": it must be an integer.'),
        ({"seed": 1.0}, "seed is 1.0: it must be an integer."),
        ({"refits": [1]}, "refits is [1]: it must be an integer."),
        ({"name": 3}, "name is 3: it must be a string."),
        ({"data": False}, "data is false: it must be a string."),
        ({"strategies": "focal_loss"}, 'strategies is "focal_loss": it must be a list of strings.'),
        ({"strategies": ["focal_loss", 1]}, 'strategies is ["focal_loss", 1]: it must be a list of strings.'),
        ({"trials": 0}, "trials is 0: use 1 or more."),
        ({"trial_seeds": 0}, "trial_seeds is 0: use 1 or more."),
        ({"trial_seeds": 1.5}, "trial_seeds is 1.5: it must be an integer."),
        ({"refits": 0}, "refits is 0: use 1 or more."),
        ({"seed": -1}, "seed is -1: use 0 or more."),
        ({"strategies": []}, "strategies is empty: name at least one (`hirise-imb strategies` lists them)."),
        ({"strategies": ["a", "b", "a"]}, "strategies contains a name twice: a, b, a."),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        config.default_definition(values)


@pytest.mark.parametrize(
    ("seed", "refits", "trial_seeds"), [(2**32 - 1, 1, 1), (2**32 - 2, 3, 1), (2**32 - 2, 1, 2), (10**30, 1, 1)]
)
def test_a_seed_that_no_generator_takes_is_refused(seed: int, refits: int, trial_seeds: int) -> None:
    # Seeds are `seed` and the integers after it, for trials and as many for scores of arms; over-sampling and dropout
    # take 32 bits.
    assert config.default_definition({"seed": 2**32 - 2, "refits": 1, "trial_seeds": 1}).seed == 2**32 - 2
    with pytest.raises(UserError, match=rf"^seed is {seed}: it and the seeds of trials and refits after it must stay "):
        config.default_definition({"seed": seed, "refits": refits, "trial_seeds": trial_seeds})


def test_there_is_no_choice_of_validation_data() -> None:
    with pytest.raises(UserError, match=r"^There is no key 'selection'"):
        config.default_definition({"selection": "val"})


@pytest.mark.parametrize("name", ["", "..", ".hidden", "-x", "a/b", "a\\b", "a b", "a\n", "é", "a:b", "index.html"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    message = f"The name {name!r} can't name a folder: use up to 100 letters, digits, '.', '_' and '-'."
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        config.default_definition({"name": name})


@pytest.mark.parametrize("where", ["file", "option"])
def test_an_unknown_key_names_the_nearest(where: str, tmp_path: Path) -> None:
    path = written(tmp_path, "trails = 3\n" if where == "file" else "")
    with pytest.raises(
        UserError,
        match=r"^There is no key 'trails': did you mean trials\? Known: name, data, dataset, backbone, .*, seed\.$",
    ):
        config.load_definition(path, {} if where == "file" else {"trails": 3})


def test_a_key_like_no_other_gets_the_list_alone() -> None:
    with pytest.raises(UserError, match=r"^There is no key 'zzz'\. Known: name, "):
        config.default_definition({"zzz": 3})


def test_a_known_name_is_returned() -> None:
    assert config.check_known("animal", "cat", ["dog", "cat"]) == "cat"
    with pytest.raises(UserError, match=r"^There is no animal 'cta': did you mean cat\? Known: dog, cat\.$"):
        config.check_known("animal", "cta", ["dog", "cat"])


def test_a_table_of_features_takes_the_place_of_the_backbone(tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "mine"\nbackbone = "resnet50v2"\nweights = "random"\n')
    from_table = StudyDefinition(name="mine", features="t.parquet")
    assert config.load_definition(path, {"features": "t.parquet"}) == from_table
    assert not {"backbone", "weights", "precision"} & tomllib.loads(from_table.to_toml()).keys()
    path = written(tmp_path, from_table.to_toml())
    assert config.load_definition(path, {}) == from_table
    backbone = StudyDefinition(name="mine", backbone="resnet50v2")
    assert config.load_definition(path, {"backbone": "resnet50v2"}) == backbone
    assert config.load_definition(path, {"features": "", "backbone": "resnet50v2"}) == backbone
    assert config.load_definition(path, {"features": ""}) == StudyDefinition(name="mine")


@pytest.mark.parametrize("values", [{"backbone": "efficientnet-lite0"}, {"weights": "random", "precision": "bfloat16"}])
def test_a_backbone_given_with_a_table_of_features_is_refused(values: dict[str, str], tmp_path: Path) -> None:
    verb = "are" if len(values) > 1 else "is"
    message = f"^features is t.parquet, a table .*, but {' and '.join(values)} {verb} given too: leave out either"
    with pytest.raises(UserError, match=message):
        config.default_definition({"features": "t.parquet", **values})
    lines = [f'{key} = "{value}"\n' for key, value in {"features": "t.parquet", **values}.items()]
    with pytest.raises(UserError, match=message):
        config.load_definition(written(tmp_path, "".join(lines)), {})


def test_a_backbone_other_than_the_default_is_no_match_for_a_table_of_features(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="but backbone is given too"):
        StudyDefinition(features="t.parquet", backbone="resnet50v2")
    path = written(tmp_path, 'features = "t.parquet"\n')
    with pytest.raises(UserError, match="but weights is given too"):
        config.load_definition(path, {"weights": "random"})


def test_without_a_definition_a_study_is_named_after_its_table() -> None:
    assert config.default_definition({"features": "some/dino v2.parquet"}).name == "demo-dino-v2"
    assert config.default_definition({"features": "t.parquet", "data": "mine.zip"}).name == "mine-t"
    assert config.default_definition({"features": "t.parquet", "name": "x"}).name == "x"


def test_a_missing_file_names_those_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^There is no study definition none\.toml\.$"):
        config.load_definition(Path("none.toml"), {})
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "b.toml").touch()
    (tmp_path / "studies" / "a.toml").touch()
    with pytest.raises(
        UserError, match=r"^There is no study definition none\.toml; there are studies.a\.toml, studies.b\.toml\.$"
    ):
        config.load_definition(Path("none.toml"), {})


def test_a_folder_is_no_definition(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder: name a study definition, a TOML file\.$"):
        config.load_definition(tmp_path, {})


@pytest.mark.parametrize("content", [b"name = ", b"name: demo", b"a = 1\na = 2\n", b'name = "\xff"'])
def test_what_is_no_toml_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"study\.toml is not valid TOML: .+\.$"):
        config.load_definition(path, {})
