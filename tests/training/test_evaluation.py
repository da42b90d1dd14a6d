"""The numbers of an evaluation, and how they are named."""

import numpy as np
import pytest
from sklearn import metrics

from experiments.training.evaluation import Evaluation


def evaluation(true, predicted, classes):
    return Evaluation(0.0, metrics.confusion_matrix(true, predicted, labels=range(classes)))


def test_macro_f1_is_that_of_present_classes_and_macro_avg_is_scikit_learns():
    true, predicted = [0, 0, 0, 1, 1], [0, 0, 2, 1, 1]  # the third class is predicted, but absent
    found = evaluation(true, predicted, 3)
    report = found.report("abc")
    assert found.macro_f1 == pytest.approx(metrics.f1_score(true, predicted, labels=[0, 1], average="macro")) == 0.9
    expected = metrics.classification_report(
        true, predicted, labels=range(3), target_names=list("abc"), output_dict=True, zero_division=0
    )
    assert report["macro avg"] == pytest.approx(expected["macro avg"])
    assert report["macro avg"]["f1-score"] == pytest.approx(0.6) and report["macro_f1"] == found.macro_f1


def test_a_class_named_like_a_row_of_the_report_has_a_row_of_its_own():
    names = ("accuracy", "macro avg", "weighted avg", "macro_f1", "class accuracy")
    labels = np.repeat(range(5), range(1, 6))
    report = evaluation(labels, labels, 5).report(names)
    assert report["accuracy"] == 1 and report["macro avg"]["support"] == report["weighted avg"]["support"] == 15
    rows = ("class class accuracy", "class macro avg", "class weighted avg", "class macro_f1", "class accuracy")
    assert [report[row]["support"] for row in rows] == [1, 2, 3, 4, 5]
