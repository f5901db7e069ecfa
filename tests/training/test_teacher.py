"""A teacher: weights that stand still while others learn, and come back when a run is resumed."""

import pytest
import torch
from comfyui_rollout.training.teacher import Teacher, borrowed


def weights(*values):
    return [torch.nn.Parameter(torch.tensor([value, 1.0])) for value in values]


def test_the_teacher_stands_still():
    """It has the values of the moment in which it was made, and only inside."""
    parameters = weights(1.0, 2.0)
    teacher = Teacher(parameters)
    with torch.no_grad():
        parameters[0].add_(10)
    with borrowed(parameters):
        teacher.put_into(parameters)
        assert [parameter[0].item() for parameter in parameters] == [1.0, 2.0]
    assert [parameter[0].item() for parameter in parameters] == [11.0, 2.0]


def test_what_is_borrowed_comes_back_after_an_error():
    """A failing reference must not leave the teacher's weights in the student."""
    parameters = weights(1.0)

    def failing():
        with borrowed(parameters):
            parameters[0].data.zero_()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        failing()
    assert parameters[0].tolist() == [1.0, 1.0]


def test_a_teacher_is_saved_and_restored_to_the_bit():
    """Eleven weights: names are put in order as numbers, not as text."""
    saved = Teacher(weights(*range(11)))
    resumed = Teacher(weights(*[9.0] * 11))
    resumed.load_state_dict(saved.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(saved.weights, resumed.weights, strict=True))


def test_a_teacher_of_another_model_is_refused():
    """Before anything is changed."""
    with pytest.raises(ValueError, match="another model or LoRA"):
        Teacher(weights(1.0)).load_state_dict(Teacher(weights(1.0, 2.0)).state_dict())
