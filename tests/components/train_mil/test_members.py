import numpy as np
import pytest

from components.mil.encoders.dense import build_dense
from components.mil.heads.registry import HEADS, create_head
from components.mil.model import BagModel
from components.train_mil.members import EmbeddedBags, Member, MemberTrainer
from components.train_mil.parameters import TrainingParameters

OPTIONS = {"embedding_dim": 8, "attention_dim": 4, "width": 8, "landmarks": 4}


def bags_of(count=24, d=5, most=6, seed=0):
    """A bag is positive where one of its instances has a large first value."""
    rng = np.random.default_rng(seed)
    sizes, labels = rng.integers(1, most + 1, count), np.arange(count) % 2
    starts = np.concatenate([[0], np.cumsum(sizes)])
    instances = rng.normal(size=(starts[-1], d)).astype(np.float32)
    instances[starts[:-1][labels == 1], 0] += 6
    return EmbeddedBags(instances, starts, labels)


def trainer_of(bags, members, head="gated_attention", **changes):
    def build():
        encoder = build_dense(bags.instances.shape[1], **OPTIONS)
        return BagModel(encoder, create_head(head, 2, **OPTIONS), ["no", "yes"])

    given = {"epochs": 2, "bags_per_batch": 8, "learning_rate": 1e-2, "tiles_per_bag": 4, **changes}
    return MemberTrainer(build, TrainingParameters(head=head, **given), bags, members)


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_trains_in_a_stack(head):
    bags = bags_of()
    trainer = trainer_of(bags, [Member(range(16), 0), Member(range(8, 24), 1)], head)
    history = trainer.fit()
    found = trainer.predict()
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert found.shape == (2, 24, 2)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)
    assert not np.allclose(found[0], found[1])


def test_members_learn():
    bags = bags_of(count=40)
    trainer = trainer_of(bags, [Member(range(30), 0), Member(range(10, 40), 0)], epochs=30)
    trainer.fit()
    right = trainer.predict().argmax(axis=-1) == bags.labels
    assert right[0, 30:].mean() >= 0.9
    assert right[1, :10].mean() >= 0.9


def test_a_member_is_what_it_is_alone_and_never_sees_other_bags():
    bags = bags_of()
    together = trainer_of(bags, [Member(range(16), 0), Member(range(8, 24), 1)])
    together.fit()
    foreign = bags.instances.copy()
    foreign[bags.starts[16] :] += 100  # bags the first member was not given
    other = EmbeddedBags(foreign, bags.starts, bags.labels)
    alone = trainer_of(other, [Member(range(16), 0)])
    alone.fit()
    np.testing.assert_allclose(together.predict(range(16))[0], alone.predict(range(16))[0], rtol=1e-3, atol=1e-5)


def test_a_members_model_says_what_the_stack_says():
    bags = bags_of()
    trainer = trainer_of(bags, [Member(range(16), 0), Member(range(8, 24), 1)], "attention_max")
    trainer.fit()
    found = trainer.predict()[1]
    model = trainer.model_of(1)
    for bag in (0, 9, 23):
        rows = bags.instances[bags.rows(bag)][None]
        said = model({"tiles": rows, "mask": np.ones(rows.shape[:2], bool)}, training=False)
        np.testing.assert_allclose(said["probabilities"][0], found[bag], rtol=1e-4, atol=1e-6)


def test_one_seed_gives_one_result():
    bags, found = bags_of(), []
    for _ in range(2):
        trainer = trainer_of(bags, [Member(range(16), 3)])
        trainer.fit()
        found.append(trainer.predict())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_every_bag_of_a_member_is_drawn_once_an_epoch():
    bags = bags_of()
    trainer = trainer_of(bags, [Member(range(16), 0), Member(range(3, 24), 1)])
    weights = [batch[3].numpy() for batch in trainer._draw_epoch(1)]
    assert [(np.concatenate(weights, axis=1)[member] > 0).sum() for member in (0, 1)] == [16, 21]
