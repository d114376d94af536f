"""Win matrices, gains, tables and claims of Part III, against values worked out by hand on made-up runs."""

import json

import pandas as pd
import pytest

from rsbook import claims, crops_controls, crops_findings, published

MODELS = ("lstm", "inception_time", "transformer")


def run(model, inputs, seed, accuracy, rate=None, hidden=8, **more):
    """A row as `runs.table` gives it."""
    recall = [accuracy - 0.1, accuracy, accuracy + 0.1]
    row = {"model": model, "inputs": inputs, "seed": seed, "rate": rate, "accuracy": accuracy, "recall": recall}
    row |= {"configuration": {"hidden": hidden, "learning_rate": 0.01}, "record": f"{model} {inputs} {seed} {rate}"}
    row |= {"history": [], "confusion": [], "mean": [], "std": [], "weights": None, "dataset": "crops"}
    return row | {"train_pixels": 60, "scaling": "deviation", "frozen": True, "region": "here"} | more


def made_up(offsets, models=MODELS, seeds=(1, 2, 3), rates=(0.2, 0.6), **more):
    """Runs with an accuracy of 0.5 and what `offsets` adds for each input; a hundredth more at the second rate."""
    rows = []
    for model in models:
        for seed in seeds:
            for name, offset in offsets.items():
                for k, rate in enumerate([None] if name in ("bands", "random") else rates):
                    shift = offset(seed) if callable(offset) else offset
                    rows.append(run(model, name, seed, 0.5 + 0.001 * seed + shift + 0.01 * k, rate, **more))
    return pd.DataFrame(rows)


OFFSETS = {"bands": 0.0, "random": 0.02, "uni_modal": -0.03, "bi_modal": 0.04}


# Pairs


def test_what_knows_no_corruption_stands_beside_every_rate():
    scores = crops_findings.paired(made_up(OFFSETS))
    assert list(scores.index.names) == ["model", "configuration", "seed", "rate"]
    assert len(scores) == 3 * 3 * 2
    assert not scores.isna().any().any()
    at = scores.loc[("lstm", json.dumps({"hidden": 8, "learning_rate": 0.01}), 2)]
    assert at.loc[0.2, "bands"] == at.loc[0.6, "bands"] == pytest.approx(0.502)
    assert at["bi_modal"].tolist() == pytest.approx([0.542, 0.552])


def test_runs_of_other_configurations_are_no_pair():
    both = pd.concat([made_up(OFFSETS), made_up(OFFSETS, hidden=16)])
    assert len(crops_findings.paired(both)) == 2 * 18


# Eq. 2


def test_a_win_matrix_by_hand():
    """Five pairs: a is above b three times, once equal, once below."""
    scores = pd.DataFrame({"a": [60, 61, 55, 70, 64], "b": [58, 61, 59, 62, 63]})
    found = crops_findings.win_matrix(scores, ["a", "b"])
    assert found.loc["a", "b"] == 3 / 5
    assert found.loc["b", "a"] == 1 / 5
    assert found.isna().to_numpy().tolist() == [[True, False], [False, True]]


def test_a_pair_that_lacks_a_score_is_not_counted():
    scores = pd.DataFrame({"a": [60, None, 70], "b": [58, 61, 72]})
    assert crops_findings.win_matrix(scores, ["a", "b"]).loc["a", "b"] == 1 / 2


# Gains


def test_gains_in_points_and_in_per_cent():
    scores = pd.DataFrame({"bands": [0.5, 0.8], "bi_modal": [0.55, 0.7]})
    assert crops_findings.gains(scores)["bi_modal"].tolist() == pytest.approx([5.0, -10.0])
    assert crops_findings.gains(scores, per_cent=True)["bi_modal"].tolist() == pytest.approx([10.0, -12.5])


def test_table_1_has_ours_beside_the_papers():
    found = crops_findings.table_1(made_up(OFFSETS), 1).set_index(["model", "input"])
    assert list(found.index)[:3] == [("Bi-LSTM", name) for name in ("supervised", "uni-modal", "bi-modal")]
    base, uni, bi = (found.loc["Bi-LSTM"].loc[name] for name in ("supervised", "uni-modal", "bi-modal"))
    assert base["accuracy"] == "50.20\u00a0±\u00a00.10"
    assert base["paper: accuracy"] == "66.70\u00a0±\u00a02.53"
    assert pd.isna(base["gain"])
    assert bi["gain"] == "+4.50 (+4.00, +5.00)"
    assert uni["gain"] == "−2.50 (−3.00, −2.00)"
    assert uni["paper: gain"] == "−2.26 (−16.33, +3.87)"
    assert (uni["gain, %"], bi["gain, %"]) == ("−5.0", "+9.0")


