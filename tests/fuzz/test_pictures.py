"""The first pictures of the campaign: each is edited exactly, or refused in one line."""

from fuzz.pictures import mutated_picture, summary, try_picture


def test_a_seed_gives_the_same_picture():
    assert mutated_picture(7) == mutated_picture(7) != mutated_picture(8)


def test_mutated_pictures_are_edited_or_refused_in_one_line(tmp_path):
    found = summary([try_picture(seed, tmp_path) for seed in range(400)])
    assert found["edited"] > 150 and found["refused in one line"] > 100
