"""What a split is asked to be: its places, their shares, and how a place becomes train, val or test."""

from __future__ import annotations

import math
from dataclasses import dataclass

from components.records.errors import InputError
from components.records.schema import SPLITS

SPLIT_BY = ("patient", "center")


@dataclass(frozen=True)
class SplitOptions:
    """The checked parameters of a split.

    A *place* is what patients are dealt out to: a split by shares, or a fold (`"0"`, `"1"`, …) where there are folds.

    Attributes:
        split_by: `patient`, or `center` to hold out whole centers.
        shares: every wanted place and the share of each label's patients it gets; they add up to 1.
        folds: number of folds, 0 for a split by shares.
        fold: which fold is the test split.
        with_val, with_test: whether folds have a val and a test split.
        seed: the run's seed.
    """

    split_by: str
    shares: dict[str, float]
    folds: int
    fold: int
    with_val: bool
    with_test: bool
    seed: int

    @property
    def unit(self) -> str:
        """What a place is called: `split` or `fold`."""
        return "fold" if self.folds else "split"

    def split_of(self, place: str) -> str:
        """The split of a place: test is fold `fold`, val the next one (or `fold` itself without a test split)."""
        if not self.folds:
            return place
        ahead = (int(place) - self.fold) % self.folds
        held_out = [name for name, wanted in (("test", self.with_test), ("val", self.with_val)) if wanted]
        return held_out[ahead] if ahead < len(held_out) else "train"


def check_options(split_by: str, val_share: float, test_share: float, folds: int, fold: int, seed: int) -> SplitOptions:
    """Checks the parameters against each other.

    With folds, `val_share` and `test_share` only say whether there is such a split: 0 leaves it out.

    Raises:
        InputError: names the parameter and the mend.
    """
    if split_by not in SPLIT_BY:
        raise InputError(f"{split_by!r} is neither patient nor center", where="split_by", mend="choose one of the two")
    for name, share in (("val_share", val_share), ("test_share", test_share)):
        if not (math.isfinite(share) and 0 <= share < 1):
            raise InputError(f"{share:g} is no share", where=name, mend="give one from 0 up to but not 1, such as 0.15")
    with_val, with_test = val_share > 0, test_share > 0
    if folds:
        _check_folds(folds, fold, with_val, with_test)
        shares = {str(place): 1 / folds for place in range(folds)}
    else:
        if fold:
            raise InputError(f"fold {fold} is asked for without folds", where="fold", mend="set folds, or fold=0")
        if val_share + test_share >= 1 - 1e-9:
            raise InputError(
                f"{val_share:g} + {test_share:g} leaves nothing to train on",
                where="val_share + test_share",
                mend="keep their sum below 1",
            )
        given = dict(zip(SPLITS, (1 - val_share - test_share, val_share, test_share), strict=True))
        shares = {place: share for place, share in given.items() if share > 0}
    return SplitOptions(split_by, shares, folds, fold, with_val, with_test, seed)


def _check_folds(folds: int, fold: int, with_val: bool, with_test: bool) -> None:
    if not (with_val or with_test):
        raise InputError(
            "folds without a val and a test split hold nothing out",
            where="folds",
            mend="give val_share or test_share above 0, or folds=0",
        )
    needed = 1 + with_val + with_test
    if folds < needed:
        wanted = " and ".join(["train", *(["val"] if with_val else []), *(["test"] if with_test else [])])
        raise InputError(
            f"{folds} folds can't hold {wanted}",
            where="folds",
            mend=f"take at least {needed}, or folds=0 for a split by shares",
        )
    if not 0 <= fold < folds:
        raise InputError(f"there is no fold {fold} of {folds}", where="fold", mend=f"choose 0 to {folds - 1}")


def fold_names(folds: int, repeats: int) -> tuple[str, ...]:
    """`r0_f0`, `r0_f1`, …: repeat by repeat."""
    return tuple(f"r{repeat}_f{fold}" for repeat in range(repeats) for fold in range(folds))
