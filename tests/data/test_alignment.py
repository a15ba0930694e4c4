"""The facts of an alignment: other units, plain values and back, and the worst of several."""

from dataclasses import asdict, replace

from maskless.data.alignment import Alignment, worst

FOUND = Alignment(
    aligned=True, warped=True, colours_matched=False, shift_xy_px=(3.14159, -2.0), scale=1.04321,
    colour_rgb=(1.26, 0.0, -4.0), residual=0.12345, noise_px=0.1,
)  # fmt: skip


def test_a_shift_is_resized_and_nothing_else():
    assert FOUND.resized(2.0) == replace(FOUND, shift_xy_px=(6.28318, -4.0), noise_px=0.2)


def test_it_becomes_plain_values_and_itself_again():
    plain = FOUND.to_dict()
    assert plain["shift_xy_px"] == [3.14, -2.0] and plain["scale"] == 1.0432 and plain["residual"] == 0.123
    assert Alignment.from_dict(plain).colour_rgb == (1.3, 0.0, -4.0)
    assert Alignment.from_dict(asdict(FOUND)) == FOUND


def test_the_worst_piece_speaks_for_a_candidate():
    loose, refused = replace(FOUND, residual=0.4), replace(FOUND, aligned=False, residual=0.2)
    assert worst([FOUND, None, loose]) is loose and worst([loose, refused]) is refused
    assert worst([None, None]) is None and worst([]) is None