def test_wins_beside_the_papers():
    runs = made_up(OFFSETS)
    lost = (runs["model"] == "lstm") & (runs["inputs"] == "bi_modal") & (runs["seed"] == 2)
    runs.loc[lost, "accuracy"] = 0.49  # above uni-modal, below the bands
    found = crops_findings.win_table(runs, 1).set_index("model")
    assert found.loc["Bi-LSTM"].tolist() == ["4 of 6", "17 of 20", "6 of 6", "19 of 20"]
    assert found.loc["Transformer"].tolist() == ["6 of 6", "20 of 20", "6 of 6", "20 of 20"]


def test_accuracy_by_input():
    found = crops_findings.input_table(made_up(OFFSETS)).set_index("input")
    assert list(found.index) == ["supervised", "random encoder", "uni-modal", "bi-modal"]
    assert found.loc["bi-modal", "n"] == 6
    assert found.loc["supervised", "Transformer"].startswith("50.20")


# Claims of the tasks


def judged(runs, task, preset="quick"):
    return crops_findings.task_claims(runs, task, preset).set_index("number")


@pytest.mark.parametrize("task", [1, 2, 3])
def test_claims_hold_where_bi_modal_leads_for_every_seed(task):
    found = judged(made_up(OFFSETS), task)
    assert found.loc[f"bi_uni_{task}", "verdict"] == "holds"
    assert found.loc[f"bi_supervised_{task}", "verdict"] == "holds"
    assert (found["n"] == 3).all()


def test_the_exceptions_of_the_paper_have_a_claim_of_their_own():
    for task, number, name in ((2, "transformer_2", "Transformer"), (3, "inception_3", "InceptionTime")):
        found = judged(made_up(OFFSETS), task)
        assert name not in found.loc[f"bi_supervised_{task}", "here"]
        assert found.loc[number, "verdict"] == "fails"  # 4.5 points are more than one
        small = judged(made_up(OFFSETS | {"bi_modal": lambda seed: 0.002 * (seed - 3)}), task)
        assert small.loc[number, "verdict"] == "holds"
    assert list(judged(made_up(OFFSETS), 1).index) == ["bi_uni_1", "bi_supervised_1"]


def test_one_model_that_fails_makes_the_claim_fail():
    runs = made_up(OFFSETS)
    weak = (runs["model"] == "lstm") & (runs["inputs"] == "bi_modal")
    runs.loc[weak, "accuracy"] -= 0.1
    assert judged(runs, 1)["verdict"].tolist() == ["fails", "fails"]


def test_one_seed_that_disagrees_leaves_the_claim_open():
    found = judged(made_up(OFFSETS | {"bi_modal": lambda seed: 0.04 if seed < 3 else -0.2}), 1)
    assert found["verdict"].tolist() == ["open", "open"]


def test_smoke_says_nothing():
    assert set(judged(made_up(OFFSETS), 3, "smoke")["verdict"]) == {"open"}


def test_published_differences_are_those_of_the_table():
    found = judged(made_up(OFFSETS), 1)
    theirs = published.table("crops/table_1").query("task == 1").set_index("model")
    for model, name in crops_findings.MODEL_NAMES.items():
        less = theirs.loc[model, "bi_gain"] - theirs.loc[model, "uni_gain"]
        assert f"+{less:.2f} at {name}" in found.loc["bi_uni_1", "paper"]


# Controls


