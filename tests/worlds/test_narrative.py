import numpy as np

from astrobio.batch import WORLD_STATES
from astrobio.evaluation.language import opening
from astrobio.worlds import narrative
from astrobio.worlds.scenario import Scenario

WORDS_THAT_TELL = ("lifeless", "biosphere", "inhabited", "life", "frozen", "runaway", "steam", "CH4", "O2", "CO2", "CO")


def texts(scenarios):
    for number, worlds in enumerate(scenarios.values()):
        for place, world in enumerate(worlds):
            rng = np.random.default_rng((number, place))
            record = narrative.observing_record(world, rng, transits=50)
            yield world, record, narrative.assessment(world, rng, surface_temperature=288.4, water=3e-3)


def test_record_tells_no_state(scenarios):
    for _, record, _ in texts(scenarios):
        words = record.replace(".", " ").replace(",", " ").split()
        assert not any(label in record for label in WORLD_STATES)
        assert not set(WORDS_THAT_TELL) & set(words)
        assert len(words) <= 90 and "50" in words


def test_record_depends_on_observables_only(scenarios):
    """Two worlds that differ in nothing but state, air and fluxes have the same record."""
    for world in scenarios["oxygenic-biosphere"]:
        twin = Scenario("lifeless-temperate", "outgassing", world.star, world.planet, 9.9, {"CO2": 0.5}, {})
        records = [narrative.observing_record(w, np.random.default_rng(4), transits=5) for w in (world, twin)]
        assert records[0] == records[1]


def test_assessment_names_state_verdict_gases_and_temperature(scenarios):
    for world, _, text in texts(scenarios):
        assert [label for label in WORLD_STATES if label in text] == [world.state]
        assert ("not inhabited" in text) != world.inhabited and "inhabited" in text
        assert "290 K" in text and len(text.split()) <= 50
        if world.gases["CO2"] > 1e-3:
            assert f"CO2 {narrative.order_of_magnitude(world.gases['CO2'])}" in text


def test_texts_vary(scenarios):
    records = {record.split(" ")[0] for _, record, _ in texts(scenarios)}
    openings = {text.split(" ")[0].strip(":;,") for _, _, text in texts(scenarios)}
    assert len(records) >= 3 and {"State", "This"} <= openings


def test_answers_open_in_the_words_of_assessments(scenarios):
    """Else a guided text would begin with words that no decoder was trained on."""
    begun = [text.startswith(opening(world.state)) for world, _, text in texts(scenarios)]
    assert 0.1 < np.mean(begun) < 0.9


def test_orders_of_magnitude():
    values = {0.97: "1e0", 0.5: "3e-1", 0.21: "3e-1", 0.04: "1e-1", 4e-4: "1e-3", 2e-6: "1e-6"}
    assert {value: narrative.order_of_magnitude(value) for value in values} == values