def controls(bi=0.04, preset="quick"):
    tasks = {k: made_up(OFFSETS | {"bi_modal": bi}) for k in (1, 2, 3)}
    released = made_up({"uni_modal_released": -0.05}, rates=(0.2,))
    clean = made_up({"bi_modal": 0.01}, rates=(0.0,))
    few = made_up({"bands": -0.2, "random": -0.1, "bi_modal": -0.05}, ("lstm",), rates=(0.2,), train_pixels=10)
    many = made_up({"bands": 0.0, "random": 0.0, "bi_modal": 0.02}, ("lstm",), rates=(0.2,), train_pixels=60)
    tuned = made_up({"random": 0.0, "bi_modal": 0.03}, ("lstm",), rates=(0.2,), train_pixels=60, frozen=False)
    scarce = pd.concat([few, many], ignore_index=True)
    return tasks, pd.concat([released, clean], ignore_index=True), scarce, tuned, preset


def test_claims_about_what_is_learned_by_hand():
    found = crops_controls.control_claims(*controls()).set_index("number")
    assert set(found["verdict"]) == {"holds"}
    assert "+2.50" in found.loc["random_frozen", "here"]  # 0.045 less 0.02
    assert "+2.00" in found.loc["released_uni", "here"]  # −0.03 less −0.05, at the same rate
    assert "+13.00" in found.loc["scarce", "here"]  # 15 points of gain with ten, 2 with sixty
    assert "+1.00" in found.loc["end_to_end", "here"]
    assert "+3.00 ± 0.00 at 20 %" in found.loc["corruption", "here"].replace("\u00a0", " ")


def test_a_learned_gain_is_not_one_that_a_random_encoder_has_too():
    found = crops_controls.control_claims(*controls(bi=0.0)).set_index("number")
    assert found.loc["random_frozen", "verdict"] == "fails"
    assert set(crops_controls.control_claims(*controls(preset="smoke"))["verdict"]) == {claims.OPEN}


def test_tables_of_controls():
    tasks, others, scarce, tuned, _ = controls()
    variants = crops_controls.variant_table(tasks[1], others)
    assert variants["pre-training"].tolist() == [
        "random encoder", "uni-modal", "uni-modal", "bi-modal", "bi-modal", "bi-modal", "uni-modal, in place",
    ]  # fmt: skip
    assert [c.replace("\u00a0", " ") for c in variants["corruption"]] == [
        "–",
        "20 %",
        "60 %",
        "0 %",
        "20 %",
        "60 %",
        "20 %",
    ]
    assert set(variants["n"]) == {3}
    both = crops_controls.tuned_table(scarce, tuned)
    assert both[["input", "encoder"]].to_numpy().tolist() == [
        ["supervised", "–"], ["random encoder", "frozen"], ["random encoder", "learns along"],
        ["bi-modal", "frozen"], ["bi-modal", "learns along"],
    ]  # fmt: skip
    scaled = made_up({"bands": 0.0}, scaling="none")
    names = {"none": "reflectance"}
    assert crops_controls.column_table(scaled, "scaling", names)["scaling"].tolist() == ["reflectance"]


def test_what_is_learned_by_task_by_hand():
    runs = pd.concat([made_up(OFFSETS, rates=(0.2,)), made_up({"bi_modal": 0.05}, rates=(0.0,))], ignore_index=True)
    found = crops_controls.learned_table({2: runs}).iloc[0]
    assert found.drop("n").map(lambda v: str(v).replace("\u00a0", " ")).tolist() == [
        "2", "+2.00 ± 0.00", "+4.00 ± 0.00", "+7.00 ± 0.00", "−1.00 ± 0.00",
    ]  # fmt: skip
    assert found["n"] == 3


def test_figures_have_their_data_behind_them():
    tasks, _, scarce, _, _ = controls()
    runs = tasks[1]
    for shown in (
        crops_findings.draw_wins(runs),
        crops_findings.draw_gains(runs, 1),
        crops_findings.draw_recall(runs, ["a", "b", "c"]),
        crops_controls.draw_over_random(tasks),
        crops_controls.draw_scarce(scarce),
    ):
        assert shown.html.count("<img") == 2
        assert 'download="' in shown.html
    assert "6 paired scores" in crops_findings.draw_wins(runs).html


def test_explorable_runs_say_their_configuration_in_words():
    found = crops_findings.explorable(made_up(OFFSETS))
    assert found["settings"].iloc[0] == "hidden 8, learning_rate 0.01"
    wide = made_up(OFFSETS, hidden=1024)
    assert crops_findings.explorable(wide)["settings"].iloc[0].startswith("hidden 1024")
    assert not {"configuration", "history", "mean"} & set(found.columns)
